"""Policy facts to enforcements and the address sets they name.

Knows: names of sets and enforcements. Must not know: manifests or selectors; grouping is a pass's work.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from k8snetc.compiler.facts import Facts, PodPolicyFact, RuleFact
from k8snetc.ir.types import AddressSet, Enforcement, Family, Prefix, Rule


@dataclass(frozen=True, slots=True)
class PolicyParts:
    """What policy adds to a program."""

    sets: tuple[AddressSet, ...]
    enforcements: tuple[Enforcement, ...]


def lower_policies(facts: Facts) -> PolicyParts:
    """An enforcement for each pod, family and direction that a policy selects."""
    sets: dict[tuple[Family, tuple[Prefix, ...]], AddressSet] = {}
    enforcements = tuple(_enforcement(p, sets) for p in facts.policies if p.family in facts.node.families)
    return PolicyParts(tuple(sets.values()), enforcements)


def _enforcement(
    policy: PodPolicyFact, sets: dict[tuple[Family, tuple[Prefix, ...]], AddressSet]
) -> Enforcement:
    def rules(facts: Iterable[RuleFact]) -> tuple[Rule, ...]:
        return tuple(
            Rule(f.verdict, None if f.peers is None else peers(f.peers), f.protocol, f.ports, f.origin)
            for f in facts
        )

    def peers(prefixes: tuple[Prefix, ...]) -> str:
        name = f"peers{len(sets)}#{policy.family.value}"
        return sets.setdefault((policy.family, prefixes), AddressSet(name, policy.family, prefixes)).name

    return Enforcement(
        f"{policy.direction.value} {policy.pods[0]}",
        policy.family,
        policy.direction,
        policy.pods,
        policy.isolated,
        rules(policy.rules),
        rules(policy.admin),
        rules(policy.baseline),
        policy.origins,
    )
