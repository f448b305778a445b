"""NetworkPolicy: verdict maps from a pod's address to its enforcement, and sets of peers.

Knows: how an enforcement becomes a chain. Must not know: services.

The rules of the forward hook lead here with what belongs to no connection that was judged before. Whatever returns
may pass; what may not is dropped. Nothing is accepted, so other tables still have their say.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from k8snetc.backends.nftables import words
from k8snetc.backends.nftables.build import Builder
from k8snetc.backends.nftables.model import Rule
from k8snetc.ir.types import (
    AddressSet,
    Direction,
    Enforcement,
    Family,
    Program,
    Verdict,
)
from k8snetc.ir.types import Rule as PolicyRule

_PEER = {Direction.INGRESS: words.SADDR, Direction.EGRESS: words.DADDR}
_POD = {Direction.INGRESS: words.DADDR, Direction.EGRESS: words.SADDR}
_NEIGHBOURS = "nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert"

_PICKED_UP = "tcp flags != syn / fin,syn,rst,ack ct state new"


def lower_policy(program: Program, builder: Builder) -> list[str]:
    """Add the chains and sets of one family's policy; the rules that lead there, none without policy."""
    return _Policy(program, builder).rules()


class _Policy:
    def __init__(self, program: Program, builder: Builder) -> None:
        self._builder = builder
        self._family = builder.family
        self._sets: dict[str, AddressSet] = {s.name: s for s in program.sets}
        self._enforcements = [e for e in program.enforcements if e.family is self._family and _matters(e)]

    def rules(self) -> list[str]:
        if not self._enforcements:
            return []
        saddr, daddr = words.SADDR[self._family], words.DADDR[self._family]
        rules = []
        if self._family is Family.IPV6:
            # Pods on one bridge find each other's hardware address through here (with br_netfilter). A hop limit of 255
            # has passed no router; what has is a packet like any other, in which a pod could say all it wants.
            rules.append(f"ip6 hoplimit 255 icmpv6 type {{ {_NEIGHBOURS} }} accept")
        # A pod reaches itself through its service, translated; nobody else's packets have one address twice.
        rules.append(f"ct status dnat {saddr} . {daddr} @themselves accept")
        rules.append(f"{saddr} . {daddr} @themselves drop")
        kind = words.ADDRESS_TYPE[self._family]
        themselves = self._builder.named("themselves", f"type {kind} . {kind}")
        pods = sorted({pod for e in self._enforcements for pod in e.pods}, key=int)
        for pod in pods:
            themselves.add(f"{pod} . {pod}")
        protected = self._builder.named("protected", f"type {kind}")
        for pod in pods:
            protected.add(str(pod))
        # From the middle of a connection: nothing tells who began it, and the direction in which it seems to begin now
        # may be the one that is open.
        for side in (saddr, daddr):
            rules.append(f"{_PICKED_UP} {side} @protected drop")
        rules.extend(self._dispatch(Direction.EGRESS))
        rules.extend(self._dispatch(Direction.INGRESS))
        return rules

    def _dispatch(self, direction: Direction) -> Iterator[str]:
        mine = [e for e in self._enforcements if e.direction is direction]
        if not mine:
            return
        kind = words.ADDRESS_TYPE[self._family]
        pods = self._builder.named(direction.value, f"type {kind} : verdict", is_map=True)
        found = {}
        for e in mine:
            verdict = f"jump {self._enforcement(e)}"
            note = self._builder.note("", *e.origins)
            found.update(dict.fromkeys(e.pods, (verdict, note)))
        for pod in sorted(found, key=int):
            pods.add(str(pod), *found[pod])
        yield f"{_POD[direction][self._family]} vmap @{direction.value}"

    def _enforcement(self, enforcement: Enforcement) -> str:
        """The chain that returns what the enforcement lets pass and drops the rest."""
        after: list[Rule] = []
        if enforcement.isolated:
            for rule in enforcement.rules:
                after.extend(self._rule(enforcement.direction, rule, "return"))
            after.append(Rule("drop", self._builder.note("", *enforcement.origins)))
        else:
            for rule in enforcement.baseline:
                after.extend(self._rule(enforcement.direction, rule, _END[rule.verdict]))
        first: list[Rule] = []
        passed = any(r.verdict is Verdict.PASS for r in enforcement.admin)
        onward = f"goto {self._put(enforcement.direction, after)}" if passed else ""
        for rule in enforcement.admin:
            end = onward if rule.verdict is Verdict.PASS else _END[rule.verdict]
            first.extend(self._rule(enforcement.direction, rule, end))
        return self._put(enforcement.direction, [*first, Rule(onward)] if passed else [*first, *after])

    def _put(self, direction: Direction, rules: list[Rule]) -> str:
        """A chain named by its content: pods with the same rules share it, and a new program brings new ones."""
        name = words.hashed(direction.value, *(r.text for r in rules))
        if not self._builder.has_chain(name):
            self._builder.chain(name, rules)
        return name

    def _rule(self, direction: Direction, rule: PolicyRule, end: str) -> Iterator[Rule]:
        peers = ""
        if rule.peers is not None:
            member = self._member(direction, self._sets[rule.peers])
            if member is None:
                return
            peers = member
        match = f"{peers}{words.ports(rule.protocol, rule.ports)}".strip()
        yield Rule(f"{match} {end}".strip(), self._builder.note("", rule.origin))

    def _member(self, direction: Direction, peers: AddressSet) -> str | None:
        """A match on the peers; "" if they are everybody, None if nobody."""
        side = _PEER[direction][self._family]
        if not peers.prefixes:
            return None
        if len(peers.prefixes) > 1:
            name = words.hashed("peers", peers.name)
            return f"{side} @{self._builder.prefixes(name, peers.prefixes, peers.origin)}"
        if peers.prefixes[0].length == 0:
            return ""
        return f"{side} {words.prefix_text(self._family, peers.prefixes[0])}"


_END = {Verdict.ALLOW: "return", Verdict.DENY: "drop", Verdict.PASS: "return"}


def _matters(enforcement: Enforcement) -> bool:
    """Whether it can deny anything."""
    return enforcement.isolated or any(
        r.verdict is Verdict.DENY for r in chain(enforcement.admin, enforcement.baseline)
    )
