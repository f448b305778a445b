"""Frontends and balancers as table rows.

Knows: who asks what of a frontend, and where a socket can be balanced without knowing its address. Must not know:
policy, or the C.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from math import gcd

from k8snetc.backends.base import Gap
from k8snetc.backends.ebpf import layouts
from k8snetc.backends.ebpf.model import Kind, Layout, Row, Table, Values
from k8snetc.backends.ebpf.numbers import numbers
from k8snetc.ir.addresses import Members, cover, prefix_of, range_of, subtract
from k8snetc.ir.types import (
    Action,
    Address,
    Balance,
    Balancer,
    Family,
    Frontend,
    Network,
    Prefix,
    Program,
    Protocol,
    Refusal,
    SourceIn,
    Who,
)

BALANCE, REJECT, DROP, PACKETS = range(4)  # `enum` ACTION_* of templates/types.c.j2
MAX_SLOTS = 65536  # of one balancer


def counted_as(frontend: Frontend) -> str:
    """The name under which a frontend is counted: its service port and the kind of its address."""
    return f"{frontend.service} {frontend.exposure.value}"


def gaps(program: Program) -> Iterator[Gap]:
    """What services ask for and this back end can't do."""
    for b in program.balancers:
        if b.scheduler:
            yield Gap(
                f"balancer {b.name}: scheduler {b.scheduler}", "remove it, or use --backend ipvs", b.origin
            )
        if b.forwarding:
            yield Gap(
                f"balancer {b.name}: forwarding by {b.forwarding}",
                "remove it, or use --backend ipvs",
                b.origin,
            )
        if sum(_slots(b)) > MAX_SLOTS:
            yield Gap(
                f"balancer {b.name}: its weights need over {MAX_SLOTS} slots", "use smaller weights", b.origin
            )


