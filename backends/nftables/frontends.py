"""What a frontend needs: one verdict for everybody, or verdicts by client, and who may use it at all.

Knows: how routes fall into shapes. Must not know: chains, elements, nft's words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from k8snetc.ir.types import AddressSet, Balance, Frontend, Node, Refusal, Route, Who


class Masquerade(Enum):
    """Whose connections through a frontend leave with the node's address."""

    NOBODY = ""
    FOREIGNERS = "foreign"  # everybody but pods of the cluster
    EVERYBODY = "masq"


@dataclass(frozen=True, slots=True)
class Plain:
    """Everybody goes to one balancer."""

    balancer: str
    masquerade: Masquerade


@dataclass(frozen=True, slots=True)
class Mixed:
    """Some clients go elsewhere than others."""

    routes: tuple[Route, ...]

    @property
    def balancers(self) -> tuple[str, ...]:
        """The balancers of the routes, each once, that of everybody first."""
        found = [r.action.balancer for r in reversed(self.routes) if isinstance(r.action, Balance)]
        return tuple(dict.fromkeys(found))


Shape = Plain | Mixed | Refusal


def shape_of(frontend: Frontend, node: Node) -> Shape:
    """The shape of a frontend, its sources apart."""
    routes = _possible(frontend, node)
    actions = [r.action for r in routes]
    if len(set(actions)) == 1 and isinstance(actions[0], Refusal):
        return actions[0]
    return _plain(routes) or Mixed(routes)


def guard_of(frontend: Frontend, sets: Mapping[str, AddressSet]) -> AddressSet | None:
    """The set of clients that may use it; None where everybody may."""
    if frontend.sources is None:
        return None
    sources = sets[frontend.sources]
    return None if any(p.length == 0 for p in sources.prefixes) else sources


def _possible(frontend: Frontend, node: Node) -> tuple[Route, ...]:
    """Without the route for pods where pods can't be told from others."""
    if node.detects(frontend.family):
        return frontend.routes
    return tuple(r for r in frontend.routes if r.who is not Who.CLUSTER)


def _plain(routes: Sequence[Route]) -> Plain | None:
    balances = [r.action for r in routes if isinstance(r.action, Balance)]
    if len(balances) < len(routes) or len({b.balancer for b in balances}) > 1:
        return None
    by_who = {r.who: b.masquerade for r, b in zip(routes, balances, strict=True)}
    everybody = by_who[Who.ANY]
    if all(m == everybody for m in by_who.values()):
        return Plain(balances[0].balancer, Masquerade.EVERYBODY if everybody else Masquerade.NOBODY)
    first = routes[0].who is Who.CLUSTER
    if first and not by_who[Who.CLUSTER] and everybody and by_who.get(Who.NODE, True):
        return Plain(balances[0].balancer, Masquerade.FOREIGNERS)
    return None
