"""Rules that can't matter: what they match, others match already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from k8snetc.compiler.lint.finding import Finding
from k8snetc.compiler.lint.population import Population
from k8snetc.compiler.lint.selections import SIDES
from k8snetc.compiler.policy.model import BlockPeer, Peer, PodPeer, Policy, PolicyRule, PortMatch, Tier
from k8snetc.compiler.selectors import Bits
from k8snetc.ir.addresses import merge, subtract
from k8snetc.ir.types import Family


def check_rules(policies: Iterable[Policy], population: Population) -> Iterator[Finding]:
    """The rules of each policy against those of the same policy."""
    for policy in policies:
        for silenced in policy.silenced:
            side = silenced.value
            yield Finding(
                policy.origin,
                ("spec", side),
                "unreachable-rule",
                f"policyTypes leaves {side.capitalize()} out, so the rules under {side} do nothing",
                f"add {side.capitalize()} to policyTypes, or delete the rules",
            )
        for direction, side, _ in SIDES:
            rules = policy.rules(direction) or ()
            for i in range(len(rules)):
                other = _covering(policy, rules, i, population)
                if other is None:
                    continue
                why = (
                    f"rule {side}[{other}] allows all that this rule allows"
                    if policy.tier is Tier.NETWORK
                    else f"rule {side}[{other}] comes first and matches all that this rule matches"
                )
                fix = "delete it, or correct what it matches"
                if policy.tier is not Tier.NETWORK:
                    fix = "move it up, delete it, or correct what it matches"
                yield Finding(policy.origin, ("spec", side, i), "unreachable-rule", why, fix)


def _covering(policy: Policy, rules: Sequence[PolicyRule], at: int, population: Population) -> int | None:
    """Another rule that covers rule `at`: an earlier one, or, where order means nothing, also a broader later one."""
    for other, rule in enumerate(rules):
        if other == at or (other > at and policy.tier is not Tier.NETWORK):
            continue
        if _covers(rule, rules[at], population) and (other < at or not _covers(rules[at], rule, population)):
            return other
    return None


def _covers(wide: PolicyRule, narrow: PolicyRule, population: Population) -> bool:
    return _covers_ports(wide.ports, narrow.ports) and _covers_peers(wide.peers, narrow.peers, population)


def _covers_ports(wide: Sequence[PortMatch] | None, narrow: Sequence[PortMatch] | None) -> bool:
    if wide is None:
        return True
    return narrow is not None and all(_has_port(wide, port) for port in narrow)


def _has_port(wide: Sequence[PortMatch], port: PortMatch) -> bool:
    if any(w.protocol is port.protocol and not w.name and w.ports is None for w in wide):
        return True
    if port.name or port.ports is None:
        return port in wide
    ranges = [w.ports for w in wide if w.protocol is port.protocol and w.ports is not None]
    return not subtract([port.ports], ranges)


def _covers_peers(wide: Sequence[Peer] | None, narrow: Sequence[Peer] | None, population: Population) -> bool:
    if wide is None:
        return True
    if narrow is None:
        return False
    outside = [p for p in narrow if not isinstance(p, PodPeer | BlockPeer) and p not in wide]
    if outside or _pods(narrow, population) & ~_pods(wide, population):
        return False
    if not _pods(narrow, population) and any(isinstance(p, PodPeer) and p not in wide for p in narrow):
        return False  # selects nothing yet: there is another warning for that
    return all(not subtract(_ranges(narrow, f), _ranges(wide, f)) for f in Family)


def _pods(peers: Iterable[Peer], population: Population) -> Bits:
    pods: Bits = 0
    for peer in peers:
        if isinstance(peer, PodPeer):
            pods |= population.inside.select(peer)
    return pods


def _ranges(peers: Iterable[Peer], family: Family) -> list[tuple[int, int]]:
    return merge(r for p in peers if isinstance(p, BlockPeer) and p.family is family for r in p.ranges)
