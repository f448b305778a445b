"""The border between `monitor` and a back end that can tell of single packets: what it tells, and how it is asked.

Knows: the shape of a denied packet. Must not know: any one back end, names of pods, or how it is printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from k8snetc.ir.types import Address


@dataclass(frozen=True, slots=True)
class DeniedPacket:
    """A packet that policy denied, as it was where it was judged: after service translation.

    `time` is CLOCK_MONOTONIC, nanoseconds. `protocol` is the IANA number; ports are 0 where it has none, and an
    echo's identifier twice. `leaving`: it came from the pod, otherwise it was for it. `egress` is the direction of the
    rules that denied it; where they differ, the packet answers an older connection. `profile` stands for the
    enforcement, `generation` for the apply that decided.
    """

    time: int
    source: Address
    destination: Address
    protocol: int
    source_port: int
    destination_port: int
    leaving: bool
    egress: bool
    profile: int
    generation: int


class Watcher(Protocol):
    """Tells of denied packets from when it is opened until it is closed. One at a time on a node."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def poll(self, seconds: float) -> Sequence[DeniedPacket]:
        """What was denied; waits for the first packet, at most so long. Raises `InstallError` when it is removed."""
        ...

    def know(self, enforcements: Iterable[str]) -> None:
        """The names of the enforcements of the program that runs now."""
        ...

    def name(self, packet: DeniedPacket) -> str:
        """The enforcement that denied it, "" if it is not known."""
        ...

    def missed(self) -> int:
        """How many denied packets were not told, because there were too many, since the watcher was opened."""
        ...


def watcher_for(name: str, rate: int) -> Watcher | None:
    """The watcher of a back end, None if it has none. `rate`: packets a second that are told at most.

    Entering it raises `InstallError` where nothing can be watched.
    """
    if name != "ebpf":
        return None
    from importlib import import_module

    made: Watcher = import_module(f"k8snetc.backends.{name}.watch").Watch(rate)
    return made
