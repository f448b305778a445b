"""Which tracked connections a new program would not make."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from k8snetc.backends.common.conntrack import judged, stale_udp
from k8snetc.backends.common.ctnetlink import Flow
from k8snetc.ir.types import (
    Balance,
    Balancer,
    Direction,
    Endpoint,
    Enforcement,
    Exposure,
    Family,
    Frontend,
    Node,
    PortRange,
    Program,
    Protocol,
    Refusal,
    Route,
    Rule,
    Verdict,
    Who,
)


def flow(
    destination: str,
    port: int,
    endpoint: str,
    endpoint_port: int,
    protocol: Protocol | None = Protocol.UDP,
    *,
    source: str = "10.0.0.1",
    mark: int = 0,
    source_port: int | None = None,
) -> Flow:
    ends = (ip_address(source), ip_address(destination), port, ip_address(endpoint), endpoint_port)
    return Flow(protocol, *ends, mark, source_port)


def dns(*endpoints: str, node_port: bool = False) -> Program:
    action = Balance("b") if endpoints else Refusal.REJECT
    places = tuple(Endpoint(ip_address(e), 5353) for e in endpoints)
    frontend = Frontend(
        Exposure.NODE_PORT if node_port else Exposure.CLUSTER_IP,
        Family.IPV4,
        None if node_port else ip_address("10.96.0.10"),
        Protocol.UDP,
        30053 if node_port else 53,
        (Route(Who.ANY, action),),
    )
    balancers = (Balancer("b", Family.IPV4, Protocol.UDP, places),) if endpoints else ()
    return Program(balancers=balancers, frontends=(frontend,))


def test_only_flows_to_endpoints_that_are_gone_are_stale() -> None:
    kept = flow("10.96.0.10", 53, "10.0.1.5", 5353)
    gone = flow("10.96.0.10", 53, "10.0.1.6", 5353)
    other_port = flow("10.96.0.10", 54, "10.0.1.6", 5353)
    tcp = flow("10.96.0.10", 53, "10.0.1.6", 5353, protocol=Protocol.TCP)
    elsewhere = flow("192.0.2.7", 53, "192.0.2.7", 53)
    flows = (kept, gone, other_port, tcp, elsewhere)
    assert list(stale_udp(dns("10.0.1.5", "10.0.1.6"), dns("10.0.1.5"), flows)) == [gone]


def test_flows_from_before_the_first_endpoint_are_stale() -> None:
    untranslated = flow("10.96.0.10", 53, "10.96.0.10", 53)
    assert list(stale_udp(dns(), dns("10.0.1.5"), [untranslated])) == [untranslated]


def test_flows_of_a_service_that_is_gone_are_stale() -> None:
    translated = flow("10.96.0.10", 53, "10.0.1.5", 5353)
    untranslated = flow("10.96.0.10", 53, "10.96.0.10", 53)
    assert list(stale_udp(dns("10.0.1.5"), Program(), (translated, untranslated))) == [translated]


def test_node_ports() -> None:
    old, new = dns("10.0.1.5", "10.0.1.6", node_port=True), dns("10.0.1.5", node_port=True)
    kept = flow("192.0.2.1", 30053, "10.0.1.5", 5353)
    gone = flow("192.0.2.1", 30053, "10.0.1.6", 5353)
    somebody_elses = flow("192.0.2.1", 30053, "172.17.0.2", 53)
    to_outside = flow("198.51.100.1", 30053, "198.51.100.1", 30053)
    assert list(stale_udp(old, new, (kept, gone, somebody_elses, to_outside))) == [gone]


def policy(*ports: PortRange) -> Program:
    rules = (Rule(Verdict.ALLOW, None, Protocol.TCP, ports),) if ports else ()
    enforcement = Enforcement("e", Family.IPV4, Direction.INGRESS, (ip_address("10.0.1.5"),), rules=rules)
    return Program(node=Node(addresses=(ip_address("192.0.2.1"),)), enforcements=(enforcement,))


def test_policy_judges_the_endpoint_and_its_port_and_never_the_node() -> None:
    allowed = flow("10.96.0.10", 80, "10.0.1.5", 8080, protocol=Protocol.TCP)
    denied = flow("10.96.0.10", 80, "10.0.1.5", 8081, protocol=Protocol.TCP)
    ping = flow("10.0.1.5", 0, "10.0.1.5", 0, protocol=None)
    probe = flow("10.0.1.5", 8081, "10.0.1.5", 8081, protocol=Protocol.TCP, source="192.0.2.1")
    passing = flow("10.0.9.9", 8081, "10.0.9.9", 8081, protocol=Protocol.TCP)
    flows = (allowed, denied, ping, probe, passing)
    assert judged(policy(PortRange(8080, 8080)), flows) == ((denied, ping), ())


def test_cut_flows_are_let_go_when_they_are_allowed_again() -> None:
    cut = flow("10.0.1.5", 8080, "10.0.1.5", 8080, protocol=Protocol.TCP, mark=0x1000)
    assert judged(policy(), [cut]) == ((), ())
    assert judged(policy(PortRange(8080, 8080)), [cut]) == ((), (cut,))
    assert judged(Program(), [cut]) == ((), (cut,))


def test_where_nobody_knows_who_asked_both_must_be_allowed_to() -> None:
    """An entry that was picked up at a packet of the server: as it stands, a pod asks somebody, which all may."""
    picked = flow("10.0.9.9", 40000, "10.0.9.9", 40000, Protocol.TCP, source="10.0.1.5", source_port=8080)
    assert judged(policy(), [picked]) == ((picked,), ())
    assert judged(policy(PortRange(8080, 8080)), [picked]) == ((), ())
    assert judged(policy(PortRange(8081, 8081)), [picked]) == ((picked,), ())
    assert judged(policy(), [replace(picked, source_port=None)]) == ((), ())
