"""Selectors of policies that select nothing, and names of ports that nobody has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from k8snetc.compiler.lint.finding import Finding, Place
from k8snetc.compiler.lint.population import Population
from k8snetc.compiler.policy.model import BlockPeer, NodePeer, PodPeer, Policy, PolicyRule
from k8snetc.compiler.selectors import Bits
from k8snetc.ir.types import Direction, Protocol

SIDES = ((Direction.INGRESS, "ingress", "from"), (Direction.EGRESS, "egress", "to"))


def check_selections(policies: Iterable[Policy], population: Population) -> Iterator[Finding]:
    """Subjects, peers and port names of all policies."""
    for policy in policies:
        if population.known:
            yield from _subject(policy, population)
        for direction, side, peers in SIDES:
            for i, rule in enumerate(policy.rules(direction) or ()):
                place: Place = ("spec", side, i)
                yield from _peers(policy, rule, (*place, peers), population)
                if population.known:
                    yield from _names(policy, rule, place, direction, population)


def _subject(policy: Policy, population: Population) -> Iterator[Finding]:
    subject = policy.subject
    if population.inside.select(subject):
        return
    place: Place = ("spec", "podSelector") if subject.namespace is not None else ("spec", "subject")
    if population.hosts.select(subject):
        yield Finding(
            policy.origin,
            place,
            "host-network-only",
            "the policy selects only host-network pods, which count as their node: it does nothing",
            "take the pods off the host network, or guard the node by other means",
        )
    elif subject.namespace is not None and not population.all.select(PodPeer(namespace=subject.namespace)):
        yield Finding(
            policy.origin,
            ("metadata",),
            "empty-namespace",
            f"there are no pods in namespace {subject.namespace!r}: the policy does nothing",
            "correct metadata.namespace, or add the manifests of the pods",
        )
    else:
        yield Finding(
            policy.origin, place, "selects-nothing", f"{_words(subject)}: the policy does nothing", _FIX
        )


_FIX = "compare the selector with the labels in the manifests"


def _words(peer: PodPeer) -> str:
    if peer.namespace is not None:
        return f"{{{peer.pods}}} selects no pod in namespace {peer.namespace!r}"
    if not peer.pods.requirements:
        return f"namespaces {{{peer.namespaces}}}: no such namespace with pods"
    where = f" in namespaces {{{peer.namespaces}}}" if peer.namespaces.requirements else ""
    return f"{{{peer.pods}}} selects no pod{where}"


def _peers(policy: Policy, rule: PolicyRule, place: Place, population: Population) -> Iterator[Finding]:
    for i, peer in enumerate(rule.peers or ()):
        # The networks of one peer are several here, so behind them the API's index is not known.
        at = (*place, i) if not any(isinstance(p, BlockPeer) for p in (rule.peers or ())[:i]) else place
        match peer:
            case PodPeer() if population.known and not population.inside.select(peer):
                extra = (
                    " but host-network pods, which no selector matches"
                    if population.hosts.select(peer)
                    else ""
                )
                yield Finding(policy.origin, at, "selects-nothing", f"{_words(peer)}: no peer{extra}", _FIX)
            case NodePeer() if population.has_nodes and not population.inside.has_nodes(peer):
                what = f"{{{peer.nodes}}} selects no node: the peer matches nobody"
                yield Finding(policy.origin, at, "selects-nothing", what, _FIX)
            case _:
                pass


def _names(
    policy: Policy, rule: PolicyRule, place: Place, direction: Direction, population: Population
) -> Iterator[Finding]:
    holders = _destinations(policy, rule, direction, population)
    if not holders:
        return
    for i, port in enumerate(rule.ports or ()):
        protocols = (port.protocol,) if port.protocol is not None else tuple(Protocol)
        if port.name and not any(
            holders & pods
            for p in protocols
            for pods in population.inside.port_holders(port.name, p).values()
        ):
            word = f"{port.protocol.name} port" if port.protocol is not None else "port"
            who = (
                "pod that the policy selects"
                if direction is Direction.INGRESS
                else "pod that the rule is about"
            )
            yield Finding(
                policy.origin,
                (*place, "protocols" if policy.origin.kind == "ClusterNetworkPolicy" else "ports", i),
                "unknown-port-name",
                f"no {who} has a {word} named {port.name!r}, so this matches nothing",
                "correct the name or the protocol, or give the port's number",
            )


def _destinations(policy: Policy, rule: PolicyRule, direction: Direction, population: Population) -> Bits:
    """The pods whose ports are named; nobody where addresses would have to be known."""
    if direction is Direction.INGRESS:
        return population.inside.select(policy.subject)
    if rule.peers is None:
        return population.inside.everybody
    pods: Bits = 0
    for peer in rule.peers:
        if not isinstance(peer, PodPeer):
            return 0
        pods |= population.inside.select(peer)
    return pods
