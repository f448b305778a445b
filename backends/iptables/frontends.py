"""What the rules of a frontend depend on, sorted out once for the nat and the filter table.

Knows: how routes fall into those that both tables can write shortly and the rest. Must not know: rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_network

from k8snetc.backends.common.xtables import text
from k8snetc.backends.common.xtables.senders import Senders
from k8snetc.ir.addresses import cover, prefix_of, range_of, subtract
from k8snetc.ir.types import (
    AddressSet,
    Balance,
    Family,
    Frontend,
    Network,
    Node,
    Refusal,
    Route,
    Who,
)

_LOOPBACK: dict[Family, Network] = {
    Family.IPV4: ip_network("127.0.0.0/8"),
    Family.IPV6: ip_network("::1/128"),
}


class Masquerade(Enum):
    """Whose connections through a frontend leave with the node's address."""

    NOBODY = "nobody"
    FOREIGNERS = "foreigners"  # everybody but pods of the cluster
    EVERYBODY = "everybody"


@dataclass(frozen=True, slots=True)
class Plain:
    """Everybody goes to one balancer: one rule does it."""

    balancer: str
    masquerade: Masquerade


@dataclass(frozen=True, slots=True)
class Mixed:
    """Some clients go elsewhere than others, or not at all: a chain of its own decides."""

    routes: tuple[Route, ...]
    sources: str | None


@dataclass(frozen=True, slots=True)
class Refused:
    """Nobody is let through."""


Shape = Plain | Mixed | Refused


def routes_of(frontend: Frontend, senders: Senders) -> tuple[Route, ...]:
    """The routes that can be taken at all: pods of the cluster may be nobody (not told from others), or everybody."""
    if frontend.routes[0].who is Who.ANY:
        return frontend.routes
    routes: list[Route] = []
    for route in frontend.routes:
        if route.who is not Who.CLUSTER:
            routes.append(route)
        elif senders.everybody_is_cluster:
            return (*routes, Route(Who.ANY, route.action))
        elif not senders.nobody_is_cluster:
            routes.append(route)
    return tuple(routes)


def shape_of(frontend: Frontend, senders: Senders, sets: dict[str, AddressSet]) -> Shape:
    """Which kind of rules the frontend needs in the nat table."""
    routes = routes_of(frontend, senders)
    if all(isinstance(r.action, Refusal) for r in routes):
        return Refused()
    if guard_of(frontend, sets) is None:
        plain = _plain(routes)
        if plain is not None:
            return plain
    return Mixed(routes, guard_of(frontend, sets))


def guard_of(frontend: Frontend, sets: dict[str, AddressSet]) -> str | None:
    """The set of clients that may use it; None also where that set holds every address."""
    if frontend.sources is not None and any(p.length == 0 for p in sets[frontend.sources].prefixes):
        return None
    return frontend.sources


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


def nodeport_doors(node: Node, family: Family) -> list[tuple[str, str]]:
    """Pairs of fragments (before the protocol, after the port) that match packets to a NodePort address.

    The kernel knows best which addresses are the node's (`addrtype`). Loopback is served only where the option
    asks for it, in IPv4 (the kernel has no route_localnet for IPv6), and only for the node itself.
    """
    local = " -m addrtype --dst-type LOCAL"
    loopback = _LOOPBACK[family]
    doors: list[tuple[str, str]] = []
    if node.localhost_nodeports and family is Family.IPV4:
        doors.append((f" -d {text.network(loopback)}", " -m addrtype --src-type LOCAL --dst-type LOCAL"))
    networks = [n for n in node.nodeport_networks if n.version == family]
    if not node.nodeport_networks or any(n.prefixlen == 0 for n in networks):
        doors.append((f" ! -d {text.network(loopback)}", local))
        return doors
    served = subtract(
        [range_of(family, prefix_of(n)) for n in networks], [range_of(family, prefix_of(loopback))]
    )
    doors.extend((text.to(family, p), local) for p in cover(family, served))
    return doors
