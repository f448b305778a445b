"""Refusals in the filter table: what a service address does not deliver, rejected or dropped.

Knows: frontends that refuse somebody, and the service addresses as such. Must not know: translation.

A packet that a frontend lets through was translated before it comes here, so it is not refused by
its old destination. All names are derived from content, as policy's are.
"""

from __future__ import annotations

from collections.abc import Sequence

from k8snetc.backends.common.xtables import text, trie
from k8snetc.backends.common.xtables.chains import Chains, Draft
from k8snetc.backends.common.xtables.senders import Senders
from k8snetc.backends.common.xtables.sets import Sets, membership
from k8snetc.backends.iptables.dispatch import Dispatch, Target, tops
from k8snetc.backends.iptables.frontends import guard_of, nodeport_doors, routes_of
from k8snetc.ir.addresses import cover_prefixes
from k8snetc.ir.types import AddressSet, Family, Frontend, Prefix, Program, Refusal, Route

FEW = 4
"""Up to so many prefixes are rules instead of a set."""


def lower_refusals(
    program: Program, family: Family, chains: Chains, sets: Sets, *, comments: bool
) -> str | None:
    """Add the chains and sets of one family's refusals; the root chain's name, None where nothing is refused.

    The root is for new connections only.
    """
    named = {s.name: s for s in program.sets}
    senders = Senders(program.node, family, sets)
    writer = _Writer(program, family, senders, chains, sets, comments=comments)
    dispatch = Dispatch(family, chains, writer, by_content=True)
    refusing = [f for f in program.frontends if f.family is family and _refuses(f, senders, named)]
    root = Draft()
    by_address = [(int(f.address), Target(f.protocol, f.port, f)) for f in refusing if f.address is not None]
    dispatch.addresses(root, by_address, None)
    by_port = [Target(f.protocol, f.port, f) for f in refusing if f.address is None]
    dispatch.ports(root, by_port, None, nodeport_doors(program.node, family))

    rejected = [p for n in program.rejects if named[n].family is family for p in named[n].prefixes]
    dropped = [p for n in program.drops if named[n].family is family for p in named[n].prefixes]
    _addresses(root, family, sets, cover_prefixes(family, rejected), text.REJECT[family])
    if dropped:
        # What is rejected did not come so far, so it may be part of the cover, which is far shorter with it.
        _addresses(root, family, sets, cover_prefixes(family, rejected + dropped), " -j DROP")
    return chains.put_content("R", root) if root.rules else None


def _refuses(frontend: Frontend, senders: Senders, named: dict[str, AddressSet]) -> bool:
    return guard_of(frontend, named) is not None or any(
        isinstance(r.action, Refusal) for r in routes_of(frontend, senders)
    )


def _addresses(draft: Draft, family: Family, sets: Sets, prefixes: Sequence[Prefix], end: str) -> None:
    """Refuse every new connection to these addresses. A set is asked only for what is near it."""
    if len(prefixes) <= FEW:
        for p in prefixes:
            draft.add(f"{text.to(family, p)}{end}")
        return
    name = sets.add(family, prefixes)
    for block in tops([trie.Entry(p.value, p.length, None) for p in prefixes], family):
        where = text.to(family, Prefix(block.value, block.length))
        draft.add(f"{where} -m set --match-set {name} dst{end}")


class _Writer:
    """Writes the refusals that the trees lead to. There is no state."""

    def __init__(
        self,
        program: Program,
        family: Family,
        senders: Senders,
        chains: Chains,
        sets: Sets,
        *,
        comments: bool,
    ) -> None:
        self._senders = senders
        self._family = family
        self._chains = chains
        self._sets = sets
        self._comments = comments
        self._named = {s.name: s for s in program.sets}

    def head(self, draft: Draft, items: Sequence[Frontend], state: None) -> None:
        return None

    def leaf(self, draft: Draft, address: str, port: str, item: Frontend, state: None) -> None:
        note = text.origin_comment(item.service, item.origin) if self._comments else ""
        guard = guard_of(item, self._named)
        refusing = [(r, r.action) for r in routes_of(item, self._senders) if isinstance(r.action, Refusal)]
        kinds = {refusal for _, refusal in refusing}
        if guard is not None:
            kinds.add(Refusal.DROP)
        end = self._end(kinds.pop()) if len(kinds) == 1 else f" -g {self._parted(item, guard, refusing)}"
        draft.add(f"{address}{port}{end}", note)

    def _parted(
        self, frontend: Frontend, guard: str | None, refusing: Sequence[tuple[Route, Refusal]]
    ) -> str:
        """A chain for a frontend that rejects some and drops others."""
        draft = Draft()
        if guard is not None:
            sources = self._named[guard]
            member = membership(self._sets, self._family, sources.prefixes, "src", sources.origin)
            if member is None:
                draft.add(" -j DROP")
            else:
                where, match = member
                negated = f" !{where}" if where else match.replace(" -m set ", " -m set ! ", 1)
                draft.add(f"{negated} -j DROP")
        for route, refusal in refusing:
            for sender in self._senders.of(route.who):
                rule = f"{sender.source}{sender.interface}{sender.match}{self._end(refusal)}"
                draft.add(rule)
        return self._chains.put_content("Q", draft)

    def _end(self, refusal: Refusal) -> str:
        return text.REJECT[self._family] if refusal is Refusal.REJECT else " -j DROP"
