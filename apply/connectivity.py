"""What a change means for connections: who gains or loses access to what, in words and as data.

Knows: how to put together what `reach_services` and `reach_policy` find. Must not know: rules of any back end.

The answers are exact, not sampled: the space of packets is split into classes that neither program can tell apart
(`partition`), and the interpreter, which is the meaning of a program, judges one packet of each class with both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from k8snetc.ir.types import Address, Origin, Program


@dataclass(frozen=True, slots=True)
class Effect:
    """One change of connectivity: a line of the plan.

    `symbol`: `+` access gained, `-` lost, `~` changed otherwise. `protocol` is upper case, "" for all. `ports` is
    "" for all. `detail` says what changes where `symbol` doesn't. `causes` are the manifest objects; one of the old
    program starts with `was `. `count` is how many destinations (service addresses or pods) the line stands for.
    """

    symbol: str
    source: str
    destination: str
    protocol: str = ""
    ports: str = ""
    detail: str = ""
    causes: tuple[str, ...] = ()
    count: int = 1

    def __str__(self) -> str:
        traffic = " ".join(w for w in (self.protocol or "any protocol", self.ports) if w)
        text = f"{self.source} -> {self.destination} {traffic}"
        return f"{text}: {self.detail}" if self.detail else text


Names = Mapping[Address, str]
"""What people call an address: `namespace/pod`."""


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods of the old and of the new manifests, None where they are not known."""

    was: Names | None
    will: Names | None

    @property
    def names(self) -> Names:
        """What an address is called; if it is another pod's by now, by the new name."""
        return {**(self.was or {}), **(self.will or {})}


def cause(origin: Origin | None, *, old: bool = False) -> tuple[str, ...]:
    """An origin as `file:line`, marked if it is of the old program; nothing if it is not known."""
    if origin is None:
        return ()
    return (f"{'was ' if old else ''}{origin.file}:{origin.line} {origin.kind} {_name(origin)}",)


def _name(origin: Origin) -> str:
    return f"{origin.namespace}/{origin.name}" if origin.namespace else origin.name


def effects(
    old: Program, new: Program, names: Names | None = None, before: Names | None = None
) -> tuple[Effect, ...]:
    """Everything that changes for connections, services first. Empty if no packet is treated differently.

    `names` are the pods of the new manifests, `before` those of the old, None where they are not known. By them a pod
    that comes or goes is told from one that policy begins or ceases to hold for, and one that moved is known again.
    """
    from k8snetc.apply.reach_policy import policy_effects
    from k8snetc.apply.reach_services import service_effects

    pods = Pods(before, names)
    return (*service_effects(old, new, pods.names), *policy_effects(old, new, pods))