def _slots(balancer: Balancer) -> list[int]:
    """How many slots each endpoint has: its weight, reduced."""
    common = gcd(*(e.weight for e in balancer.endpoints))
    return [e.weight // common for e in balancer.endpoints]


class Services:
    """The tables of one family's services."""

    def __init__(self, program: Program, family: Family) -> None:
        self.program = program
        self.family = family
        self.node = program.node
        self.frontends = [f for f in program.frontends if f.family is family]
        self._balancers = {b.name: b for b in program.balancers if b.family is family}
        self._sets = {s.name: s for s in program.sets}
        self._counters = numbers(counted_as(f) for f in program.frontends)
        self._affinities = numbers(b.affinity.key for b in program.balancers if b.affinity is not None)
        self._places: dict[str, tuple[int, int]] = {}
        self._endpoints: list[Row] = []
        for balancer in self._balancers.values():
            first = len(self._endpoints)
            for endpoint, slots in zip(balancer.endpoints, _slots(balancer), strict=True):
                comment = str(endpoint.origin) if endpoint.origin else ""
                for _ in range(slots):
                    value = (int(endpoint.address), endpoint.port)
                    self._endpoints.append(Row((len(self._endpoints),), value, comment))
            self._places[balancer.name] = first, len(self._endpoints) - first
        names = sorted({f.sources for f in self.frontends if f.sources is not None})
        self._source_numbers = {name: i for i, name in enumerate(names, 1)}

    def tables(self) -> Iterator[Table]:
        """Frontends, endpoints, and what some frontend needs besides."""
        v = self.family.value
        if self.frontends:
            yield self._table(
                "frontends", layouts.frontend_key(self.family), layouts.FRONTEND, self._frontend_rows()
            )
            yield Table(
                f"endpoints{v}",
                Kind.ARRAY,
                layouts.INDEX,
                layouts.endpoint(self.family),
                # An array has at least one place, and is read back with it; no frontend leads to this one.
                tuple(self._endpoints) or (Row((0,), (0, 0)),),
            )
            yield self._table(
                "targets", layouts.frontend_key(self.family), layouts.U32, sorted(self._target_rows())
            )
        if self._source_numbers:
            yield self._lpm("sources", layouts.source_key(self.family), self._source_rows())
        members = sorted(self._member_rows())
        if members:
            yield self._table("members", layouts.member_key(self.family), layouts.U32, members)
        if (
            self.node.detects(self.family)
            and any(r.who is Who.CLUSTER for f in self.frontends for r in f.routes)
            and isinstance(self.node.detector, SourceIn)
        ):
            own = [n for n in self.node.detector.networks if n.version == self.family]
            prefixes = cover(self.family, (range_of(self.family, prefix_of(n)) for n in own))
            yield self._lpm("cluster", layouts.network(self.family), self._prefix_rows(prefixes, 1))
        refusals = sorted(self._refusal_rows())
        if refusals:
            yield self._lpm("refusals", layouts.network(self.family), refusals)

    def nodeports(self) -> list[int]:
        """The ports of the node's own that are frontends."""
        return [f.port for f in self.frontends if f.address is None]

    # --- rows ---

    def _table(self, name: str, key: Layout, value: Layout, rows: list[Row]) -> Table:
        return Table(f"{name}{self.family.value}", Kind.HASH, key, value, tuple(rows))

    def _lpm(self, name: str, key: Layout, rows: list[Row]) -> Table:
        return Table(f"{name}{self.family.value}", Kind.LPM, key, layouts.U32, tuple(rows))

    def _frontend_rows(self) -> list[Row]:
        rows = []
        for f in self.frontends:
            balancers = [
                self._balancers[r.action.balancer] for r in f.routes if isinstance(r.action, Balance)
            ]
            affinity = next((b.affinity for b in balancers if b.affinity is not None), None)
            value: Values = (
                self._counters[counted_as(f)],
                self._source_numbers[f.sources] if f.sources is not None else 0,
                self._affinities[affinity.key] if affinity else 0,
                affinity.timeout if affinity else 0,
            )
            for node in (False, True):
                for cluster in (False, True):
                    value += self._route(f, self._action(f, cluster, node))
            value += self._pod_socket(f) + self._node_socket(f)
            address = 0 if f.address is None else int(f.address)
            comment = f.service + (f" {f.origin}" if f.origin else "")
            rows.append(Row((address, f.port, f.protocol.number), value, comment))
        return sorted(rows)

    @staticmethod
    def _action(frontend: Frontend, cluster: bool, node: bool) -> Action:
        fits = {Who.ANY: True, Who.CLUSTER: cluster, Who.NODE: node}
        return next(r.action for r in frontend.routes if fits[r.who])

    def _route(self, frontend: Frontend, action: Action) -> Values:
        match action:
            case Balance(balancer, masquerade):
                # Affinity is remembered by frontend: a balancer without it would answer for one that has it.
                return (*self._places[balancer], BALANCE, int(masquerade))
            case Refusal.REJECT:
                return (0, 0, REJECT, 0)
            case Refusal.DROP:
                return (0, 0, DROP, 0)

    def _pod_socket(self, frontend: Frontend) -> Values:
        """A pod's socket has no address yet: balanced where no address can make a difference."""
        leave = (0, 0, PACKETS, 0)
        outside, cluster = (self._action(frontend, c, False) for c in (False, True))
        if frontend.sources is not None:
            return leave
        action = outside if outside == cluster else self._if_pods_detected(outside, cluster)
        match action:
            case Balance(balancer, False) if self._balancers[balancer].affinity is None:
                return self._route(frontend, action)
            case Refusal.REJECT:
                return self._route(frontend, action)
            case _:
                return leave

    def _if_pods_detected(self, outside: Action, cluster: Action) -> Action | None:
        """What holds for a pod of this node, if its networks tell that; None if they don't."""
        if not self.node.detects(self.family):
            return outside
        own = [n for n in self.node.pod_networks if n.version == self.family]
        if not isinstance(self.node.detector, SourceIn) or not own:
            return None
        known = [n for n in self.node.detector.networks if n.version == self.family]
        inside = [_within(a, known) for a in own]
        if all(inside):
            return cluster
        return None

    def _node_socket(self, frontend: Frontend) -> Values:
        """The node's socket has one of the node's addresses: balanced where it does not matter which."""
        leave = (0, 0, PACKETS, 0)
        plain, cluster = (self._action(frontend, c, True) for c in (False, True))
        if frontend.sources is not None and not self._node_in(frontend.sources):
            return leave
        if isinstance(plain, Balance) and isinstance(cluster, Balance):
            # Masquerading does not matter: the socket has the node's address anyway.
            return (
                self._route(frontend, Balance(plain.balancer))
                if plain.balancer == cluster.balancer
                else leave
            )
        if plain is Refusal.REJECT and cluster is Refusal.REJECT:
            return self._route(frontend, plain)
        return leave

    def _node_in(self, name: str) -> bool:
        members = Members(self.family, self._sets[name].prefixes)
        own: list[Address] = [a for a in self.node.addresses if a.version == self.family]
        return bool(own) and all(int(a) in members for a in own)

    def _source_rows(self) -> list[Row]:
        rows = []
        for name, n in self._source_numbers.items():
            one = self._sets[name]
            comment = str(one.origin) if one.origin else name
            rows += [Row((32 + p.length, n, p.value), (1,), comment) for p in one.prefixes]
        return sorted(rows)

    def _member_rows(self) -> Iterator[Row]:
        for name, balancer in self._balancers.items():
            if balancer.affinity is not None or balancer.protocol is Protocol.UDP:
                for e in balancer.endpoints:
                    yield Row((self._places[name][0], int(e.address), e.port), (1,), name)

    def _target_rows(self) -> Iterator[Row]:
        ends = {
            (int(e.address), e.port, b.protocol.number) for b in self._balancers.values() for e in b.endpoints
        }
        return (Row(end, (1,)) for end in ends)

    def _prefix_rows(self, prefixes: tuple[Prefix, ...], value: int) -> list[Row]:
        return [Row((p.length, p.value), (value,)) for p in prefixes]

    def _refusal_rows(self) -> Iterator[Row]:
        """Rejected addresses, and the dropped ones that are not also rejected: rejecting comes first."""

        def ranges(names: tuple[str, ...]) -> list[tuple[int, int]]:
            sets = [self._sets[n] for n in names if self._sets[n].family is self.family]
            return [range_of(self.family, p) for s in sets for p in s.prefixes]

        rejected = ranges(self.program.rejects)
        dropped = subtract(ranges(self.program.drops), rejected)
        yield from self._prefix_rows(cover(self.family, rejected), REJECT)
        yield from self._prefix_rows(cover(self.family, dropped), DROP)


def _within(network: Network, others: Sequence[Network]) -> bool:
    for other in others:
        if isinstance(network, IPv4Network) and isinstance(other, IPv4Network) and network.subnet_of(other):
            return True
        if isinstance(network, IPv6Network) and isinstance(other, IPv6Network) and network.subnet_of(other):
            return True
    return False
