"""From a program to the iptables model, both families.

Knows: which tables and sets there are. Must not know: files, the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

from k8snetc.backends.base import Gap, UnsupportedError
from k8snetc.backends.common.xtables.model import Ruleset, Sysctl, Table, Xtables
from k8snetc.backends.common.xtables.sets import Sets
from k8snetc.backends.iptables.filter import filter_table
from k8snetc.backends.iptables.nat import nat_table
from k8snetc.ir.types import Family, Program


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this node's iptables can do. `random_fully`: MASQUERADE picks source ports at random
    (iptables 1.6.2, Linux 3.14)."""

    random_fully: bool = True


def lower(program: Program, *, comments: bool = True, capabilities: Capabilities = Capabilities()) -> Xtables:
    """The model of everything the node needs. Raises `UnsupportedError` with all gaps at once."""
    gaps = _gaps(program)
    if gaps:
        raise UnsupportedError("iptables", gaps)
    sets = Sets()
    rulesets = []
    for family in sorted(program.node.families):
        tables: list[Table | None] = [
            filter_table(program, family, sets, comments=comments),
            nat_table(program, family, sets, comments=comments, random_fully=capabilities.random_fully),
        ]
        present = tuple(t for t in tables if t is not None)
        if present:
            rulesets.append(Ruleset(family, present))
    return Xtables(tuple(rulesets), sets.all, _sysctls(program))


def _gaps(program: Program) -> list[Gap]:
    gaps = []
    for balancer in program.balancers:
        if balancer.scheduler:
            gaps.append(
                Gap(
                    f"balancer {balancer.name} asks for the scheduler {balancer.scheduler}",
                    "iptables only chooses at random: drop the annotation or use the ipvs back end",
                    balancer.origin,
                )
            )
        if balancer.forwarding:
            gaps.append(
                Gap(
                    f"balancer {balancer.name} asks for the forwarding method {balancer.forwarding}",
                    "iptables only translates addresses: drop the annotation or use the ipvs back end",
                    balancer.origin,
                )
            )
    return gaps


def _sysctls(program: Program) -> tuple[Sysctl, ...]:
    served = any(f.address is None and f.family is Family.IPV4 for f in program.frontends)
    if program.node.localhost_nodeports and served:
        return (Sysctl("net.ipv4.conf.all.route_localnet", "1"),)
    return ()
