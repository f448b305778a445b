"""Which tracked connections a new program would not make."""

from __future__ import annotations

from ipaddress import ip_address

from k8snetc.backends.common.conntrack import Flow, allowed_again, denied_flows, parse, stale_udp
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

LISTING = """\
ipv4     2 udp      17 29 src=10.0.0.1 dst=10.96.0.10 sport=60705 dport=53 [UNREPLIED] \
src=10.0.1.5 dst=10.0.0.1 sport=5353 dport=60705 mark=0 use=1
ipv6     10 tcp      6 431999 ESTABLISHED src=fd00::1 dst=fd00::2 sport=60774 dport=8080 \
src=fd00::2 dst=fd00::1 sport=8080 dport=60774 [ASSURED] mark=4096 use=2
ipv4     2 icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=5 \
src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=5 mark=0
conntrack v1.4.7 (conntrack-tools): 3 flow entries have been shown.
"""

MANY = "".join(
    f"ipv4     2 tcp      6 {left} CLOSE src=10.0.0.1 dst=10.96.0.10 sport={40000 + left} dport=80 packets={left} "
    f"bytes=7 src=10.0.1.5 dst=10.0.0.1 sport=8080 dport={40000 + left} [ASSURED] mark={mark} zone=7 use=1\n"
    for mark in (0, 4096)
    for left in range(500)
) + (
    "ipv4     2 unknown  2 571 src=10.0.0.1 dst=224.0.0.1 [UNREPLIED] src=224.0.0.1 dst=10.0.0.1 use=2\n"
    "ipv4     2 gre      47 29 timeout=3, stream_timeout=180 src=10.0.0.1 dst=10.0.0.2 srckey=0x0 dstkey=0x1 "
    "src=10.0.0.2 dst=10.0.0.1 srckey=0x1 dstkey=0x0 mark=0 use=1\n"
)
"""Two kinds of connections a thousand times over, and protocols without ports or marks."""


def flow(destination: str, port: int, endpoint: str, endpoint_port: int, **more: str | int) -> Flow:
    words = {"protocol": "udp", "source": "10.0.0.1", "mark": 0, **more}
    return Flow(
        str(words["protocol"]),
        ip_address(words["source"]),
        ip_address(destination),
        port,
        ip_address(endpoint),
        endpoint_port,
        int(words["mark"]),
    )


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


def test_parse() -> None:
    first, second, third = parse(LISTING)
    assert first == flow("10.96.0.10", 53, "10.0.1.5", 5353)
    assert (second.protocol, second.mark, second.endpoint_port) == ("tcp", 0x1000, 8080)
    assert (third.protocol, third.port) == ("icmp", 0)
    assert first.filter == (
        "-f ipv4 -p udp -s 10.0.0.1 -d 10.96.0.10 -r 10.0.1.5 --dport 53 --reply-port-src 5353"
    )


def test_only_flows_to_endpoints_that_are_gone_are_stale() -> None:
    kept = flow("10.96.0.10", 53, "10.0.1.5", 5353)
    gone = flow("10.96.0.10", 53, "10.0.1.6", 5353)
    other_port = flow("10.96.0.10", 54, "10.0.1.6", 5353)
    tcp = flow("10.96.0.10", 53, "10.0.1.6", 5353, protocol="tcp")
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
    allowed = flow("10.96.0.10", 80, "10.0.1.5", 8080, protocol="tcp")
    denied = flow("10.96.0.10", 80, "10.0.1.5", 8081, protocol="tcp")
    ping = flow("10.0.1.5", 0, "10.0.1.5", 0, protocol="icmp")
    probe = flow("10.0.1.5", 8081, "10.0.1.5", 8081, protocol="tcp", source="192.0.2.1")
    passing = flow("10.0.9.9", 8081, "10.0.9.9", 8081, protocol="tcp")
    flows = (allowed, denied, ping, probe, passing)
    assert list(denied_flows(policy(PortRange(8080, 8080)), flows)) == [denied, ping]


def test_cut_flows_are_let_go_when_they_are_allowed_again() -> None:
    cut = flow("10.0.1.5", 8080, "10.0.1.5", 8080, protocol="tcp", mark=0x1000)
    assert list(denied_flows(policy(), [cut])) == []
    assert list(allowed_again(policy(), [cut])) == []
    assert list(allowed_again(policy(PortRange(8080, 8080)), [cut])) == [cut]
    assert list(allowed_again(Program(), [cut])) == [cut]


def test_each_kind_of_flow_is_read_once() -> None:
    web = {"protocol": "tcp"}
    assert list(parse(MANY)) == [
        flow("10.96.0.10", 80, "10.0.1.5", 8080, **web),
        flow("10.96.0.10", 80, "10.0.1.5", 8080, **web, mark=4096),
        flow("224.0.0.1", 0, "224.0.0.1", 0, protocol="unknown"),
        flow("10.0.0.2", 0, "10.0.0.2", 0, protocol="gre"),
    ]
