"""What changes because of policy, put together: one line for all pods, peers, protocols and families that change alike.

Knows: what is found between which addresses, and how people call them. Must not know: programs, or how it is found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from k8snetc.apply.connectivity import Effect, Names
from k8snetc.apply.words import Group, many_pods, people, pods, ports, protocol
from k8snetc.ir.addresses import Range
from k8snetc.ir.types import Direction, Family, PortRange, Protocol

PROTOCOLS: tuple[Protocol | None, ...] = (*Protocol, None)
Causes = tuple[str, ...]


@dataclass(slots=True)
class Traffic:
    """Which protocols and ports of a pair of classes change the same way."""

    ports: dict[Protocol | None, list[PortRange]] = field(default_factory=dict)

    def key(self) -> tuple[tuple[Protocol | None, str], ...]:
        return tuple((p, ports(r)) for p, r in self.ports.items())


@dataclass(frozen=True, slots=True)
class Line:
    """What changes the same way, in one family: between `pods` and `peers`, who come in or are gone out to."""

    direction: Direction
    symbol: str
    traffic: tuple[tuple[Protocol | None, str], ...]
    pods: tuple[str, ...]
    peers: Group
    causes: Causes

    @property
    def key(self) -> object:
        """By this the same line of the other family is known: addresses have other orders there."""
        peers = self.peers.everyone, frozenset(self.peers.named), self.peers.others
        return self.direction, self.traffic, frozenset(self.pods), peers


class Lines:
    """Collects changes and puts together those that differ in one respect only."""

    def __init__(self, family: Family, names: Names) -> None:
        self._family = family
        self._names = names
        self._found: dict[
            tuple[Direction, str, tuple[tuple[Protocol | None, str], ...], tuple[int, ...]],
            tuple[list[Range], dict[str, None]],
        ] = {}

    def add(
        self,
        direction: Direction,
        change: tuple[str, Causes],
        traffic: Traffic,
        members: tuple[int, ...],
        peers: Sequence[Range],
    ) -> None:
        symbol, causes = change
        ranges, known = self._found.setdefault((direction, symbol, traffic.key(), members), ([], {}))
        ranges.extend(peers)
        known |= dict.fromkeys(causes)

    def lines(self) -> Iterator[Line]:
        merged: dict[
            tuple[Direction, str, tuple[tuple[Protocol | None, str], ...], tuple[Range, ...]],
            tuple[set[int], dict[str, None]],
        ] = {}
        for (direction, symbol, traffic, members), (ranges, causes) in self._found.items():
            key = (direction, symbol, traffic, tuple(sorted(ranges)))
            pods_, known = merged.setdefault(key, (set(), {}))
            pods_.update(members)
            known.update(causes)
        for (direction, symbol, traffic, peers), (pods_, known) in merged.items():
            mine = pods(self._family, pods_, self._names)
            theirs = people(self._family, peers, self._names)
            yield Line(direction, symbol, traffic, mine, theirs, tuple(known))


def _joined(traffic: Iterable[tuple[Protocol | None, str]]) -> Iterator[tuple[str, str]]:
    """Protocols with the same ports in one; all of them are "" (any)."""
    by_ports: dict[str, list[Protocol | None]] = {}
    for one, numbers in traffic:
        by_ports.setdefault("" if one is None else numbers, []).append(one)
    for numbers, protocols in by_ports.items():
        every = set(protocols) == set(PROTOCOLS)
        yield "" if every else ", ".join(protocol(p) for p in protocols), numbers


def together(found: Mapping[Family, Sequence[Line]], *, both: bool) -> Iterator[Effect]:
    """What is the same in both families once. Where names of pods hide that it is of one alone, that is said."""
    by_what: dict[object, dict[Family, Line]] = {}
    for family, lines in found.items():
        for line, times in _counted(lines):
            by_what.setdefault((line.key, line.symbol, times), {})[family] = line
    for of in by_what.values():
        family, line = next(iter(of.items()))
        causes = tuple(dict.fromkeys(c for other in of.values() for c in other.causes))
        for protocols, numbers in _joined(line.traffic):
            mine, theirs = many_pods(line.pods), line.peers.text(None if len(of) > 1 else family)
            inward = line.direction is Direction.INGRESS
            shown = bool(line.peers.others) or theirs.endswith(")")
            details = [
                *(["at another address"] if line.symbol == "~" else []),
                *([f"IPv{family} only"] if both and len(of) == 1 and not shown else []),
            ]
            yield Effect(
                line.symbol,
                theirs if inward else mine,
                mine if inward else theirs,
                protocols,
                numbers,
                "; ".join(details),
                causes,
                len(line.pods),
            )


def with_moves(lines: Sequence[Line]) -> list[Line]:
    """What the very same pods lose and gain is one line: they, or their peers, are at another address now."""
    signs: dict[object, set[str]] = {}
    for e in lines:
        if not e.peers.others:
            signs.setdefault(e.key, set()).add(e.symbol)
    moved = {key for key, both in signs.items() if len(both) > 1}
    return [
        replace(e, symbol="~") if e.key in moved else e
        for e in lines
        if e.key not in moved or e.symbol == "+"
    ]


def _counted(lines: Iterable[Line]) -> Iterator[tuple[Line, int]]:
    """Each line with how many of its words came before: a pod that moved has two addresses under one name."""
    seen: Counter[object] = Counter()
    for line in lines:
        yield line, seen[line.key, line.symbol]
        seen[line.key, line.symbol] += 1
