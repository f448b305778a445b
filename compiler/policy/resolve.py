"""What every policy says of each pod of the node: selectors, blocks and names of ports become addresses and numbers.

Knows: how policies add up and in which order they decide. Must not know: manifests, or how facts are lowered.
Pods that the same policies select share one fact, and a rule is resolved once for all pods that it treats alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from k8snetc.compiler.facts import PodPolicyFact, RuleFact
from k8snetc.compiler.policy.cluster import Cluster
from k8snetc.compiler.policy.model import (
    BlockPeer,
    NodePeer,
    Peer,
    PodPeer,
    Policy,
    PolicyRule,
    PortMatch,
    Tier,
)
from k8snetc.compiler.selectors import Bits, positions_of
from k8snetc.ir.addresses import Range, address_of, cover, merge
from k8snetc.ir.types import Direction, Family, PortRange, Prefix, Protocol

# The numbers that the named ports of a rule have on the protected pod: only these tell pods apart on ingress.
Numbers = tuple[tuple[str, Protocol, int], ...]
ALL_PORTS = PortRange(0, 65535)


def resolve_policies(
    policies: Iterable[Policy], cluster: Cluster, families: Sequence[Family]
) -> tuple[PodPolicyFact, ...]:
    """One fact for each group of local pods that policy treats alike, by family and direction. Deterministic."""
    ordered = sorted(policies, key=lambda p: (p.tier.value, p.order, p.origin))
    resolver = _Resolver(cluster)
    facts: list[PodPolicyFact] = []
    for direction in Direction:
        for (chosen, numbers), pods in _groups(ordered, cluster, direction).items():
            for family in families:
                values = sorted(a for p in pods for a in cluster.pods[p].addresses.get(family, ()))
                if values:
                    facts.append(
                        resolver.fact([ordered[i] for i in chosen], direction, family, numbers, values)
                    )
    return tuple(sorted(facts, key=lambda f: (f.family, f.direction.value, f.pods)))


def _groups(
    policies: Sequence[Policy], cluster: Cluster, direction: Direction
) -> dict[tuple[tuple[int, ...], Numbers], list[int]]:
    """Local pods, by the policies that select them and what the named ports in these are on the pod."""
    selected: dict[int, list[int]] = {}
    for at, policy in enumerate(policies):
        if policy.rules(direction) is None:
            continue
        for pod in positions_of(cluster.select(policy.subject) & cluster.local):
            selected.setdefault(pod, []).append(at)
    groups: dict[tuple[tuple[int, ...], Numbers], list[int]] = {}
    for pod in sorted(selected):
        chosen = tuple(selected[pod])
        numbers: Numbers = ()
        if direction is Direction.INGRESS and any(policies[i].port_names for i in chosen):
            names = frozenset[str]().union(*(policies[i].port_names for i in chosen))
            numbers = _numbers(cluster.pods[pod].ports, names)
        groups.setdefault((chosen, numbers), []).append(pod)
    return groups


def _numbers(ports: Mapping[tuple[str, Protocol], int], names: frozenset[str]) -> Numbers:
    return tuple(sorted((name, protocol, n) for (name, protocol), n in ports.items() if name in names))


class _Resolver:
    """Resolves rules, each once: the memory is the point of this class."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        # By id: the rules live as long as this does, and hashing them would cost more than resolving them.
        self._rules: dict[tuple[int, Family, Direction, Numbers], tuple[RuleFact, ...]] = {}
        self._prefixes: dict[tuple[Family, Bits, tuple[Range, ...]], tuple[Prefix, ...]] = {}

    def fact(
        self,
        policies: Sequence[Policy],
        direction: Direction,
        family: Family,
        numbers: Numbers,
        pods: Sequence[int],
    ) -> PodPolicyFact:
        """What these policies, in their order, say of these pods."""
        tiers: dict[Tier, list[RuleFact]] = {tier: [] for tier in Tier}
        for policy in policies:
            for rule in policy.rules(direction) or ():
                tiers[policy.tier].extend(self._rule(rule, family, direction, numbers))
        isolating = [p.origin for p in policies if p.tier is Tier.NETWORK]
        return PodPolicyFact(
            pods=tuple(address_of(family, a) for a in pods),
            family=family,
            direction=direction,
            isolated=bool(isolating),
            rules=tuple(tiers[Tier.NETWORK]),
            admin=tuple(tiers[Tier.ADMIN]),
            baseline=tuple(tiers[Tier.BASELINE]),
            origins=tuple(isolating or (p.origin for p in policies)),
        )

    def _rule(
        self, rule: PolicyRule, family: Family, direction: Direction, numbers: Numbers
    ) -> tuple[RuleFact, ...]:
        key = (id(rule), family, direction, numbers if any(p.name for p in rule.ports or ()) else ())
        known = self._rules.get(key)
        if known is None:
            known = self._rules[key] = tuple(self._facts(rule, family, direction, numbers))
        return known

    def _facts(
        self, rule: PolicyRule, family: Family, direction: Direction, numbers: Numbers
    ) -> Iterator[RuleFact]:
        peers, key = None, ""
        if rule.peers is not None:
            peers, key = self._peers(rule.peers, family), _key(rule.peers)
            if not peers:
                return  # nobody in this family: the rule matches nothing, whatever it decides
        if rule.ports is None:
            yield RuleFact(rule.verdict, peers, None, (), rule.origin, key)
            return
        named = [p for p in rule.ports if p.name]
        plain = [p for p in rule.ports if not p.name]
        if direction is Direction.INGRESS:
            plain.extend(_protected_ports(named, numbers))
        for protocol, ports in _by_protocol(plain).items():
            yield RuleFact(rule.verdict, peers, protocol, ports, rule.origin, key)
        if direction is Direction.EGRESS:
            yield from self._named_egress(rule, named, family, key)

    def _named_egress(
        self, rule: PolicyRule, named: Sequence[PortMatch], family: Family, key: str
    ) -> Iterator[RuleFact]:
        """A name belongs to the destination: one rule for the pods of each number, among the peers that are pods."""
        if not named:
            return
        among = self.cluster.everybody if rule.peers is None else self._pods(rule.peers, family)
        for match in named:
            for protocol in (match.protocol,) if match.protocol else Protocol:
                for number, holders in self.cluster.port_holders(match.name, protocol).items():
                    prefixes = self._cover(family, among & holders, ())
                    if prefixes:
                        ports = (PortRange(number, number),)
                        where = f"{key or 'anyone'} with {match.name}/{protocol.value}={number}"
                        yield RuleFact(rule.verdict, prefixes, protocol, ports, rule.origin, where)

    def _pods(self, peers: Iterable[Peer], family: Family) -> Bits:
        """The pods among the peers, also those whose address lies in a block."""
        pods: Bits = 0
        for peer in peers:
            match peer:
                case PodPeer():
                    pods |= self.cluster.select(peer)
                case BlockPeer():
                    if peer.family is family:
                        pods |= self.cluster.within(family, peer.ranges)
                case NodePeer():
                    pass  # ports of nodes have no names
        return pods

    def _peers(self, peers: Iterable[Peer], family: Family) -> tuple[Prefix, ...]:
        pods: Bits = 0
        ranges: list[Range] = []
        for peer in peers:
            match peer:
                case PodPeer():
                    pods |= self.cluster.select(peer)
                case BlockPeer():
                    if peer.family is family:
                        ranges.extend(peer.ranges)
                case NodePeer():
                    ranges.extend((a, a) for a in self.cluster.node_addresses(peer, family))
        return self._cover(family, pods, tuple(merge(ranges)))

    def _cover(self, family: Family, pods: Bits, ranges: tuple[Range, ...]) -> tuple[Prefix, ...]:
        known = self._prefixes.get((family, pods, ranges))
        if known is None:
            single = ((a, a) for a in self.cluster.addresses(pods, family))
            known = self._prefixes[family, pods, ranges] = cover(family, [*single, *ranges])
        return known


def _key(peers: Iterable[Peer]) -> str:
    """The identity of a list of peers: stays when pods come and go, so that a set keeps its name."""
    return " or ".join(sorted(map(str, peers)))


def _protected_ports(named: Iterable[PortMatch], numbers: Numbers) -> Iterator[PortMatch]:
    for match in named:
        for name, protocol, number in numbers:
            if name == match.name and match.protocol in (None, protocol):
                yield PortMatch(protocol, PortRange(number, number))


def _by_protocol(matches: Iterable[PortMatch]) -> dict[Protocol, tuple[PortRange, ...]]:
    """Ports by protocol, as sorted, disjoint ranges; an empty tuple is every port."""
    wanted: dict[Protocol, list[Range]] = {}
    for match in matches:
        if match.protocol is not None:
            wanted.setdefault(match.protocol, []).append(match.ports or ALL_PORTS)
    out: dict[Protocol, tuple[PortRange, ...]] = {}
    for protocol in sorted(wanted):
        ports = tuple(PortRange(*r) for r in merge(wanted[protocol]))
        out[protocol] = () if ports == (ALL_PORTS,) else ports
    return out
