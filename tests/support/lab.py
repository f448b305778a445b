"""Lab clusters for tests, and the one that a test process shares.

`shared_cluster` is built once per process and given clean to every test that asks for it.
"""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from k8snetc.ir.types import Protocol
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.topology import Client, Node, Pod, Port, Topology

TCP, UDP, SCTP = Protocol.TCP, Protocol.UDP, Protocol.SCTP
PORTS = (Port(TCP, 8080), Port(TCP, 8081), Port(UDP, 5353), Port(SCTP, 9999))


def node(number: int, *, ports: tuple[Port, ...] = ()) -> Node:
    """Node `w1`, `w2`... at 172.18.0.N and fd18::N, with pods in 10.244.N.0/24 and fd44:N::/64."""
    return Node(
        f"w{number}",
        (ip_address(f"172.18.0.{number}"), ip_address(f"fd18::{number}")),
        (ip_network(f"10.244.{number}.0/24"), ip_network(f"fd44:{number}::/64")),
        ports,
    )


def pod(
    name: str, number: int, host: int, *, namespace: str = "shop", ports: tuple[Port, ...] = PORTS
) -> Pod:
    """A pod on node `w<number>` at 10.244.<number>.<host> and fd44:<number>::<host>."""
    addresses = (ip_address(f"10.244.{number}.{host}"), ip_address(f"fd44:{number}::{host}"))
    return Pod(namespace, name, f"w{number}", addresses, ports)


def client(name: str = "out", *, host: int = 9, gateway: str = "") -> Client:
    """An outside client with two addresses per family, the first 203.0.113.<host> and 2001:db8::<host>."""
    addresses = (f"203.0.113.{host}", f"198.51.100.{host}", f"2001:db8::{host}", f"2001:db8:1::{host}")
    return Client(name, tuple(ip_address(a) for a in addresses), gateway, (Port(TCP, 8080), Port(UDP, 5353)))


def small() -> Topology:
    """Two nodes, five pods (one on the host network), one outside client.

    a, b: shop on w1; c: shop on w2; d: back on w2; h: host network of w2, serving 7070/tcp and 7071/udp.
    """
    return Topology(
        (node(1, ports=(Port(TCP, 10250),)), node(2)),
        (
            pod("a", 1, 2),
            pod("b", 1, 3),
            pod("c", 2, 2),
            pod("d", 2, 3, namespace="back"),
            Pod("shop", "h", "w2", ports=(Port(TCP, 7070), Port(UDP, 7071)), host_network=True),
        ),
        (client(),),
    )


@pytest.fixture(scope="session")
def _cluster_of_this_process() -> Iterator[Cluster]:
    with Cluster(small()) as cluster:
        yield cluster


@pytest.fixture
def shared_cluster(_cluster_of_this_process: Cluster) -> Iterator[Cluster]:
    """The cluster `small()`, without any rules. What a test puts into its nodes is flushed after it."""
    yield _cluster_of_this_process
    _cluster_of_this_process.reset()
