"""Policy facts to enforcements and the address sets they name.

Knows: names of sets and enforcements, and that pods with the same facts share an enforcement. Must not know:
manifests or selectors. Names come from the identity of what they name (which selectors, which rules), never from
its present members, so that a pod that comes or goes changes elements and not names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from k8snetc.compiler.facts import Facts, PodPolicyFact, RuleFact
from k8snetc.ir.addresses import prefix_text
from k8snetc.ir.types import Address, AddressSet, Direction, Enforcement, Family, Origin, Prefix, Rule

Content = tuple[Family, Direction, bool, tuple[Rule, ...], tuple[Rule, ...], tuple[Rule, ...]]


@dataclass(frozen=True, slots=True)
class PolicyParts:
    """What policy adds to a program."""

    sets: tuple[AddressSet, ...]
    enforcements: tuple[Enforcement, ...]


def lower_policies(facts: Facts) -> PolicyParts:
    """An enforcement for each distinct set of rules, over all pods that have it."""
    sets = _Sets()
    groups: dict[Content, tuple[list[Address], list[Origin]]] = {}
    for policy in facts.policies:
        if policy.family in facts.node.families:
            pods, origins = groups.setdefault(_content(policy, sets), ([], []))
            pods.extend(policy.pods)
            origins.extend(policy.origins)
    names = _Names()
    enforcements = [
        Enforcement(
            name=names.name(f"{content[1].value}-v{content[0].value}", repr(content)),
            family=content[0],
            direction=content[1],
            pods=tuple(sorted(pods, key=int)),
            isolated=content[2],
            rules=content[3],
            admin=content[4],
            baseline=content[5],
            origins=tuple(dict.fromkeys(sorted(origins))),
        )
        for content, (pods, origins) in groups.items()
    ]
    enforcements.sort(key=lambda e: (e.family, e.direction.value, e.pods[0]))
    return PolicyParts(sets.all(), tuple(enforcements))


def _content(policy: PodPolicyFact, sets: _Sets) -> Content:
    def rules(facts: Iterable[RuleFact]) -> tuple[Rule, ...]:
        return tuple(
            dict.fromkeys(
                Rule(f.verdict, sets.name(policy.family, f), f.protocol, f.ports, f.origin) for f in facts
            )
        )

    return (
        policy.family,
        policy.direction,
        policy.isolated,
        # Rules that only allow have no order: broad ones first, because they match most.
        tuple(sorted(rules(policy.rules), key=_breadth)),
        rules(policy.admin),
        rules(policy.baseline),
    )


def _breadth(rule: Rule) -> tuple[str, str, tuple[object, ...]]:
    return rule.peers or "", rule.protocol or "", rule.ports


class _Names:
    """Short names from long identities: a hash, longer where two identities would share it."""

    def __init__(self) -> None:
        self._identity: dict[str, str] = {}

    def name(self, kind: str, identity: str) -> str:
        digest = blake2b(identity.encode(), digest_size=16).hexdigest()
        for length in range(10, len(digest) + 1):
            name = f"{kind}-{digest[:length]}"
            if self._identity.setdefault(name, identity) == identity:
                return name
        raise AssertionError(f"two identities share a 128-bit hash: {identity}")


class _Sets:
    """The address sets of all rules, one for each identity and family."""

    def __init__(self) -> None:
        self._names = _Names()
        self._sets: dict[str, AddressSet] = {}
        self._named: dict[tuple[Family, str], str] = {}

    def name(self, family: Family, fact: RuleFact) -> str | None:
        """The set of a rule's peers, None for everyone."""
        if fact.peers is None:
            return None
        key = fact.peers_key or _text(family, fact.peers)
        name = self._named.get((family, key))
        if name is None:
            name = self._named[family, key] = self._names.name(f"peers-v{family.value}", key)
            self._sets[name] = AddressSet(name, family, fact.peers, fact.origin)
        elif (known := self._sets[name].prefixes) is not fact.peers and known != fact.peers:
            raise AssertionError(f"peers of one identity are resolved differently: {key}")
        return name

    def all(self) -> tuple[AddressSet, ...]:
        """All sets, by name."""
        return tuple(self._sets[n] for n in sorted(self._sets))


def _text(family: Family, prefixes: Iterable[Prefix]) -> str:
    return ",".join(prefix_text(family, p) for p in prefixes)
