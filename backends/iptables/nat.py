"""Services in the nat table: which balancer a new connection goes to, and whether it is masqueraded.

Knows: frontends that let somebody through. Must not know: refusals (filter table), policy.

The mark that says "masquerade" is set on the way down the dispatch trees, at the highest chain
below which everything agrees, and taken off again from what comes back untranslated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from k8snetc.backends.common.xtables import masquerade, text
from k8snetc.backends.common.xtables.chains import Chains, Draft
from k8snetc.backends.common.xtables.masquerade import CLEAR_MARK, SET_MARK
from k8snetc.backends.common.xtables.model import Jump, Table
from k8snetc.backends.common.xtables.names import hashed
from k8snetc.backends.common.xtables.senders import Fragments, Senders
from k8snetc.backends.common.xtables.sets import Sets, membership
from k8snetc.backends.iptables.balancers import Balancers
from k8snetc.backends.iptables.dispatch import Dispatch, Target
from k8snetc.backends.iptables.frontends import (
    Masquerade,
    Mixed,
    Plain,
    Refused,
    Shape,
    nodeport_doors,
    shape_of,
)
from k8snetc.ir.types import AddressSet, Balance, Family, Frontend, Program, Who

SERVICES = "K8SNETC-SERVICES"
FOREIGN = "K8SNETC-MARK-FOREIGN"

JUMPS = (
    Jump("PREROUTING", f"-A PREROUTING -j {SERVICES}"),
    Jump("OUTPUT", f"-A OUTPUT -j {SERVICES}"),
    masquerade.JUMP,
)


def nat_table(
    program: Program, family: Family, sets: Sets, *, comments: bool, random_fully: bool
) -> Table | None:
    """The nat table of one family; None if no frontend lets anybody through."""
    named = {s.name: s for s in program.sets}
    senders = Senders(program.node, family, sets)
    shaped = [(f, shape_of(f, senders, named)) for f in program.frontends if f.family is family]
    if all(isinstance(shape, Refused) for _, shape in shaped):
        return None
    chains = Chains()
    writer = _Writer(program, family, senders, chains, sets, comments=comments)
    dispatch = Dispatch(family, chains, writer, by_content=False)
    services = Draft()
    nodeports = {(f.protocol, f.port) for f, _ in shaped if f.address is None}
    by_address = [
        (int(f.address), Target(f.protocol, f.port, _Item(f, shape)))
        for f, shape in shaped
        # What is refused needs no rule here, unless a NodePort would take it for its own.
        if f.address is not None and (not isinstance(shape, Refused) or (f.protocol, f.port) in nodeports)
    ]
    dispatch.addresses(services, by_address, None)
    if writer.hoisted:
        services.add(CLEAR_MARK)
    writer.hoisted = False
    by_port = [
        Target(f.protocol, f.port, _Item(f, shape))
        for f, shape in shaped
        if f.address is None and not isinstance(shape, Refused)
    ]
    dispatch.ports(services, by_port, None, nodeport_doors(program.node, family))
    if writer.hoisted:
        services.add(CLEAR_MARK)
    chains.put(SERVICES, services)
    masquerade.lower_masquerade(family, chains, random_fully=random_fully)
    return Table("nat", chains.all, JUMPS)


@dataclass(frozen=True, slots=True)
class _Item:
    frontend: Frontend
    shape: Shape


class _Writer:
    """Writes what the trees lead to. The state is what the mark of a packet says by now; None: nothing."""

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
        self._named: dict[str, AddressSet] = {s.name: s for s in program.sets}
        self._balancers = Balancers({b.name: b for b in program.balancers}, chains, sets)
        self.hoisted = False

    def head(self, draft: Draft, items: Sequence[_Item], state: Masquerade | None) -> Masquerade | None:
        if state is not None:
            return state
        wanted = {i.shape.masquerade for i in items if isinstance(i.shape, Plain)}
        if len(wanted) != 1:
            return None
        state = wanted.pop()
        if state is not Masquerade.NOBODY:
            self._mark(draft, "", "", state)
            self.hoisted = True
        return state

    def leaf(self, draft: Draft, address: str, port: str, item: _Item, state: Masquerade | None) -> None:
        frontend = item.frontend
        note = text.origin_comment(frontend.service, frontend.origin) if self._comments else ""
        match item.shape:
            case Plain(balancer, whom):
                if state is None:
                    self._mark(draft, address, port, whom)
                draft.add(f"{address}{port}{self._balancers.end(balancer)}", note)
            case Mixed() as mixed:
                chain = self._mixed(frontend, mixed, marked=state not in {None, Masquerade.NOBODY})
                draft.add(f"{address}{port} -g {chain}", note)
            case Refused():
                draft.add(f"{address}{port} -j ACCEPT", note)

    def _mark(self, draft: Draft, address: str, port: str, whom: Masquerade) -> None:
        match whom:
            case Masquerade.NOBODY:
                return
            case Masquerade.EVERYBODY:
                draft.add(f"{address}{port}{SET_MARK}")
            case Masquerade.FOREIGNERS:
                cluster = self._senders.of(Who.CLUSTER)
                if len(cluster) == 1:
                    rest = cluster[0].negated
                    draft.add(f"{rest.source}{address}{rest.interface}{port}{rest.match}{SET_MARK}")
                else:
                    draft.add(f"{address}{port} -j {self._foreign(cluster)}")

    def _foreign(self, cluster: Sequence[Fragments]) -> str:
        if FOREIGN not in self._chains:
            draft = Draft()
            for pod in cluster:
                draft.add(f"{pod.source}{pod.interface}{pod.match} -j RETURN")
            draft.add(SET_MARK)
            self._chains.put(FOREIGN, draft)
        return FOREIGN

    def _mixed(self, frontend: Frontend, mixed: Mixed, *, marked: bool) -> str:
        """The chain in which clients part; frontends with the same routes share it. Nothing returns from it.

        ACCEPT here says "not translated"; the filter table refuses it.
        """
        draft = Draft()
        if marked:
            draft.add(CLEAR_MARK)
        if mixed.sources is not None:
            self._guard(draft, self._named[mixed.sources])
        proto = f" -p {frontend.protocol.value}"
        for route in mixed.routes:
            for sender in self._senders.of(route.who):
                before, after = sender.source + sender.interface, sender.match
                if not isinstance(route.action, Balance):
                    draft.add(f"{before}{after} -j ACCEPT")
                    continue
                if route.action.masquerade:
                    draft.add(f"{before}{after}{SET_MARK}")
                end = self._balancers.end(route.action.balancer)
                draft.add(f"{before}{proto}{after}{end}")
        identity = (
            f"{r.who.value} {r.action.balancer} {r.action.masquerade}"
            if isinstance(r.action, Balance)
            else f"{r.who.value} {r.action.value}"
            for r in mixed.routes
        )
        guard = "" if mixed.sources is None else f"for {mixed.sources}"
        name = hashed("F", frontend.protocol.value, guard, str(marked), *identity)
        return self._chains.put(name, draft)

    def _guard(self, draft: Draft, sources: AddressSet) -> None:
        member = membership(self._sets, self._family, sources.prefixes, "src", sources.origin)
        if member is None:
            draft.add(" -j ACCEPT")
        else:
            where, match = member
            negated = f" !{where}" if where else match.replace(" -m set ", " -m set ! ", 1)
            draft.add(f"{negated} -j ACCEPT")
