"""From a program to the nftables model, both families, and the gaps.

Knows: which base chains there are and in which order they ask. Must not know: text, the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from k8snetc.backends.base import Gap, UnsupportedError
from k8snetc.backends.common import conntrack
from k8snetc.backends.nftables import words
from k8snetc.backends.nftables.balancers import BLOCK, slots
from k8snetc.backends.nftables.build import Builder
from k8snetc.backends.nftables.model import Ruleset, Table
from k8snetc.backends.nftables.policy import lower_policy
from k8snetc.backends.nftables.services import lower_services
from k8snetc.ir.types import Family, FromInterface, Program

INPUT = "type filter hook input priority filter; policy accept;"
CUT = "ct mark & {0} == {0} drop".format(words.mask(conntrack.CUT_BIT))
"""The rule that has to be first of all where policy is enforced: it drops what a new policy has cut, both ways."""
_ERRORS = {
    Family.IPV4: "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
    Family.IPV6: "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }",
}
FORWARD = "type filter hook forward priority filter; policy accept;"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this node's nftables can do. `random_fully`: masquerading picks source ports at random (Linux 3.14)."""

    random_fully: bool = True


def lower(program: Program, *, comments: bool = True, capabilities: Capabilities = Capabilities()) -> Ruleset:
    """The model of everything the node needs. Raises `UnsupportedError` with all gaps at once."""
    gaps = list(_gaps(program))
    if gaps:
        raise UnsupportedError("nftables", gaps)
    tables = [_table(program, f, comments, capabilities) for f in sorted(program.node.families)]
    sysctls = {"net.ipv4.conf.all.route_localnet": "1"} if _serves_localhost(program) else {}
    return Ruleset(tuple(t for t in tables if t is not None), sysctls)


def _table(program: Program, family: Family, comments: bool, capabilities: Capabilities) -> Table | None:
    builder = Builder(family, comments=comments)
    serves = lower_services(program, builder, random_fully=capabilities.random_fully)
    policy = lower_policy(program, builder)
    _input(program, builder)
    if serves or policy:
        forward = _known(family, judged=bool(policy))
        if program.node.drop_invalid:
            forward.append("ct state invalid drop")
        if policy:
            forward.insert(0, CUT)
        builder.chain("forward", [*forward, *policy], FORWARD)
    return builder.table()


def _known(family: Family, *, judged: bool) -> list[str]:
    """What passes because of the connection that it belongs to. Where there is policy, a connection that a helper
    expects (FTP's data) is one that policy has to allow; ICMP errors pass.
    """
    if not judged:
        return ["ct state established,related accept"]
    return ["ct state established accept", f"ct state related {_ERRORS[family]} accept"]


def _input(program: Program, builder: Builder) -> None:
    rules = []
    if builder.family is Family.IPV4 and _serves_localhost(program):
        # Routing to 127.0.0.0/8 is open for NodePorts; nobody else may come in by it (CVE-2020-8558).
        guard = "ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8"
        rules += [f"{guard} ct state established,related accept", f"{guard} ct status dnat accept"]
        rules.append(f"{guard} drop")
    if program.admissions:
        admitted = builder.named("admitted", f"typeof {words.PORT}")
        for a in sorted(program.admissions, key=lambda a: (a.protocol.number, a.port)):
            admitted.add(f"{a.protocol.value} . {a.port}", comment=builder.note("", a.origin))
        rules.append(f"{words.PORT} @admitted accept")
    if rules:
        builder.chain("input", rules, INPUT)


def _serves_localhost(program: Program) -> bool:
    return program.node.localhost_nodeports and any(
        f.address is None and f.family is Family.IPV4 for f in program.frontends
    )


def _gaps(program: Program) -> Iterator[Gap]:
    detector = program.node.detector
    if isinstance(detector, FromInterface) and any(c in '"*\\' for c in detector.name):
        yield Gap(
            f"the interface name {detector.name!r} can't be written in nftables' syntax",
            "name the interfaces of pods without quotes, stars and backslashes",
        )
    for balancer in program.balancers:
        if balancer.scheduler:
            yield Gap(
                f"balancer {balancer.name} asks for the scheduler {balancer.scheduler}",
                "nftables only chooses at random: drop the annotation or use the ipvs back end",
                balancer.origin,
            )
        if balancer.forwarding:
            yield Gap(
                f"balancer {balancer.name} asks for the forwarding method {balancer.forwarding}",
                "nftables only translates addresses: drop the annotation or use the ipvs back end",
                balancer.origin,
            )
        if slots(balancer) > BLOCK:
            yield Gap(
                f"balancer {balancer.name} needs {slots(balancer)} slots for its endpoints' weights",
                f"nftables has {BLOCK} for each: use weights whose sum, common factors apart, is less",
                balancer.origin,
            )
