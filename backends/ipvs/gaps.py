"""What IPVS can not do of what a program asks for. Every gap at once; never a silent hole.

Knows: IPVS's limits. Must not know: how anything is written.
"""

from __future__ import annotations

from collections.abc import Iterator

from k8snetc.backends.base import Gap
from k8snetc.backends.ipvs.model import MASQUERADING, METHODS, SCHEDULERS
from k8snetc.backends.ipvs.virtual import FORWARDED
from k8snetc.ir.types import Address, Balance, Balancer, Direction, Family, Frontend, Program


def gaps(program: Program, scheduler: str) -> list[Gap]:
    """All of them, in the order of the program."""
    return [
        *_scheduler(scheduler, "--ipvs-scheduler", None),
        *(g for b in program.balancers for g in _balancer(b)),
        *_localhost(program),
        *_forwarding(program),
    ]


def _balancer(balancer: Balancer) -> Iterator[Gap]:
    if balancer.scheduler:
        yield from _scheduler(balancer.scheduler, f"balancer {balancer.name}", balancer)
    if balancer.forwarding not in METHODS:
        yield Gap(
            f"balancer {balancer.name} asks for the forwarding method {balancer.forwarding!r}",
            f"use one of {', '.join(m for m in METHODS if m)}",
            balancer.origin,
        )


def _scheduler(asked: str, who: str, balancer: Balancer | None) -> Iterator[Gap]:
    name, _, flags = asked.partition(":")
    origin = balancer.origin if balancer else None
    if name not in SCHEDULERS:
        yield Gap(f"{who} asks for the scheduler {name!r}", f"use one of {', '.join(SCHEDULERS)}", origin)
        return
    for flag in flags.split(",") if flags else ():
        if flag not in SCHEDULERS[name]:
            known = ", ".join(SCHEDULERS[name]) or "it has none"
            yield Gap(
                f"{who} asks for the flag {flag!r} of the scheduler {name}", f"its flags: {known}", origin
            )


def _localhost(program: Program) -> Iterator[Gap]:
    served = any(f.address is None and f.family is Family.IPV4 for f in program.frontends)
    if program.node.localhost_nodeports and served:
        yield Gap(
            "NodePorts on 127.0.0.1 (--iptables-localhost-nodeports)",
            "IPVS sends nothing from there to an endpoint: use another address of the node, or another back end",
        )


def _forwarding(program: Program) -> Iterator[Gap]:
    """Direct routing and tunnels leave the packet as it is: no other port, and nothing for a policy to see."""
    balancers = {b.name: b for b in program.balancers}
    protected: frozenset[Address] = frozenset(
        p for e in program.enforcements if e.direction is Direction.INGRESS for p in e.pods
    )
    for frontend in program.frontends:
        if frontend.exposure not in FORWARDED:
            continue
        names = dict.fromkeys(r.action.balancer for r in frontend.routes if isinstance(r.action, Balance))
        for balancer in (balancers[n] for n in names):
            if METHODS.get(balancer.forwarding, MASQUERADING) != MASQUERADING:
                yield from _unchanged(frontend, balancer, protected)


def _unchanged(frontend: Frontend, balancer: Balancer, protected: frozenset[Address]) -> Iterator[Gap]:
    asked = f"{frontend.service} asks for the forwarding method {balancer.forwarding}"
    for endpoint in balancer.endpoints:
        if endpoint.port != frontend.port:
            yield Gap(
                f"{asked}, but its port {frontend.port} is {endpoint.port} at {endpoint.address}",
                "a packet that is not rewritten keeps its port: give service and target the same",
                frontend.origin,
            )
        if endpoint.address in protected:
            yield Gap(
                f"{asked}, but a NetworkPolicy protects {endpoint.address}",
                "the packet bears the service's address and no rule for the pod would see it: "
                "take the annotation away or exempt the pod from policy",
                frontend.origin,
            )
