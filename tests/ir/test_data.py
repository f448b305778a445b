"""Programs as JSON and back."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from k8snetc.ir.data import DataError, from_json, to_json
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
    FromInterface,
    Frontend,
    Node,
    Origin,
    PortRange,
    Prefix,
    Program,
    Protocol,
    Refusal,
    Route,
    Rule,
    SourceIn,
    Verdict,
    Who,
)

ORIGIN = Origin("web.yaml", 3, "Service", "shop", "web")
EVERYTHING = Program(
    node=Node(
        "worker",
        addresses=(ip_address("192.0.2.1"), ip_address("2001:db8::1")),
        pod_networks=(ip_network("10.0.0.0/16"),),
        detector=SourceIn((ip_network("10.0.0.0/8"), ip_network("fd00::/8"))),
    ),
    balancers=(
        Balancer(
            "b",
            Family.IPV4,
            Protocol.TCP,
            (Endpoint(ip_address("10.0.0.1"), 80, local=True, weight=2, origin=ORIGIN),),
            Affinity("k", 30),
            origin=ORIGIN,
        ),
    ),
    frontends=(
        Frontend(
            Exposure.NODE_PORT,
            Family.IPV4,
            None,
            Protocol.TCP,
            30080,
            (Route(Who.CLUSTER, Refusal.DROP), Route(Who.ANY, Balance("b", masquerade=True))),
            "s",
            "shop/web:http",
            ORIGIN,
        ),
    ),
    sets=(AddressSet("s", Family.IPV6, (Prefix(0, 1), Prefix((1 << 128) - 1, 128))),),
    rejects=("s",),
    admissions=(Admission(Protocol.TCP, 30081, ORIGIN),),
    enforcements=(
        Enforcement(
            "e",
            Family.IPV6,
            Direction.EGRESS,
            (ip_address("fd00::1"),),
            rules=(Rule(Verdict.ALLOW, "s", Protocol.SCTP, (PortRange(1, 2),), ORIGIN),),
            admin=(Rule(Verdict.PASS),),
            origins=(ORIGIN,),
        ),
    ),
)


def test_a_program_survives_with_its_origins() -> None:
    back = from_json(to_json(EVERYTHING))
    assert back == EVERYTHING
    assert back.frontends[0].origin == ORIGIN
    assert back.enforcements[0].origins == (ORIGIN,)
    assert back.balancers[0].endpoints[0].origin is back.frontends[0].origin
    assert to_json(back) == to_json(EVERYTHING)


@pytest.mark.parametrize("detector", [None, FromInterface("cni0", prefix=False)])
def test_other_detectors(detector: FromInterface | None) -> None:
    program = Program(node=Node(detector=detector), assumed=True)
    assert from_json(to_json(program)) == program


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b'{"program_format": 2}',
        b'{"program_format": 1, "program": {}}',
        to_json(EVERYTHING).replace(b'"tcp"', b'"TCP"'),
        to_json(EVERYTHING).replace(b"30080", b'"30080"'),
        to_json(EVERYTHING).replace(b"30080", b"70000"),
        to_json(EVERYTHING).replace(b"10.0.0.1", b"10.0.0.256"),
    ],
)
def test_anything_else_is_refused(damage: bytes) -> None:
    with pytest.raises(DataError):
        from_json(damage)
