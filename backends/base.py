"""What a back end is to the rest of the compiler: lower, emit, and its gaps.

Knows: the shape of artifacts and of refusals. Must not know: any one back end, or the kernel.
Observing and installing (the kernel's side of a back end) are in `backends/X/observe` and
`backends/X/install`, imported lazily, so that `compile` runs unprivileged without their libraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from k8snetc.ir.types import Origin, Program


@dataclass(frozen=True, slots=True)
class Artifact:
    """A text that the back end's tool reads. `name` is a file name without folders, stable over time."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Something the program asks for and the back end (or this kernel) can't do: `what`, and what to do."""

    what: str
    hint: str
    origin: Origin | None = None


class UnsupportedError(Exception):
    """The back end can't express the program. Carries every gap: a firewall never has a silent hole."""

    def __init__(self, backend: str, gaps: Sequence[Gap]) -> None:
        self.backend = backend
        self.gaps = tuple(gaps)
        super().__init__(f"{backend}: {len(self.gaps)} thing(s) can't be expressed")

    def __reduce__(self) -> tuple[type[UnsupportedError], tuple[str, tuple[Gap, ...]]]:
        """Whole also from one process to another, as out of a node of the lab."""
        return type(self), (self.backend, self.gaps)


@dataclass(frozen=True, slots=True)
class EmitOptions:
    """How artifacts are written. `comments`: rules carry the origin where the target has comments.

    `ipvs_scheduler` is for Services that ask for none (`name` or `name:flag,flag`); `ipvs_strict_arp`: nobody outside
    learns that the node has the service addresses. Both are named as kube-proxy names them. `ebpf_counters`: the
    generated programs count, and record what policy denies.
    """

    comments: bool = True
    ipvs_scheduler: str = "rr"
    ipvs_strict_arp: bool = False
    ebpf_counters: bool = True


class Backend(Protocol):
    """A compiler back end: pure, deterministic, no clock, no randomness, no kernel.

    Each back end's package exposes one instance as `BACKEND`; `backends.registry` finds it by name.
    """

    @property
    def name(self) -> str: ...

    def compile(self, program: Program, options: EmitOptions) -> tuple[Artifact, ...]:
        """Lower and emit. Raises `UnsupportedError` with all gaps at once."""
        ...


class NodeError(Exception):
    """The node said no: a kernel, a tool or the state on disk. The message says what to do about it."""
