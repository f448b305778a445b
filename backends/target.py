"""The border between `apply` and the kernel's side of a back end: what each back end fills, once.

Knows: the shape of states, changes and steps. Must not know: any one back end, files, locks, people.

A back end describes what is installed as one value, its *state* (`S` below): the rule set, tables or programs that are
the tool's own and what of others makes them void, and nothing else.
Three sources give states, and all three compare with `==`:

- `desired(program)`: what the program should look like. Pure.
- `observe()`: what the kernel holds now. Reads, never writes, never touches what is not ours.
- `load(data)`: what a journal kept. `load(dump(state)) == state`, but for what made it void.

Everything else is made of them. `steps(live, goal)` is the heart: it must lead from *any* state that `observe` can
return, also a half-done or damaged one, to `goal`. So one method serves to install, to change, to repair (live = what
somebody broke), to put back after a failure or a crash (goal = what ran before) and to remove (goal = `empty()`).
The order of steps is the back end's: at each point between two steps a packet that both programs allow passes and
one that both deny does not. A step is atomic or may be repeated; it never has to be reverted by itself.

`k8snetc.backends.iptables.install` is the example to read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from k8snetc.backends.base import EmitOptions
from k8snetc.ir.types import Program

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)


class InstallError(Exception):
    """The kernel or a tool refused. The message says what, and what to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing done to the kernel. `title` says what in a few words: `nat (IPv4): add 3 chains, switch`.

    `size` counts what is handed to the kernel (lines, elements, map entries): the cost of the change.
    """

    title: str
    run: Callable[[], None]
    size: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two states in the back end's own words.

    `where` names the place (`nat IPv4 K8SNETC-SVC-AB12`), `removed` and `added` its lines that go and come, and
    `origin` the manifest object that it is for, "" where the back end can't tell.
    """

    where: str
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    origin: str = ""

    @property
    def symbol(self) -> str:
        """`+` only comes, `-` only goes, `~` both, or neither: then `where` says what differs."""
        if bool(self.removed) == bool(self.added):
            return "~"
        return "-" if self.removed else "+"


Cell = str | int | None


@dataclass(frozen=True, slots=True)
class Section:
    """A table of `status`: its name (a word, also the key in JSON), its columns and rows."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """How to install, for all back ends together; each takes what concerns it.

    `comments`: rules carry the origin. `iptables` is the variant: `auto` (what `iptables` on PATH is), `legacy` or
    `nft`. `wait` is how many seconds to wait for somebody else's lock (xtables). `ipvs_scheduler` and
    `ipvs_strict_arp` are those of `EmitOptions`. The rest is for eBPF.
    """

    comments: bool = True
    iptables: str = "auto"
    wait: int = 10
    ipvs_scheduler: str = "rr"
    ipvs_strict_arp: bool = False
    uplinks: tuple[str, ...] = ()
    pod_interfaces: tuple[str, ...] = ()
    cgroup: str | None = None
    no_cgroup: bool = False
    ebpf_counters: bool = True

    @property
    def emit(self) -> EmitOptions:
        """The same for `Backend.compile`."""
        return EmitOptions(self.comments, self.ipvs_scheduler, self.ipvs_strict_arp, self.ebpf_counters)


class Target(Protocol[S]):
    """One back end's grip on the kernel of the network namespace that the caller is in.

    Each back end's package has `install.target(options: InstallOptions)`, imported lazily by `target_for`.
    """

    @property
    def name(self) -> str:
        """The back end's name in `backends.registry`."""
        ...

    def desired(self, program: Program) -> S:
        """What the program looks like here. Raises `UnsupportedError` with all gaps at once."""
        ...

    def empty(self) -> S:
        """The state in which nothing is ours."""
        ...

    def grounded(self, goal: S, before: S) -> S:
        """`goal`, and what it doesn't speak of as it was in `before`, the state that the first apply found.

        This is for settings that aren't ours but that we change (sysctl values): they are put back when no program
        needs them any longer. A back end without such settings returns `goal`.
        """
        ...

    def observe(self) -> S:
        """What is installed now: all that is ours, and what makes it void. Raises `InstallError`."""
        ...

    def changes(self, live: S, goal: S) -> tuple[Change, ...]:
        """The differences for people, in a stable order. Empty exactly when `goal` is what `live` does."""
        ...

    def steps(self, live: S, goal: S) -> Sequence[Step]:
        """What leads from `live` to `goal`. Running it raises `InstallError` or `CommandError`."""
        ...

    def dump(self, state: S) -> bytes:
        """The state as bytes, equal for equal states: for the journal and for fingerprints."""
        ...

    def load(self, data: bytes) -> S:
        """The state that `dump` wrote. Raises `ValueError` for anything else."""
        ...

    def cut(self, old: Program | None, new: Program) -> int:
        """After the switch: forget tracked connections that `new` would not make, and say how many.

        Those are UDP flows to an endpoint that their service no longer has, and flows that policy denies now.
        `old` None: not known what ran before. (`backends.common.conntrack` does it for what rests on netfilter.)
        """
        ...

    def details(self, program: Program) -> tuple[Section, ...]:
        """What `status` shows of what runs, beyond whether it is there: `program` is what was installed last."""
        ...

    def warnings(self) -> tuple[str, ...]:
        """Foreign rules that will catch our traffic first, each named, and what to do about it."""
        ...


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """How many endpoints have left their services: `idle` without a connection, `busy` with some."""

    idle: int = 0
    busy: int = 0


@runtime_checkable
class Collector(Protocol[S_contra]):
    """What a target can do besides whose changes leave something behind that has to be collected later.

    What is left behind does nothing for new connections and takes no part in comparing states.
    """

    def left_behind(self, live: S_contra) -> LeftBehind:
        """What is there. Pure."""
        ...

    def collecting(self, live: S_contra) -> Sequence[Step]:
        """What takes the idle away; empty if there are none."""
        ...


def target_for(name: str, options: InstallOptions) -> Target[object]:
    """The target of a back end, its kernel libraries imported now. Raises `KeyError` for an unknown name."""
    from importlib import import_module

    from k8snetc.backends.registry import NAMES

    if name not in NAMES:
        raise KeyError(name)
    made: Target[object] = import_module(f"k8snetc.backends.{name}.install").target(options)
    return made
