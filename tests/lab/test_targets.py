"""What a lab tries, and the questions it understands."""

from ipaddress import ip_address
from itertools import count

import pytest

from k8snetc.ir.types import (
    Balance,
    Balancer,
    Endpoint,
    Exposure,
    Family,
    Frontend,
    Program,
    Protocol,
    Route,
    Who,
)
from k8snetc.lab.targets import QuestionError, Target, ask, clients, ports, probes, services, thinned
from k8snetc.lab.topology import Topology
from tests.support.lab import SCTP, TCP, UDP, client, node, pod, small

WEB = ip_address("10.96.0.1")
TO_A = (Route(Who.ANY, Balance("b")),)
PROGRAM = Program(
    balancers=(Balancer("b", Family.IPV4, TCP, (Endpoint(ip_address("10.244.1.2"), 8080),)),),
    frontends=(
        Frontend(Exposure.CLUSTER_IP, Family.IPV4, WEB, TCP, 80, TO_A, service="shop/web:http"),
        Frontend(Exposure.CLUSTER_IP, Family.IPV4, WEB, UDP, 80, TO_A, service="shop/web:quic"),
        Frontend(Exposure.NODE_PORT, Family.IPV4, None, TCP, 30080, TO_A, service="shop/web:http"),
        Frontend(
            Exposure.CLUSTER_IP, Family.IPV4, ip_address("10.96.0.2"), TCP, 5432, TO_A, service="shop/db"
        ),
    ),
)
PROGRAMS = {"w1": PROGRAM, "w2": PROGRAM}


def tried(question: str) -> list[str]:
    return [str(t) for t in ask(small(), PROGRAMS, question)[1]]


def test_every_service_address_is_a_target_once() -> None:
    assert [(t.name, str(t)) for t in services(small(), PROGRAMS)] == [
        ("shop/db", "10.96.0.2:5432/tcp"),
        ("shop/web:http", "10.96.0.1:80/tcp"),
        ("shop/web:http", "172.18.0.1:30080/tcp"),
        ("shop/web:http", "172.18.0.2:30080/tcp"),
        ("shop/web:quic", "10.96.0.1:80/udp"),
    ]


def test_ports_of_pods_are_targets_too() -> None:
    found = {str(t) for t in ports(small())}
    assert {"10.244.1.2:8080/tcp", "[fd44:2::2]:9999/sctp", "172.18.0.2:7071/udp"} <= found


def test_clients_are_all_but_the_servers_outside() -> None:
    topology = Topology((node(1),), (pod("a", 1, 2),), (client(), client("db", host=11)))
    assert clients(topology) == ["node/w1", "pod/shop/a"], "both clients of this topology serve"


def test_an_outside_client_tries_from_each_of_its_addresses() -> None:
    target = Target("x", WEB, TCP, 80)
    assert [str(p.source) for p in probes(small(), "client/out", target, 0.4)] == [
        "203.0.113.9",
        "198.51.100.9",
    ]
    assert [p.source for p in probes(small(), "pod/shop/a", target, 0.4)] == [None]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("from pod/shop/a to svc/shop/web:80/tcp", ["10.96.0.1:80/tcp"]),
        (
            "from pod/shop/a to svc/shop/web:http",
            ["10.96.0.1:80/tcp", "172.18.0.1:30080/tcp", "172.18.0.2:30080/tcp"],
        ),
        ("pod/shop/a to svc/shop/web:80", ["10.96.0.1:80/tcp", "10.96.0.1:80/udp"]),
        ("from node/w1 to svc/shop/db:5432", ["10.96.0.2:5432/tcp"]),
        ("from node/w1 to svc/shop/db/icmp", ["10.96.0.2/icmp"]),
        ("from client/out to pod/shop/c:9999/sctp", ["10.244.2.2:9999/sctp", "[fd44:2::2]:9999/sctp"]),
        ("from client/out to node/w2:22", ["172.18.0.2:22/tcp", "[fd18::2]:22/tcp"]),
        ("from client/out to 192.0.2.1:53/udp", ["192.0.2.1:53/udp"]),
        ("from client/out to [2001:db8::1]:53/udp", ["[2001:db8::1]:53/udp"]),
        ("from client/out to [2001:db8::1]/icmp", ["[2001:db8::1]/icmp"]),
    ],
)
def test_questions(question: str, answer: list[str]) -> None:
    assert tried(question) == answer


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("pod/shop/a", "write it as 'from"),
        ("from pod/shop/zz to svc/shop/web:80", "did you mean pod/shop/"),
        ("from pod/shop/a to svc/shop/wep:80", "did you mean svc/shop/web"),
        ("from pod/shop/a to svc/shop/web:81", "it has 30080/tcp, 80/tcp, 80/udp"),
        ("from pod/shop/a to pod/shop/c", "needs a port"),
        ("from pod/shop/a to pod/shop/c:99999", "needs a port"),
        ("from pod/shop/a to nowhere:80", "is not in this lab"),
        ("from pod/shop/a to svc/shop/web:80/gre", "write svc/NAMESPACE/NAME:PORT"),
    ],
)
def test_questions_that_can_not_be_answered(question: str, words: str) -> None:
    with pytest.raises(QuestionError, match=words):
        tried(question)


def test_too_many_clients_are_thinned_evenly() -> None:
    number = count(2)
    pods = tuple(pod(f"p{i}", 1 + i % 2, next(number)) for i in range(40))
    topology = Topology((node(1), node(2)), pods, (client(),))
    everybody = [p.place for p in topology.all]
    few = thinned(topology, everybody, 11)
    assert {"node/w1", "node/w2", "client/out"} <= set(few)
    assert [topology.node_of(p) for p in few if p.startswith("pod/")].count("w1") == 4
    assert len(few) == 11
    assert thinned(topology, everybody, 100) == everybody


def test_targets_say_their_protocol() -> None:
    assert {p: str(Target("", WEB, p, 1)) for p in (TCP, UDP, SCTP, None)} == {
        Protocol.TCP: "10.96.0.1:1/tcp",
        Protocol.UDP: "10.96.0.1:1/udp",
        Protocol.SCTP: "10.96.0.1:1/sctp",
        None: "10.96.0.1/icmp",
    }
