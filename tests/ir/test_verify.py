"""What the verifier refuses: one broken program for each thing that must hold, and everything in one report."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from k8snetc.ir.types import (
    AddressSet,
    Admission,
    Affinity,
    Balance,
    Balancer,
    Direction,
    Endpoint,
    Enforcement,
    Exposure,
    Family,
    Frontend,
    Node,
    Prefix,
    Program,
    Protocol,
    Refusal,
    Route,
    Rule,
    Verdict,
    Who,
)
from k8snetc.ir.verify import InvalidProgramError, verify

V4, V6 = Family.IPV4, Family.IPV6
NODE = Node(families=(V4,))
BOTH = Node()


def balancer(
    name: str = "b",
    *,
    family: Family = V4,
    protocol: Protocol = Protocol.TCP,
    affinity: Affinity | None = None,
) -> Balancer:
    ip = ip_address({V4: "10.0.0.1", V6: "fd00::1"}[family])
    return Balancer(name, family, protocol, (Endpoint(ip, 80),), affinity)


def frontend(to: str | None = None, *, sources: str | None = None, family: Family = V4) -> Frontend:
    action = Refusal.REJECT if to is None else Balance(to)
    ip = ip_address({V4: "10.96.0.1", V6: "fd96::1"}[family])
    route = Route(Who.ANY, action)
    return Frontend(Exposure.CLUSTER_IP, family, ip, Protocol.TCP, 80, (route,), sources, "shop/web")


def addresses(*prefixes: Prefix, name: str = "s", family: Family = V4) -> AddressSet:
    return AddressSet(name, family, prefixes)


def policy(
    name: str = "e",
    *,
    pod: str = "10.0.0.1",
    peers: str | None = None,
    tier: str = "rules",
    family: Family = V4,
) -> Enforcement:
    plain = Enforcement(name, family, Direction.INGRESS, (ip_address(pod),))
    rules = (Rule(Verdict.ALLOW, peers),) if peers else ()
    match tier:
        case "admin":
            return replace(plain, admin=rules)
        case "baseline":
            return replace(plain, baseline=rules)
        case _:
            return replace(plain, rules=rules)


TEN = Prefix(10 << 24, 8)
BROKEN = {
    "two balancers b": Program(NODE, balancers=(balancer(), balancer())),
    "two sets s": Program(NODE, sets=(addresses(), addresses())),
    "two enforcements e": Program(NODE, enforcements=(policy(), policy(pod="10.0.0.2"))),
    "two enforcement of pods": Program(NODE, enforcements=(policy(), policy("f"))),
    "two frontends": Program(NODE, frontends=(frontend(), frontend())),
    "two admissions": Program(NODE, admissions=(Admission(Protocol.TCP, 1), Admission(Protocol.TCP, 1))),
    "names no known balancer: b": Program(NODE, frontends=(frontend("b"),)),
    "differ in family or protocol": Program(
        NODE, balancers=(balancer(protocol=Protocol.UDP),), frontends=(frontend("b"),)
    ),
    "its balancer b differ in family": Program(
        BOTH, balancers=(balancer(family=V6),), frontends=(frontend("b"),)
    ),
    "names no known set: s": Program(NODE, frontends=(frontend(sources="s"),)),
    "its set s differ in family": Program(
        BOTH, frontends=(frontend(sources="s"),), sets=(addresses(family=V6),)
    ),
    "frontend shop/web is of a family that the node has not": Program(NODE, frontends=(frontend(family=V6),)),
    "balancer b is of a family that the node has not": Program(NODE, balancers=(balancer(family=V6),)),
    "set s is of a family that the node has not": Program(NODE, sets=(addresses(family=V6),)),
    "enforcement e is of a family that the node has not": Program(
        NODE, enforcements=(policy(pod="fd00::1", family=V6),)
    ),
    "set s is not sorted and disjoint": Program(NODE, sets=(addresses(TEN, Prefix((10 << 24) + 1, 32)),)),
    "sorted and disjoint": Program(NODE, sets=(addresses(Prefix(11 << 24, 8), TEN),)),
    "set s holds what is no prefix: 167772161/8": Program(NODE, sets=(addresses(Prefix((10 << 24) + 1, 8)),)),
    "what is no prefix: 0/33": Program(NODE, sets=(addresses(Prefix(0, 33)),)),
    "what is no prefix: 4294967296/32": Program(NODE, sets=(addresses(Prefix(1 << 32, 32)),)),
    "refuses an unknown set: r": Program(NODE, rejects=("r",)),
    "refuses an unknown set: d": Program(NODE, drops=("d",)),
    "enforcement e names no known set: p": Program(NODE, enforcements=(policy(peers="p"),)),
    "e names no known set: a": Program(NODE, enforcements=(policy(peers="a", tier="admin"),)),
    "e names no known set: c": Program(NODE, enforcements=(policy(peers="c", tier="baseline"),)),
    "enforcement e and its set s differ in family": Program(
        BOTH, sets=(addresses(family=V6),), enforcements=(policy(peers="s"),)
    ),
    "balancers b and c share the memory k and differ in its time": Program(
        NODE, balancers=(balancer(affinity=Affinity("k", 10)), balancer("c", affinity=Affinity("k", 20)))
    ),
    "differ in its time, family or protocol": Program(
        BOTH,
        balancers=(
            balancer(affinity=Affinity("k", 10)),
            balancer("c", family=V6, affinity=Affinity("k", 10)),
        ),
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_program_is_refused(message: str) -> None:
    with pytest.raises(InvalidProgramError) as caught:
        verify(BROKEN[message])
    assert message in str(caught.value)


def test_everything_is_in_one_report() -> None:
    program = Program(NODE, frontends=(frontend("b", sources="s"),), rejects=("r",))
    with pytest.raises(InvalidProgramError, match=r"balancer: b; .*set: s; .*set: r$"):
        verify(program)


def test_a_good_program_is_returned_as_it_is() -> None:
    good = Program(
        BOTH,
        balancers=(balancer(affinity=Affinity("k", 10)), balancer("c", affinity=Affinity("k", 10))),
        frontends=(frontend("b", sources="s"), frontend(family=V6)),
        sets=(addresses(TEN, Prefix(12 << 24, 8)), addresses(name="t", family=V6)),
        rejects=("s",),
        enforcements=(policy(peers="s"),),
    )
    assert verify(good) is good
