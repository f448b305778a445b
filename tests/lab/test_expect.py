"""What the programs of all the nodes on the way say, and that the lab notices when the kernel does otherwise."""

from ipaddress import ip_address, ip_network
from itertools import product

import pytest

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
    Program,
    Protocol,
    Refusal,
    Route,
    SourceIn,
    Who,
)
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.expect import Arrival, Expected, Predictor, compare
from k8snetc.lab.probe import Outcome, Probe, ProbeResult, Seen
from tests.support.lab import TCP, UDP, small

SERVICE = ip_address("10.96.0.1")
B, C, D = (ip_address(a) for a in ("10.244.1.3", "10.244.2.2", "10.244.2.3"))
W1, W2 = ip_address("172.18.0.1"), ip_address("172.18.0.2")


def program(name: str, *frontends: Frontend, enforcements: tuple[Enforcement, ...] = ()) -> Program:
    number = int(name[1:])
    return Program(
        node=Node(
            name,
            addresses=(ip_address(f"172.18.0.{number}"),),
            detector=SourceIn((ip_network("10.244.0.0/16"),)),
        ),
        balancers=(
            Balancer("web", Family.IPV4, TCP, (Endpoint(B, 8080), Endpoint(C, 8080))),
            Balancer("d", Family.IPV4, TCP, (Endpoint(D, 8080),)),
        ),
        frontends=frontends,
        enforcements=enforcements,
    )


WEB = Frontend(
    Exposure.CLUSTER_IP,
    Family.IPV4,
    SERVICE,
    TCP,
    80,
    (Route(Who.CLUSTER, Balance("web")), Route(Who.ANY, Balance("web", masquerade=True))),
)
PORT = Frontend(
    Exposure.NODE_PORT, Family.IPV4, None, TCP, 30080, (Route(Who.ANY, Balance("d", masquerade=True)),)
)
REFUSED = Frontend(Exposure.CLUSTER_IP, Family.IPV4, SERVICE, TCP, 81, (Route(Who.ANY, Refusal.REJECT),))
DROPPED = Frontend(Exposure.CLUSTER_IP, Family.IPV4, SERVICE, TCP, 82, (Route(Who.ANY, Refusal.DROP),))
SHUT = Enforcement("shut", Family.IPV4, Direction.INGRESS, (D,))


def predict(client: str, destination: str, port: int, protocol: Protocol | None = TCP) -> Expected:
    programs = {
        "w1": program("w1", WEB, PORT, REFUSED, DROPPED),
        "w2": program("w2", WEB, enforcements=(SHUT,)),
    }
    return Predictor(small(), programs).predict(Probe(client, ip_address(destination), protocol, port))


def arrival(server: str, address: str, source: str, port: int = 8080) -> Arrival:
    return Arrival(server, Seen(ip_address(address), port), ip_address(source))


def test_a_balancer_may_choose_any_endpoint() -> None:
    assert predict("pod/shop/a", "10.96.0.1", 80).arrivals == {
        arrival("pod/shop/b", "10.244.1.3", "10.244.1.2"),
        arrival("pod/shop/c", "10.244.2.2", "10.244.1.2"),
    }


def test_hairpin_and_outside_clients_are_masqueraded() -> None:
    assert (
        arrival("pod/shop/b", "10.244.1.3", "172.18.0.1") in predict("pod/shop/b", "10.96.0.1", 80).arrivals
    )
    outside = predict("client/out", "10.96.0.1", 80)
    assert {a.source for a in outside.arrivals} == {W1}
    assert {a.source for a in predict("node/w2", "10.96.0.1", 80).arrivals} == {W2}
    assert {a.source for a in predict("pod/shop/h", "10.96.0.1", 80).arrivals} == {W2}


def test_a_pod_that_is_its_own_endpoint_may_stay_inside_where_sockets_are_balanced() -> None:
    probe = Probe("pod/shop/b", SERVICE, TCP, 80)
    programs = {"w1": program("w1", WEB)}
    inside = arrival("pod/shop/b", "10.244.1.3", "10.244.1.3")
    there = Predictor(small(), programs, at_sockets=True).predict(probe).arrivals
    assert there == Predictor(small(), programs).predict(probe).arrivals | {inside}
    other = Probe("pod/shop/a", SERVICE, TCP, 80)
    assert Predictor(small(), programs, at_sockets=True).predict(other) == Predictor(
        small(), programs
    ).predict(other)


def test_the_second_node_judges_what_the_first_one_sends() -> None:
    through = predict("client/out", "172.18.0.1", 30080)
    assert through.arrivals == frozenset()
    assert through.outcomes == {Outcome.TIMEOUT}
    assert any(s.startswith("w1: frontend node-port") for s in through.steps)
    assert any(s.startswith("w2: ingress denied") for s in through.steps)
    assert predict("node/w2", "10.244.2.3", 8080).arrivals, "a node reaches its own pods"


