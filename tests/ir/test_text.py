"""The text form prints and parses, with nothing lost."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from k8snetc.ir.parse import TextError, parse
from k8snetc.ir.text import text_of
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

WEB = Origin('odd "name" # {}.yaml', 12, "Service", "shop", "web")
PROGRAM = Program(
    node=Node(
        name="worker-1",
        addresses=(ip_address("192.0.2.1"), ip_address("2001:db8::1")),
        pod_networks=(ip_network("10.244.1.0/24"),),
        detector=SourceIn((ip_network("10.244.0.0/16"), ip_network("fd00::/8"))),
        nodeport_networks=(ip_network("192.0.2.0/24"),),
        localhost_nodeports=True,
        drop_invalid=False,
    ),
    balancers=(
        Balancer(
            "shop/web:http#4",
            Family.IPV4,
            Protocol.TCP,
            (
                Endpoint(ip_address("10.244.1.7"), 8080, local=True, origin=WEB),
                Endpoint(ip_address("10.244.2.8"), 8081, weight=3),
            ),
            Affinity("shop/web:http", 10800),
            "rr",
            "tunnel",
            WEB,
        ),
    ),
    frontends=(
        Frontend(
            Exposure.CLUSTER_IP,
            Family.IPV4,
            ip_address("10.96.7.7"),
            Protocol.TCP,
            80,
            (
                Route(Who.CLUSTER, Balance("shop/web:http#4")),
                Route(Who.ANY, Balance("shop/web:http#4", True)),
            ),
            "some",
            "shop/web:http",
            WEB,
        ),
        Frontend(
            Exposure.NODE_PORT, Family.IPV6, None, Protocol.SCTP, 30080, (Route(Who.ANY, Refusal.REJECT),)
        ),
        Frontend(
            Exposure.EXTERNAL_IP,
            Family.IPV6,
            ip_address("2001:db8::7"),
            Protocol.UDP,
            53,
            (Route(Who.NODE, Refusal.REJECT), Route(Who.ANY, Refusal.DROP)),
        ),
    ),
    sets=(
        AddressSet("some", Family.IPV4, (Prefix(0x0A000000, 8), Prefix(0xC0000201, 32)), WEB),
        AddressSet("none", Family.IPV6, ()),
    ),
    rejects=("some",),
    drops=("none",),
    admissions=(Admission(Protocol.TCP, 32000, WEB),),
    enforcements=(
        Enforcement(
            "in",
            Family.IPV4,
            Direction.INGRESS,
            (ip_address("10.244.1.7"),),
            rules=(
                Rule(Verdict.ALLOW),
                Rule(Verdict.ALLOW, "some", Protocol.TCP, (PortRange(80, 80), PortRange(90, 100)), WEB),
            ),
            admin=(Rule(Verdict.PASS, "some"), Rule(Verdict.DENY, None, Protocol.UDP)),
            baseline=(Rule(Verdict.DENY),),
            origins=(WEB, Origin("p.yaml", 3, "ClusterNetworkPolicy", "", "all", "spec.ingress[0]")),
        ),
        Enforcement("out", Family.IPV6, Direction.EGRESS, (ip_address("fd00::7"),), isolated=False),
    ),
    assumed=True,
)


def test_parse_reads_what_print_writes() -> None:
    text = text_of(PROGRAM)
    assert parse(text) == PROGRAM
    assert text_of(parse(text)) == text  # equality leaves origins out; the text does not


@pytest.mark.parametrize(
    "detector", [None, FromInterface("cni0", prefix=False), FromInterface("veth", prefix=True)]
)
def test_detectors(detector: FromInterface | None) -> None:
    program = Program(Node(detector=detector))
    assert parse(text_of(program)) == program


def test_errors_name_the_line() -> None:
    with pytest.raises(TextError, match="line 3"):
        parse("node {\n  families ipv4\n  frobnicate\n}\n")


def test_values_check_themselves_on_parsing() -> None:
    with pytest.raises(TextError, match="65536"):
        parse('node { families ipv4 }\nbalancer "b" ipv4 tcp { 10.0.0.1:65536 }\n')
