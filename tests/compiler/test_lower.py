"""Which frontend sends whom where: rows of docs/semantics.md, on facts and the interpreter, without a kernel."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from k8snetc.compiler.diagnostics import InputError
from k8snetc.compiler.facts import EndpointFact, Facts, NodeContext, ServicePortFact
from k8snetc.compiler.lower import lower
from k8snetc.ir.interpret import Interpreter, Packet, Result, Sender, Tracked
from k8snetc.ir.passes import run_passes
from k8snetc.ir.types import (
    Detector,
    Exposure,
    Family,
    FromInterface,
    Origin,
    Program,
    Protocol,
    Refusal,
    SourceIn,
)

NODE = NodeContext(
    name="here",
    addresses=(ip_address("192.0.2.1"), ip_address("2001:db8::1")),
    pod_networks=(ip_network("10.244.1.0/24"),),
    detector=SourceIn((ip_network("10.244.0.0/16"),)),
    zone="a",
)
HERE = EndpointFact(ip_address("10.244.1.7"), 8080, "here")
THERE = EndpointFact(ip_address("10.244.2.8"), 8080, "there")
THIRD = EndpointFact(ip_address("10.244.3.9"), 8080, "third")
WEB = ServicePortFact(
    namespace="shop",
    service="web",
    port_name="http",
    family=Family.IPV4,
    protocol=Protocol.TCP,
    port=80,
    node_port=30080,
    cluster_ips=(ip_address("10.96.0.10"),),
    external_ips=(ip_address("198.51.100.1"),),
    balancer_ips=(ip_address("203.0.113.1"),),
    endpoints=(HERE, THERE),
    origin=Origin("shop.yaml", 1, "Service", "shop", "web"),
)
CLUSTER_IP, NODE_PORT, EXTERNAL_IP, BALANCER_IP = "10.96.0.10", "192.0.2.1", "198.51.100.1", "203.0.113.1"
POD, OTHER_POD, OUTSIDE = "10.244.1.99", "10.244.9.9", "192.0.2.77"
EVERY = ((CLUSTER_IP, 80), (NODE_PORT, 30080), (EXTERNAL_IP, 80), (BALANCER_IP, 80))
OUTER = EVERY[1:]


def program(*ports: ServicePortFact, node: NodeContext = NODE) -> Program:
    """The optimised program, proven equal to the unoptimised one on the packets that a test sends."""
    return run_passes(lower(Facts(node, ports)))


def send(
    what: Program,
    source: str,
    to: str,
    port: int,
    *,
    sender: Sender | None = None,
    protocol: Protocol | None = Protocol.TCP,
    interface: str = "",
) -> Result:
    if sender is None:
        sender = {POD: Sender.POD, NODE_PORT: Sender.NODE}.get(source, Sender.EXTERNAL)
    packet = Packet(sender, ip_address(source), ip_address(to), protocol, port, interface)
    return Interpreter(what).run(packet)


def reached(result: Result) -> set[str]:
    return {str(d.address) for d in result.deliveries}


def masqueraded(result: Result) -> bool:
    """Whether the source is translated: the same for all deliveries here."""
    (one,) = {d.masqueraded for d in result.deliveries}
    return one


@pytest.mark.parametrize(("to", "port"), EVERY)
@pytest.mark.parametrize("source", [POD, OTHER_POD, OUTSIDE, NODE_PORT])
def test_every_frontend_reaches_all_endpoints(source: str, to: str, port: int) -> None:
    assert reached(send(program(WEB), source, to, port)) == {"10.244.1.7", "10.244.2.8"}


def test_cluster_ip_translates_the_source_of_clients_outside_the_cluster() -> None:
    web = program(WEB)
    assert not masqueraded(send(web, POD, CLUSTER_IP, 80))
    assert not masqueraded(send(web, OTHER_POD, CLUSTER_IP, 80))
    assert masqueraded(send(web, OUTSIDE, CLUSTER_IP, 80))
    assert masqueraded(send(web, NODE_PORT, CLUSTER_IP, 80))


@pytest.mark.parametrize(("to", "port"), OUTER)
def test_external_traffic_with_policy_cluster_is_masqueraded(to: str, port: int) -> None:
    for source in (POD, OTHER_POD, OUTSIDE, NODE_PORT):
        assert masqueraded(send(program(WEB), source, to, port))


def test_masquerade_all_is_for_cluster_ips() -> None:
    web = program(WEB, node=replace(NODE, masquerade_all=True))
    assert masqueraded(send(web, POD, CLUSTER_IP, 80))
    local = program(replace(WEB, external_local=True), node=replace(NODE, masquerade_all=True))
    assert not masqueraded(send(local, OUTSIDE, NODE_PORT, 30080))


def test_an_endpoint_that_reaches_itself_is_masqueraded() -> None:
    result = send(program(WEB), "10.244.1.7", CLUSTER_IP, 80, sender=Sender.POD)
    assert {str(d.address): d.masqueraded for d in result.deliveries} == {
        "10.244.1.7": True,
        "10.244.2.8": False,
    }


# --- external traffic policy Local ---


@pytest.mark.parametrize(("to", "port"), OUTER)
@pytest.mark.parametrize("internal", [False, True])
def test_external_local(to: str, port: int, internal: bool) -> None:
    web = program(replace(WEB, external_local=True, internal_local=internal))
    outside = send(web, OUTSIDE, to, port)
    assert (reached(outside), masqueraded(outside)) == ({"10.244.1.7"}, False)
    for pod in (POD, OTHER_POD):
        short = send(web, pod, to, port)
        assert (reached(short), masqueraded(short)) == ({"10.244.1.7", "10.244.2.8"}, False)
    node = send(web, NODE_PORT, to, port)
    assert (reached(node), masqueraded(node)) == ({"10.244.1.7", "10.244.2.8"}, True)


@pytest.mark.parametrize(("to", "port"), OUTER)
def test_external_local_with_nothing_local_drops_outside_clients(to: str, port: int) -> None:
    web = program(replace(WEB, external_local=True, endpoints=(THERE,)))
    assert send(web, OUTSIDE, to, port).refusal is Refusal.DROP
    assert reached(send(web, POD, to, port)) == {"10.244.2.8"}


def test_internal_local() -> None:
    web = program(replace(WEB, internal_local=True))
    assert reached(send(web, POD, CLUSTER_IP, 80)) == {"10.244.1.7"}
    none = program(replace(WEB, internal_local=True, endpoints=(THERE,)))
    assert send(none, POD, CLUSTER_IP, 80).refusal is Refusal.DROP
    assert reached(send(none, OUTSIDE, NODE_PORT, 30080)) == {"10.244.2.8"}


# --- no endpoints, terminating endpoints ---


@pytest.mark.parametrize(("to", "port"), EVERY)
@pytest.mark.parametrize("local", [False, True])
def test_no_endpoints_is_refused_at_once(to: str, port: int, local: bool) -> None:
    web = replace(WEB, endpoints=(HERE._replace(ready=False, serving=False),), external_local=local)
    admin = replace(WEB, port_name="admin", port=81, node_port=30081, endpoints=(THIRD,))
    both = program(web, admin)
    for source in (POD, OUTSIDE, NODE_PORT):
        assert send(both, source, to, port).refusal is Refusal.REJECT
        assert reached(send(both, source, to, port + 1)) == {"10.244.3.9"}


def test_serving_terminating_endpoints_only_where_none_is_ready() -> None:
    going = HERE._replace(ready=False, serving=True, terminating=True)
    assert reached(send(program(replace(WEB, endpoints=(going, THERE))), POD, CLUSTER_IP, 80)) == {
        "10.244.2.8"
    }
    alone = replace(WEB, endpoints=(going, THERE._replace(ready=False, serving=False)))
    assert reached(send(program(alone), POD, CLUSTER_IP, 80)) == {"10.244.1.7"}


def test_terminating_is_decided_for_local_endpoints_apart() -> None:
    going = HERE._replace(ready=False, serving=True, terminating=True)
    web = program(replace(WEB, external_local=True, internal_local=True, endpoints=(going, THERE)))
    assert reached(send(web, OUTSIDE, NODE_PORT, 30080)) == {"10.244.1.7"}
    assert reached(send(web, POD, CLUSTER_IP, 80)) == {"10.244.1.7"}
    assert reached(send(web, POD, NODE_PORT, 30080)) == {"10.244.2.8"}


# --- topology hints ---


def hinted(endpoint: EndpointFact, *zones: str, nodes: tuple[str, ...] = ()) -> EndpointFact:
    return endpoint._replace(zone_hints=frozenset(zones), node_hints=frozenset(nodes))


@pytest.mark.parametrize(
    ("endpoints", "zone", "expected"),
    [
        ((hinted(HERE, "b"), hinted(THERE, "a", "b")), "a", {"10.244.2.8"}),
        ((hinted(HERE, "b"), THERE), "a", {"10.244.1.7", "10.244.2.8"}),
        ((hinted(HERE, "b"), hinted(THERE, "c")), "a", {"10.244.1.7", "10.244.2.8"}),
        ((hinted(HERE, "b"), hinted(THERE, "a")), "", {"10.244.1.7", "10.244.2.8"}),
        ((hinted(HERE, "b"), hinted(THERE, "a"), THIRD._replace(ready=False)), "a", {"10.244.2.8"}),
        (
            (hinted(HERE, "b", nodes=("there",)), hinted(THERE, "b", nodes=("here",))),
            "b",
            {"10.244.2.8"},
        ),
        (
            (hinted(HERE, "b", nodes=("x",)), hinted(THERE, "a", nodes=("y",))),
            "a",
            {"10.244.2.8"},
        ),
    ],
    ids=["zone", "one-without", "none-matches", "no-zone-label", "unready-ignored", "node", "node-else-zone"],
)
def test_hints(endpoints: tuple[EndpointFact, ...], zone: str, expected: set[str]) -> None:
    web = program(replace(WEB, endpoints=endpoints), node=replace(NODE, zone=zone))
    assert reached(send(web, POD, CLUSTER_IP, 80)) == expected
    assert reached(send(web, OUTSIDE, NODE_PORT, 30080)) == expected


def test_hints_do_not_hold_for_local_policies() -> None:
    endpoints = (hinted(HERE, "b"), hinted(THERE, "a"))
    web = program(replace(WEB, endpoints=endpoints, external_local=True, internal_local=True))
    assert reached(send(web, OUTSIDE, NODE_PORT, 30080)) == {"10.244.1.7"}
    assert reached(send(web, POD, CLUSTER_IP, 80)) == {"10.244.1.7"}


# --- load-balancer source ranges ---


def test_source_ranges_guard_balancer_ips_only() -> None:
    web = program(replace(WEB, source_ranges=(ip_network("192.0.2.64/26"),)))
    assert reached(send(web, OUTSIDE, BALANCER_IP, 80))
    for source in (POD, OTHER_POD, NODE_PORT, "198.51.100.99"):
        assert send(web, source, BALANCER_IP, 80).refusal is Refusal.DROP
        assert reached(send(web, source, EXTERNAL_IP, 80))
        assert reached(send(web, source, NODE_PORT, 30080))


def test_source_ranges_with_the_node_admit_what_it_sends_from_the_address_itself() -> None:
    near = program(replace(WEB, source_ranges=(ip_network("192.0.2.0/26"),)))
    assert reached(send(near, BALANCER_IP, BALANCER_IP, 80, sender=Sender.NODE))
    far = program(replace(WEB, source_ranges=(ip_network("192.0.2.64/26"),)))
    assert send(far, BALANCER_IP, BALANCER_IP, 80, sender=Sender.NODE).refusal is Refusal.DROP


# --- who is of the cluster ---


def test_without_a_detector_pods_are_no_special_clients() -> None:
    web = program(replace(WEB, external_local=True), node=replace(NODE, detector=None))
    assert not masqueraded(send(web, OUTSIDE, CLUSTER_IP, 80))
    assert reached(send(web, POD, NODE_PORT, 30080)) == {"10.244.1.7"}
    node = send(web, NODE_PORT, NODE_PORT, 30080)
    assert (reached(node), masqueraded(node)) == ({"10.244.1.7", "10.244.2.8"}, True)


@pytest.mark.parametrize(
    ("detector", "inside", "outside"),
    [
        (FromInterface("cni0", prefix=False), "cni0", "cni01"),
        (FromInterface("veth", prefix=True), "veth12", "eth0"),
    ],
)
def test_detection_by_interface(detector: Detector, inside: str, outside: str) -> None:
    web = program(WEB, node=replace(NODE, detector=detector))
    assert not masqueraded(send(web, OUTSIDE, CLUSTER_IP, 80, interface=inside))
    assert masqueraded(send(web, POD, CLUSTER_IP, 80, interface=outside))


def test_a_detector_of_one_family_leaves_the_other_without() -> None:
    web = replace(
        WEB,
        family=Family.IPV6,
        cluster_ips=(ip_address("fd00:96::1"),),
        external_ips=(),
        balancer_ips=(),
        endpoints=(EndpointFact(ip_address("fd00:244::7"), 8080, "here"),),
    )
    assert not masqueraded(send(program(web), "2001:db8::77", "fd00:96::1", 80))


# --- addresses without a port, NodePort addresses ---


def test_what_a_cluster_ip_does_not_define_is_rejected() -> None:
    web = program(WEB)
    for port, protocol in ((81, Protocol.TCP), (80, Protocol.UDP), (80, Protocol.SCTP), (0, None)):
        assert send(web, POD, CLUSTER_IP, port, protocol=protocol).refusal is Refusal.REJECT
        assert reached(send(web, POD, EXTERNAL_IP, port, protocol=protocol)) == {EXTERNAL_IP}


def test_unallocated_service_addresses_drop() -> None:
    facts = Facts(
        replace(NODE, service_networks=(ip_network("10.96.0.0/24"),)), (WEB,), (), (ip_address("10.96.0.20"),)
    )
    what = run_passes(lower(facts))
    assert send(what, POD, "10.96.0.11", 80).refusal is Refusal.DROP
    assert send(what, POD, "10.96.0.10", 81).refusal is Refusal.REJECT
    assert reached(send(what, POD, "10.96.0.20", 80)) == {"10.96.0.20"}, (
        "another proxy's address is left alone"
    )


def test_node_port_addresses_can_be_restricted() -> None:
    node = replace(NODE, nodeport_networks=(ip_network("198.51.100.0/24"),))
    assert reached(send(program(WEB, node=node), OUTSIDE, NODE_PORT, 30080)) == {NODE_PORT}


def test_localhost_node_ports_are_an_option() -> None:
    off, on = program(WEB), program(WEB, node=replace(NODE, localhost_nodeports=True))
    me = "127.0.0.1"
    assert reached(send(off, me, me, 30080, sender=Sender.NODE)) == {me}
    local = send(on, me, me, 30080, sender=Sender.NODE)
    assert (reached(local), masqueraded(local)) == ({"10.244.1.7", "10.244.2.8"}, True)


def test_health_check_port_is_let_in() -> None:
    (admission,) = program(replace(WEB, health_check_node_port=32000)).admissions
    assert (admission.protocol, admission.port) == (Protocol.TCP, 32000)


# --- the program as a whole ---


def test_a_node_without_name_hosts_every_pod() -> None:
    web = program(replace(WEB, external_local=True), node=replace(NODE, name=None))
    assert reached(send(web, OUTSIDE, NODE_PORT, 30080)) == {"10.244.1.7", "10.244.2.8"}


def test_all_frontends_of_a_service_share_a_balancer() -> None:
    assert [b.name for b in program(WEB).balancers] == ["shop/web:http external#4"]


def test_affinity_is_one_memory_for_all_frontends_of_a_service_port() -> None:
    what = program(replace(WEB, affinity=600, external_local=True))
    assert {b.affinity.key for b in what.balancers if b.affinity} == {"shop/web:http#4"}
    assert len(what.balancers) == 2


def test_two_services_with_one_address_and_port_are_an_error() -> None:
    other = replace(WEB, service="www", cluster_ips=(ip_address("10.96.0.11"),), balancer_ips=())
    with pytest.raises(InputError) as caught:
        program(WEB, other)
    shown = [str(d) for d in caught.value.diagnostics]
    assert len(shown) == 2, "the external IP and the node port"
    assert all(s.startswith("shop.yaml:1: service port shop/www:http claims ") for s in shown)


def test_an_address_that_a_service_lists_twice_is_one_frontend() -> None:
    what = program(replace(WEB, balancer_ips=WEB.external_ips, source_ranges=(ip_network("192.0.2.64/26"),)))
    (frontend,) = [f for f in what.frontends if f.address == WEB.external_ips[0]]
    assert (frontend.exposure, frontend.sources) == (Exposure.EXTERNAL_IP, None)


@pytest.mark.parametrize(("tracked", "refused"), [(Tracked.INVALID, True), (Tracked.ESTABLISHED, False)])
def test_invalid_packets_would_leave_untranslated(tracked: Tracked, refused: bool) -> None:
    packet = Packet(Sender.POD, ip_address(POD), ip_address(OTHER_POD), Protocol.TCP, 80, tracked=tracked)
    assert (Interpreter(program(WEB)).run(packet).refusal is Refusal.DROP) is refused
    liberal = Interpreter(program(WEB, node=replace(NODE, drop_invalid=False)))
    assert liberal.run(packet).refusal is None