def test_an_answer_that_passes_by_the_translating_node_does_not_count() -> None:
    """A pod of w1 asks the NodePort of w2, which sends it back to w1 untranslated, as kube-proxy does."""
    kept = Frontend(Exposure.NODE_PORT, Family.IPV4, None, TCP, 30080, (Route(Who.ANY, Balance("web")),))
    predictor = Predictor(small(), {"w2": program("w2", kept)})
    expected = predictor.predict(Probe("pod/shop/a", W2, TCP, 30080))
    assert expected.arrivals == {arrival("pod/shop/c", "10.244.2.2", "10.244.1.2")}
    assert expected.outcomes == {Outcome.TIMEOUT}
    assert any("past w2" in s for s in expected.steps)
    outside = predictor.predict(Probe("client/out", W2, TCP, 30080))
    assert outside.arrivals == {arrival("pod/shop/c", "10.244.2.2", "203.0.113.9")}
    assert outside.outcomes == {Outcome.TIMEOUT}


def test_refusals_closed_ports_and_addresses_of_nobody() -> None:
    assert predict("pod/shop/a", "10.96.0.1", 81) == Expected(
        outcomes=frozenset({Outcome.REFUSED}), steps=predict("pod/shop/a", "10.96.0.1", 81).steps
    )
    assert predict("pod/shop/a", "10.96.0.1", 82).outcomes == {Outcome.TIMEOUT}
    assert predict("pod/shop/a", "10.96.0.1", 83).outcomes == {Outcome.TIMEOUT}
    assert predict("pod/shop/a", "10.244.2.2", 1).outcomes == {Outcome.REFUSED}
    assert predict("pod/shop/a", "172.18.0.2", 7070).arrivals == {
        arrival("pod/shop/h", "172.18.0.2", "10.244.1.2", 7070)
    }
    assert predict("node/w1", "127.0.0.1", 10250).arrivals == {
        arrival("node/w1", "127.0.0.1", "127.0.0.1", 10250)
    }


def test_a_result_is_allowed_only_as_a_whole() -> None:
    expected = predict("pod/shop/a", "10.96.0.1", 80)
    seen = Seen(ip_address("10.244.1.2"), 4242)
    good = ProbeResult(Outcome.ANSWERED, "pod/shop/c", Seen(C, 8080), seen)
    assert expected.allows(good)
    for bad in (
        ProbeResult(Outcome.TIMEOUT),
        ProbeResult(Outcome.ANSWERED, "pod/back/d", Seen(D, 8080), seen),
        ProbeResult(Outcome.ANSWERED, "pod/shop/c", Seen(C, 8081), seen),
        ProbeResult(Outcome.ANSWERED, "pod/shop/c", Seen(C, 8080), Seen(W1, 4242)),
    ):
        assert not expected.allows(bad)


def everything(cluster: Cluster) -> list[Probe]:
    topology = cluster.topology
    ports = ((TCP, 8080), (TCP, 7070), (UDP, 5353), (Protocol.SCTP, 9999), (TCP, 10250), (None, 0))
    return [
        Probe(client, address, protocol, port)
        for client, address, (protocol, port) in product(topology.places, topology.owners, ports)
    ]


@pytest.mark.kernel
def test_without_programs_the_kernel_does_what_is_predicted(shared_cluster: Cluster) -> None:
    probes = everything(shared_cluster)
    assert len(probes) > 500
    mismatches = compare(shared_cluster, {}, probes)
    assert not mismatches, "\n".join(map(str, mismatches[:20]))


@pytest.mark.kernel
def test_a_rule_that_no_program_asks_for_is_noticed(shared_cluster: Cluster) -> None:
    shared_cluster.run(
        "node/w2", ["iptables", "-A", "FORWARD", "-p", "udp", "-d", "10.244.2.2", "-j", "REJECT"]
    )
    shared_cluster.run(
        "node/w1", ["iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "10.244.1.2", "-j", "MASQUERADE"]
    )
    probes = [
        Probe("pod/shop/b", C, UDP, 5353),
        Probe("pod/shop/b", C, TCP, 8080),
        Probe("pod/shop/a", C, TCP, 8080),
    ]
    wrong = compare(shared_cluster, {}, probes)
    assert [(m.probe, m.result.outcome) for m in wrong] == [
        (probes[0], Outcome.REFUSED),
        (probes[2], Outcome.ANSWERED),
    ]
    assert "expected answered by pod/shop/c at 10.244.2.2:8080 seeing 10.244.1.2" in str(wrong[1])
    assert "was answered by pod/shop/c at 10.244.2.2:8080, saw 172.18.0.1" in str(wrong[1])
