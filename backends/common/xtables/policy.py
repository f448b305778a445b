"""NetworkPolicy as chains of the filter table and IP sets.

Knows: how an enforcement becomes rules. Must not know: services, and where in the built-in chains it is hung.

The caller first drops forwarded packets of connections that policy has cut (`CUT`), and then jumps to the root chain
with those that are not part of a connection that was judged before. Whatever returns from it may pass; what
may not is dropped in it. Nothing is accepted here, so that other rules still have their say.

All names are derived from content: while one program replaces another, both can be there and
complete, and the switch is the one jump to the root.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

from k8snetc.backends.common import conntrack
from k8snetc.backends.common.xtables import text, trie
from k8snetc.backends.common.xtables.chains import Chains, Draft
from k8snetc.backends.common.xtables.sets import Sets, membership
from k8snetc.ir.addresses import cover_prefixes, prefix_of
from k8snetc.ir.types import (
    AddressSet,
    Direction,
    Enforcement,
    Family,
    Origin,
    Prefix,
    Program,
    Rule,
    Verdict,
)

CUT = f" -m connmark --mark {conntrack.CUT} -j DROP"
"""The rule that has to be first of all where policy is enforced: it drops what a new policy has cut, both ways."""

_SIDE = {Direction.INGRESS: "src", Direction.EGRESS: "dst"}
_POD = {Direction.INGRESS: "-d", Direction.EGRESS: "-s"}
_LETTER = {Direction.INGRESS: "I", Direction.EGRESS: "O"}


KNOWN = " -m conntrack --ctstate RELATED,ESTABLISHED"
"""Matches what belongs to a connection, or to one that a helper of the connection table expects because of it."""

_ESTABLISHED = " -m conntrack --ctstate ESTABLISHED"
_ERRORS = {
    Family.IPV4: " -p icmp -m conntrack --ctstate RELATED",
    Family.IPV6: " -p ipv6-icmp -m conntrack --ctstate RELATED",
}
# iptables-save's way to write `! --syn`.
_PICKED_UP = " -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW"


def judged_before(family: Family) -> tuple[str, str]:
    """Matches for what needs no judgement where there is policy: packets of connections that were judged, and ICMP
    errors about them. A connection that a helper expects (FTP's data) is one that policy has to allow.
    """
    return _ESTABLISHED, _ERRORS[family]


def lower_policy(
    program: Program,
    family: Family,
    chains: Chains,
    sets: Sets,
    *,
    comments: bool,
    translated: str = " -m conntrack --ctstate DNAT",
) -> str | None:
    """Add the chains and sets of the program's policy in one family; the root chain's name, None without policy.

    `translated` matches what a service has given another destination.
    """
    return _Policy(program, family, chains, sets, comments).root(translated)


class _Policy:
    def __init__(self, program: Program, family: Family, chains: Chains, sets: Sets, comments: bool) -> None:
        self._family = family
        self._chains = chains
        self._sets = sets
        self._comments = comments
        self._peers: Mapping[str, AddressSet] = {s.name: s for s in program.sets}
        self._enforcements = [e for e in program.enforcements if e.family is family and _matters(e)]

    def root(self, translated: str) -> str | None:
        if not self._enforcements:
            return None
        root = Draft()
        if self._family is Family.IPV6:
            # Pods on one bridge find each other's hardware address through here (with br_netfilter). A hop limit of 255
            # has passed no router; what has is a packet like any other, in which a pod could say all it wants.
            for kind in (133, 134, 135, 136):
                root.add(f" -p ipv6-icmp -m icmp6 --icmpv6-type {kind} -m hl --hl-eq 255 -j RETURN")
        # A pod reaches itself through its service, translated; nobody else's packets have one address twice.
        same = text.SAME_ADDRESS[self._family]
        root.add(f"{same}{translated} -j RETURN")
        root.add(f"{same} -j DROP")
        root.add(f"{_PICKED_UP} -j {self._picked_up()}")
        for direction in (Direction.EGRESS, Direction.INGRESS):
            self._dispatch(root, direction)
        return self._chains.put_content("P", root)

    def _picked_up(self) -> str:
        """The chain that drops what comes from the middle of a connection with a pod that has policies.

        Nothing tells who began it, and the direction in which it seems to begin now may be the one that is open.
        """
        draft = Draft()
        pods = cover_prefixes(self._family, (prefix_of(p) for e in self._enforcements for p in e.pods))
        for side in ("src", "dst"):
            where, match = membership(self._sets, self._family, pods, side) or ("", "")
            draft.add(f"{where}{match} -j DROP")
        return self._chains.put_content("M", draft)

    def _dispatch(self, root: Draft, direction: Direction) -> None:
        entries = [
            trie.Entry(p.value, p.length, self._enforcement(e))
            for e in self._enforcements
            if e.direction is direction
            for p in cover_prefixes(self._family, (prefix_of(pod) for pod in e.pods))
        ]
        if entries:
            tree = trie.build(sorted(entries), self._family.bits)
            root.add(f" -j {self._tree(tree, direction)}")

    def _tree(self, node: trie.Node[str], direction: Direction) -> str:
        draft = Draft()
        match node:
            case trie.Leaf(entries=entries):
                for e in entries:
                    where = text.cidr(self._family, Prefix(e.value, e.length))
                    draft.add(f" {_POD[direction]} {where} -g {e.item}")
            case trie.Branch(children=children):
                for child in children:
                    where = text.cidr(self._family, Prefix(child.value, child.length))
                    draft.add(f" {_POD[direction]} {where} -g {self._tree(child, direction)}")
        return self._chains.put_content(f"{_LETTER[direction]}D", draft)

    def _enforcement(self, enforcement: Enforcement) -> str:
        """The chain that returns what the enforcement lets pass and drops the rest."""
        side = _SIDE[enforcement.direction]
        kind = f"{_LETTER[enforcement.direction]}E"
        after = Draft()
        if enforcement.isolated:
            for rule in enforcement.rules:
                self._rule(after, rule, side, " -j RETURN")
            after.add(" -j DROP", self._comment(enforcement.origins))
        else:
            for rule in enforcement.baseline:
                self._rule(after, rule, side, " -j DROP" if rule.verdict is Verdict.DENY else " -j RETURN")
        if not enforcement.admin:
            return self._chains.put_content(kind, after)
        first = Draft()
        passes = any(r.verdict is Verdict.PASS for r in enforcement.admin)
        onward = f" -g {self._chains.put_content(kind, after)}" if passes else ""
        ends = {Verdict.ALLOW: " -j RETURN", Verdict.DENY: " -j DROP", Verdict.PASS: onward}
        for rule in enforcement.admin:
            self._rule(first, rule, side, ends[rule.verdict])
        if passes:
            first.add(onward)
        else:
            first.extend(after)
        return self._chains.put_content(kind, first)

    def _rule(self, draft: Draft, rule: Rule, side: str, end: str) -> None:
        where, match = "", ""
        if rule.peers is not None:
            peers = self._peers[rule.peers]
            member = membership(self._sets, self._family, peers.prefixes, side, peers.origin)
            if member is None:
                return
            where, match = member
        note = self._comment((rule.origin,)) if rule.origin is not None else ""
        for ports in [""] if rule.protocol is None else text.dports(rule.protocol, rule.ports):
            draft.add(f"{where}{ports}{match}{end}", note)

    def _comment(self, origins: Iterable[Origin | None]) -> str:
        """All objects that caused a rule, as far as there is room."""
        if not self._comments:
            return ""
        known = [o for o in origins if o is not None]
        if not known:
            return ""
        more = f" and {len(known) - 1} more" if len(known) > 1 else ""
        first = known[0]
        owner = f"{first.namespace}/{first.name}" if first.namespace else first.name
        return text.comment(f"{owner} {first.file}:{first.line}{more}")


def _matters(enforcement: Enforcement) -> bool:
    """Whether it can deny anything."""
    return enforcement.isolated or any(
        r.verdict is Verdict.DENY for r in chain(enforcement.admin, enforcement.baseline)
    )
