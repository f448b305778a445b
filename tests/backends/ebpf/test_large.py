"""What is larger than a packet: streams whose segments the kernel joins (TSO, GSO), and datagrams in fragments.

With the device's offloads on, a program translates segments of up to 64 KiB whose checksums nobody has finished yet.
With them off, the kernel cuts those into packets and finishes the checksums behind the program, and the receiver
verifies them: a checksum that was not translated with its packet loses it.
"""

from __future__ import annotations

import array
import fcntl
import hashlib
import random
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from k8snetc.backends.target import InstallOptions
from k8snetc.ir.types import (
    Address,
    Balance,
    Balancer,
    Endpoint,
    Exposure,
    Family,
    Frontend,
    Program,
    Route,
    Who,
)
from k8snetc.lab.cluster import Cluster
from tests.backends.ebpf import support
from tests.support.lab import TCP, UDP

pytestmark = pytest.mark.kernel

PORT = 9000
NODE_PORTS = {"c": 30091, "a": 30092}  # by the endpoint: on another node, on this one
SERVICE = 9  # address of the service whose endpoint is c
BYTES = 4 << 20
DATAGRAMS = (1400, 1473, 4000, 65000)

# Sends back what it got: a stream when its sender has ended it, a datagram as it is.
_ECHO = """
import socket, sys, threading
port = int(sys.argv[1])
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.bind(("::", port))
def datagrams():
    while True:
        data, sender = udp.recvfrom(1 << 16)
        udp.sendto(data, sender)
threading.Thread(target=datagrams, daemon=True).start()
server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    with server.accept()[0] as sock:
        got = bytearray()
        while part := sock.recv(1 << 20): got += part
        sock.sendall(got)
"""


def echoing(program: Program) -> Program:
    """The program, with services of the echo servers."""
    balancers, frontends = list(program.balancers), list(program.frontends)
    for family in Family:
        for protocol in (TCP, UDP):
            for pod, number in NODE_PORTS.items():
                name = f"large-{pod}-{protocol}-{family}"
                end = Endpoint(support.pod(family, pod), PORT, local=pod == "a")
                balancers.append(Balancer(name, family, protocol, (end,)))
                masked = (Route(Who.ANY, Balance(name, masquerade=True)),)
                frontends.append(
                    Frontend(Exposure.NODE_PORT, family, None, protocol, number, masked, service=name)
                )
            plain = (Route(Who.ANY, Balance(f"large-c-{protocol}-{family}")),)
            address = support.service(family, SERVICE)
            frontends.append(
                Frontend(Exposure.CLUSTER_IP, family, address, protocol, 80, plain, service="large")
            )
    return replace(program, balancers=tuple(balancers), frontends=tuple(frontends))


@pytest.fixture
def served(cluster: Cluster) -> Iterator[Cluster]:
    """Echo servers in pods a and c, and the program on the node of a; every packet goes through tc."""
    cluster.call("node/w1", support.install, echoing(support.services("w1")), InstallOptions(no_cgroup=True))
    started = []
    try:
        for pod in NODE_PORTS:
            home = f"pod/shop/{pod}"
            started.append(cluster.popen(home, [sys.executable, "-c", _ECHO, str(PORT)]))
            out = started[-1].stdout
            assert out is not None
            assert out.readline() == "ready\n", started[-1].communicate()
        yield cluster
    finally:
        for one in started:
            one.kill()
            one.communicate()


def ways(family: Family) -> list[tuple[str, Address, int]]:
    """Who sends where: from outside to both endpoints, and from a pod to another node's."""
    node = support.node_address(family, 1)
    return [
        ("client/out", node, NODE_PORTS["c"]),
        ("client/out", node, NODE_PORTS["a"]),
        ("pod/shop/b", support.service(family, SERVICE), 80),
    ]


def stream(to: Address, port: int) -> bool:
    """Whether a stream came back as it was sent."""
    data = random.Random(port).randbytes(BYTES)
    with socket.create_connection((str(to), port), 30) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        back = hashlib.sha256()
        while part := sock.recv(1 << 20):
            back.update(part)
    return back.digest() == hashlib.sha256(data).digest()


def datagrams(to: Address, port: int) -> list[int]:
    """The sizes of which a datagram came back as it was sent."""
    whole = []
    with socket.socket(socket.AF_INET if to.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect((str(to), port))
        for size in DATAGRAMS:
            data = random.Random(size).randbytes(size)
            sock.send(data)
            if sock.recv(1 << 16) == data:
                whole.append(size)
    return whole


def switch(device: str, on: bool) -> None:
    """Switch a device's checksums, scattered data, TSO and GSO on or off (ETHTOOL_S* of linux/ethtool.h)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in (0x17, 0x19, 0x1F, 0x24):
            value = array.array("B", struct.pack("=II", command, on))
            fcntl.ioctl(sock, 0x8946, struct.pack("16sP", device.encode(), value.buffer_info()[0]))


def sent(device: str) -> tuple[int, int]:
    """How many packets a device has sent, and their bytes."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        counts = route.link("get", ifname=device)[0].get_attr("IFLA_STATS64")
        return counts["tx_packets"], counts["tx_bytes"]


@pytest.mark.parametrize("offloads", [True, False], ids=["offloads", "no-offloads"])
def test_streams_arrive_as_they_were_sent(served: Cluster, offloads: bool) -> None:
    if not offloads:
        served.call("node/w1", switch, "eth0", False)
    try:
        packets, size = served.call("node/w1", sent, "eth0")
        for family in Family:
            for client, to, port in ways(family):
                assert served.call(client, stream, to, port), (client, to, port)
        after, more = served.call("node/w1", sent, "eth0")
    finally:
        served.call("node/w1", switch, "eth0", True)
    # That large ones were sent, or none, is what tells the two tests apart.
    average = (more - size) / (after - packets)
    assert average > 3000 if offloads else average < 1600


@pytest.mark.parametrize("family", list(Family))
def test_datagrams_in_fragments_arrive_as_they_were_sent(served: Cluster, family: Family) -> None:
    for client, to, port in ways(family):
        assert served.call(client, datagrams, to, port) == list(DATAGRAMS), (client, to, port)
