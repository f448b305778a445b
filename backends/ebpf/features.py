"""Which parts of the C a program needs: what no object asks for is not in the code.

Knows: how the IR shows a need. Must not know: the C, or the tables' content.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from k8snetc.ir.types import (
    Exposure,
    Family,
    FromInterface,
    Frontend,
    Program,
    Protocol,
    Refusal,
    Verdict,
    Who,
)


@dataclass(frozen=True, slots=True)
class FamilyFeatures:
    """The needs of one address family."""

    frontends: bool = False
    nodeports: bool = False
    sources: bool = False
    affinity: bool = False
    datagrams: bool = False
    refuses: bool = False
    rejects: bool = False
    detects: bool = False
    policy: bool = False

    def __bool__(self) -> bool:
        return self.frontends or self.refuses or self.policy


@dataclass(frozen=True, slots=True)
class Features:
    """The needs of a program. `port_sets`: some policy tells ports apart. `counters`: counted, and denials recorded."""

    ipv4: FamilyFeatures = FamilyFeatures()
    ipv6: FamilyFeatures = FamilyFeatures()
    sctp: bool = False
    localhost: bool = False
    detects_interface: bool = False
    port_sets: bool = False
    drop_invalid: bool = False
    counters: bool = False

    def of(self, family: Family) -> FamilyFeatures:
        """The needs of one family."""
        return self.ipv4 if family is Family.IPV4 else self.ipv6

    @property
    def families(self) -> tuple[Family, ...]:
        """The families that need code at all."""
        return tuple(f for f in Family if self.of(f))

    @property
    def frontends(self) -> bool:
        """Whether there is any service."""
        return self.ipv4.frontends or self.ipv6.frontends

    @property
    def refuses(self) -> bool:
        """Whether some address refuses what no frontend defines."""
        return self.ipv4.refuses or self.ipv6.refuses

    @property
    def policy(self) -> bool:
        """Whether any pod is protected."""
        return self.ipv4.policy or self.ipv6.policy

    @property
    def served(self) -> tuple[Family, ...]:
        """The families that have services: sockets of these are balanced."""
        return tuple(f for f in Family if self.of(f).frontends)

    @property
    def socket_families(self) -> tuple[Family, ...]:
        """The families of the socket hooks: an IPv6 socket may also talk to IPv4 (mapped addresses)."""
        return tuple(Family) if Family.IPV4 in self.served else self.served

    def names(self) -> Iterator[tuple[str, bool]]:
        """Every feature in words, and whether it is on."""
        for family in Family:
            one = self.of(family)
            yield f"IPv{family}", bool(one)
            if one:
                for f in fields(one):
                    yield f"{f.name}{family}", getattr(one, f.name)
        yield "sctp", self.sctp
        yield "localhost", self.localhost
        yield "detects_interface", self.detects_interface
        yield "port_sets", self.port_sets
        yield "drop_invalid", self.drop_invalid
        yield "counters", self.counters

    @property
    def summary(self) -> str:
        """The features that are on."""
        return ", ".join(n for n, on in self.names() if on) or "nothing"

    @property
    def absent(self) -> str:
        """The features that are off."""
        return ", ".join(n for n, on in self.names() if not on) or "nothing"


def features_of(program: Program, *, counters: bool = True) -> Features:
    """What the program needs. `counters`: whether somebody wants them; a program that does nothing has none."""
    frontends = program.frontends
    rules = [r for e in program.enforcements for r in (*e.admin, *e.rules, *e.baseline)]
    ipv4, ipv6 = (_family(program, f) for f in Family)
    return Features(
        ipv4=ipv4,
        ipv6=ipv6,
        counters=counters and bool(ipv4 or ipv6),
        sctp=any(f.protocol is Protocol.SCTP for f in frontends),
        localhost=program.node.localhost_nodeports
        and any(f.exposure is Exposure.NODE_PORT for f in frontends),
        detects_interface=isinstance(program.node.detector, FromInterface)
        and any(_asks_cluster(f) for f in frontends),
        drop_invalid=program.node.drop_invalid,
        port_sets=any(r.protocol is not None for r in rules if r.verdict is not Verdict.PASS)
        or any(r.protocol is not None for r in rules),
    )


def _family(program: Program, family: Family) -> FamilyFeatures:
    frontends = [f for f in program.frontends if f.family is family]
    balancers = {b.name: b for b in program.balancers}
    refused = {s.name for s in program.sets if s.family is family and s.prefixes}
    names = [r.action.balancer for f in frontends for r in f.routes if not isinstance(r.action, Refusal)]
    return FamilyFeatures(
        frontends=bool(frontends),
        nodeports=any(f.exposure is Exposure.NODE_PORT for f in frontends),
        sources=any(f.sources is not None for f in frontends),
        affinity=any(balancers[n].affinity is not None for n in names),
        datagrams=any(f.protocol is Protocol.UDP for f in frontends),
        refuses=any(n in refused for n in (*program.rejects, *program.drops)),
        rejects=any(n in refused for n in program.rejects)
        or any(r.action is Refusal.REJECT for f in frontends for r in f.routes)
        or bool(frontends),
        detects=program.node.detects(family) and any(_asks_cluster(f) for f in frontends),
        policy=any(e.family is family for e in program.enforcements),
    )


def _asks_cluster(frontend: Frontend) -> bool:
    return any(r.who is Who.CLUSTER for r in frontend.routes)
