"""Enforcements as table rows: identities of peers, and the ports that each pod's rules open to each identity.

Addresses that lie in the same sets are treated alike by every rule: they share an identity. A profile (a
number that stands for the enforcement) and an identity lead to a set of ports, so that a packet costs the same
few look-ups however many policies there are. Must not know: services, or the C.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from k8snetc.backends.ebpf import layouts
from k8snetc.backends.ebpf.model import Kind, Row, Table
from k8snetc.backends.ebpf.numbers import numbers
from k8snetc.ir.addresses import cover, range_of
from k8snetc.ir.types import Direction, Enforcement, Family, Program, Protocol, Rule, Verdict

Ports = tuple[tuple[int, tuple[tuple[int, int], ...]], ...]  # protocol -> the ranges that are allowed

NONE, ALL = 0, 1  # `enum` PORTS_* of templates/program.c.j2
EVERY_OTHER = 0xFFFFFFFF  # the identity of addresses that no row names
OTHER_PROTOCOLS = 0
LAST_PORT = 65535
_PROTOCOLS: tuple[Protocol | None, ...] = (Protocol.TCP, Protocol.UDP, Protocol.SCTP, None)


class PortSets:
    """The distinct sets of ports of all profiles, both families; numbers from 2 on, in order of first use."""

    def __init__(self) -> None:
        self._numbers: dict[Ports, int] = {}

    def number(self, ports: Ports) -> int:
        """The number that stands for these ports."""
        if not ports:
            return NONE
        if ports == _ALL_PORTS:
            return ALL
        return self._numbers.setdefault(ports, len(self._numbers) + 2)

    def table(self) -> Table | None:
        """The table of ports, or None if there is nothing to look up."""
        if not self._numbers:
            return None
        rows = [
            Row((48 + length, number, protocol, port), (1,))
            for ports, number in self._numbers.items()
            for protocol, ranges in ports
            for first, last in ranges
            for port, length in _prefixes(first, last)
        ]
        return Table("port_sets", Kind.LPM, layouts.PORT_KEY, layouts.U32, tuple(sorted(rows)))


_ALL_PORTS: Ports = tuple(sorted((p.number if p else OTHER_PROTOCOLS, ((0, LAST_PORT),)) for p in _PROTOCOLS))


def tables(program: Program, family: Family, port_sets: PortSets) -> Iterator[Table]:
    """The policy tables of one family."""
    profiles = numbers(e.name for e in program.enforcements)
    enforcements = [e for e in program.enforcements if e.family is family]
    if not enforcements:
        return
    v = family.value
    yield Table(
        f"pods{v}", Kind.HASH, layouts.address(family), layouts.PROFILE, tuple(_pods(enforcements, profiles))
    )

    names = sorted({r.peers for e in enforcements for r in _rules(e) if r.peers is not None})
    bits = {name: 1 << i for i, name in enumerate(names)}
    sets = {s.name: s for s in program.sets}
    identities: dict[int, int] = {}
    by_identity: dict[int, list[tuple[int, int]]] = {}
    for first, last, mask in _classes(
        (range_of(family, p), bits[name]) for name in names for p in sets[name].prefixes
    ):
        by_identity.setdefault(identities.setdefault(mask, len(identities) + 1), []).append((first, last))
    rows = sorted(
        Row((p.length, p.value), (identity,))
        for identity, ranges in by_identity.items()
        for p in cover(family, ranges)
    )
    yield Table(f"identities{v}", Kind.LPM, layouts.network(family), layouts.U32, tuple(rows))

    verdicts = [
        Row((profiles[e.name], identity), (ports,), e.name)
        for e in enforcements
        for identity, ports in _verdicts(e, bits, identities, port_sets)
    ]
    yield Table(f"verdicts{v}", Kind.HASH, layouts.VERDICT_KEY, layouts.U32, tuple(sorted(verdicts)))


def _rules(enforcement: Enforcement) -> Iterator[Rule]:
    yield from enforcement.admin
    yield from enforcement.rules
    yield from enforcement.baseline


def _pods(enforcements: Sequence[Enforcement], profiles: dict[str, int]) -> list[Row]:
    ingress: dict[int, int] = {}
    egress: dict[int, int] = {}
    for e in enforcements:
        side = ingress if e.direction is Direction.INGRESS else egress
        for pod in e.pods:
            side[int(pod)] = profiles[e.name]
    return [Row((pod,), (ingress.get(pod, 0), egress.get(pod, 0))) for pod in sorted({*ingress, *egress})]


def _classes(prefixes: Iterable[tuple[tuple[int, int], int]]) -> Iterator[tuple[int, int, int]]:
    """Ranges of addresses that lie in the same sets: (first, last, the sets' bits). None without a set."""
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    for (first, last), bit in prefixes:
        starts[first] = starts.get(first, 0) | bit
        ends[last + 1] = ends.get(last + 1, 0) | bit
    mask = at = 0
    for edge in sorted({*starts, *ends}):
        if mask:
            yield at, edge - 1, mask
        # A set's prefixes are disjoint, but one may end where its next one starts.
        mask = (mask & ~ends.get(edge, 0)) | starts.get(edge, 0)
        at = edge


def _verdicts(
    enforcement: Enforcement, bits: dict[str, int], identities: dict[int, int], port_sets: PortSets
) -> Iterator[tuple[int, int]]:
    """(identity, set of ports) wherever that differs from what every other peer may."""
    used = 0
    for rule in _rules(enforcement):
        used |= bits[rule.peers] if rule.peers is not None else 0
    known: dict[int, int] = {}

    def ports(mask: int) -> int:
        if mask not in known:
            known[mask] = port_sets.number(_ports(enforcement, mask, bits))
        return known[mask]

    default = ports(0)
    yield EVERY_OTHER, default
    for mask, identity in identities.items():
        if mask & used and ports(mask & used) != default:
            yield identity, ports(mask & used)


def _ports(enforcement: Enforcement, mask: int, bits: dict[str, int]) -> Ports:
    """The ports that are open to a peer in the sets of `mask`."""

    def here(rules: tuple[Rule, ...]) -> list[Rule]:
        return [r for r in rules if r.peers is None or bits[r.peers] & mask]

    admin, rules, baseline = (here(r) for r in (enforcement.admin, enforcement.rules, enforcement.baseline))
    out: list[tuple[int, tuple[tuple[int, int], ...]]] = []
    for protocol in _PROTOCOLS:
        tiers = [[r for r in tier if r.protocol in (None, protocol)] for tier in (admin, rules, baseline)]
        edges = {0}
        if protocol is not None:
            for tier in tiers:
                for rule in tier:
                    for r in rule.ports:
                        edges.update((r.first, r.last + 1))
        starts = sorted(e for e in edges if e <= LAST_PORT)
        ranges: list[tuple[int, int]] = []
        for start, end in zip(starts, [*starts[1:], LAST_PORT + 1], strict=True):
            if _allowed(enforcement.isolated, tiers, start):
                if ranges and ranges[-1][1] == start - 1:
                    ranges[-1] = (ranges[-1][0], end - 1)
                else:
                    ranges.append((start, end - 1))
        if ranges:
            out.append((protocol.number if protocol else OTHER_PROTOCOLS, tuple(ranges)))
    return tuple(sorted(out))


def _allowed(isolated: bool, tiers: list[list[Rule]], port: int) -> bool:
    admin, rules, baseline = (
        next((r for r in tier if not r.ports or any(p.first <= port <= p.last for p in r.ports)), None)
        for tier in tiers
    )
    if admin is not None and admin.verdict is not Verdict.PASS:
        return admin.verdict is Verdict.ALLOW
    if isolated:
        return rules is not None
    return baseline is None or baseline.verdict is not Verdict.DENY


def _prefixes(first: int, last: int) -> Iterator[tuple[int, int]]:
    """The fewest prefixes of 16 bits that hold exactly these ports: (first port, length)."""
    while first <= last:
        size = min((first & -first).bit_length() - 1 if first else 16, (last - first + 1).bit_length() - 1)
        yield first, 16 - size
        first += 1 << size
