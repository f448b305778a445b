"""Cluster-wide policies: orders that the API leaves open, and what no rule reaches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations, groupby

from k8snetc.compiler.lint.finding import Finding
from k8snetc.compiler.lint.population import Population
from k8snetc.compiler.policy.model import NodePeer, Policy, Tier
from k8snetc.ir.types import Direction, Verdict


def check_tiers(policies: Iterable[Policy], population: Population) -> Iterator[Finding]:
    """All policies that are not of the NetworkPolicy tier."""
    tiers = sorted(
        (p for p in policies if p.tier is not Tier.NETWORK), key=lambda p: (p.tier.value, p.order, p.origin)
    )
    for policy in tiers:
        yield from _nodes(policy)
    for _, group in groupby(tiers, lambda p: (p.tier, p.order[0])):
        for first, second in combinations(list(group), 2):
            yield from _tie(first, second, population)


def _tie(first: Policy, second: Policy, population: Population) -> Iterator[Finding]:
    both = any(first.rules(d) and second.rules(d) for d in Direction)
    shared = population.inside.select(first.subject) & population.inside.select(second.subject)
    if both and shared:
        yield Finding(
            second.origin,
            ("spec", "priority"),
            "equal-priority",
            f"{first.origin.kind} {first.origin.name} has the same priority for some of the same pods; the API leaves "
            f"open which decides first (here: by name, {first.origin.name})",
            "give one of them another priority",
        )


def _nodes(policy: Policy) -> Iterator[Finding]:
    for i, rule in enumerate(policy.egress or ()):
        if rule.verdict is Verdict.DENY and any(isinstance(p, NodePeer) for p in rule.peers or ()):
            yield Finding(
                policy.origin,
                ("spec", "egress", i),
                "own-node",
                "traffic from a pod to its own node is never judged, so this denies only other nodes",
                "guard the node's own ports on the node",
            )
