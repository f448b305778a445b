"""One balancer for all frontends with the same endpoints, affinity and scheduling.

Before: a balancer for each use (ClusterIP, NodePort, ...). After: of equal ones the first by name stays and
every route names it. Balancers with affinity are shared only where their memory is: the affinity key is
part of what must be equal.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from k8snetc.ir.types import Affinity, Balance, Balancer, Endpoint, Frontend, Program, Route

Content = tuple[tuple[Endpoint, ...], str, Affinity | None, str, str]


def run(program: Program) -> Program:
    """The program with equal balancers merged."""
    kept: dict[Content, Balancer] = {}
    renamed: dict[str, str] = {}
    alike = Counter(
        map(_ends, program.balancers)
    )  # all endpoints are compared only where the first and last agree
    for balancer in sorted((b for b in program.balancers if alike[_ends(b)] > 1), key=lambda b: b.name):
        content = (
            balancer.endpoints,
            balancer.protocol.value,
            balancer.affinity,
            balancer.scheduler,
            balancer.forwarding,
        )
        first = kept.setdefault(content, balancer)
        if first is not balancer:
            renamed[balancer.name] = first.name
    if not renamed:
        return program
    return replace(
        program,
        balancers=tuple(b for b in program.balancers if b.name not in renamed),
        frontends=tuple(_frontend(f, renamed) for f in program.frontends),
    )


def _ends(balancer: Balancer) -> tuple[int, int, int]:
    first, last = balancer.endpoints[0], balancer.endpoints[-1]
    return len(balancer.endpoints), int(first.address), int(last.address)


def _frontend(frontend: Frontend, renamed: dict[str, str]) -> Frontend:
    routes = tuple(_route(r, renamed) for r in frontend.routes)
    return frontend if routes == frontend.routes else replace(frontend, routes=routes)


def _route(route: Route, renamed: dict[str, str]) -> Route:
    if isinstance(route.action, Balance) and route.action.balancer in renamed:
        return Route(route.who, replace(route.action, balancer=renamed[route.action.balancer]))
    return route
