"""What a TCP connect costs, without rules, with rules, and through a service: shared by the back ends' benchmarks.

Knows: a two-node lab, a program of any size, and how connects are timed. Must not know: any back end.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_address, ip_network

from k8snetc.ir.passes import run_passes
from k8snetc.ir.types import (
    Balance,
    Balancer,
    Endpoint,
    Exposure,
    Family,
    Frontend,
    Node,
    Origin,
    Program,
    Protocol,
    Route,
    SourceIn,
    Who,
)
from k8snetc.lab import topology as lab
from k8snetc.lab.cluster import Cluster

CLIENT, SERVER = "pod/bench/client", "pod/bench/server"
SERVER_ADDRESS = "10.2.0.2"
FIRST_PORT = 8080
CONNECTS = 2000
_SERVICES, _PODS = int(IPv4Address("10.96.0.1")), int(IPv4Address("10.128.0.0"))

Place = tuple[str, int]

# Accepts and closes on every port between its two arguments; prints a line when it listens.
_ACCEPT = """
import os, select, socket, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
poll, socks = select.epoll(), {}
for port in range(int(sys.argv[1]), int(sys.argv[2])):
    sock = socket.create_server(("0.0.0.0", port), backlog=1024)
    socks[sock.fileno()] = sock
    poll.register(sock, select.EPOLLIN)
print("ready", flush=True)
while True:
    for fd, _ in poll.poll():
        socks[fd].accept()[0].close()
"""


def topology() -> lab.Topology:
    """A client pod on one node, a server pod on the other."""
    nodes = tuple(
        lab.Node(f"n{i}", (ip_address(f"192.0.2.{i}"),), (ip_network(f"10.{i}.0.0/16"),)) for i in (1, 2)
    )
    pods = (
        lab.Pod("bench", "client", "n1", (ip_address("10.1.0.2"),)),
        lab.Pod("bench", "server", "n2", (ip_address(SERVER_ADDRESS),)),
    )
    return lab.Topology(nodes, pods)


def program(services: int, endpoints: int, *, changed: bool = False) -> Program:
    """That many ClusterIPs; the endpoints of the first and the last are ports of the server, all others are nowhere.

    `changed`: one endpoint of the service in the middle is another one.
    """
    balancers, frontends = [], []
    for i in range(services):
        name = f"team-{i // 50:03}/service-{i:05}"
        origin = Origin("cluster.json", i + 1, "Service", *name.split("/"))
        if i in {0, services - 1}:
            ends = [Endpoint(ip_address(SERVER_ADDRESS), FIRST_PORT + k) for k in range(endpoints)]
        else:
            ends = [Endpoint(IPv4Address(_PODS + i * endpoints + k), 8080) for k in range(endpoints)]
        if changed and i == services // 2:
            ends[-1] = Endpoint(IPv4Address("10.255.255.1"), 8080)
        balancers.append(Balancer(name, Family.IPV4, Protocol.TCP, tuple(ends), origin=origin))
        routes = (Route(Who.CLUSTER, Balance(name)), Route(Who.ANY, Balance(name, masquerade=True)))
        frontends.append(
            Frontend(
                Exposure.CLUSTER_IP,
                Family.IPV4,
                service_address(i),
                Protocol.TCP,
                80,
                routes,
                None,
                name,
                origin,
            )
        )
    node = Node(
        "n1", (Family.IPV4,), (ip_address("192.0.2.1"),), detector=SourceIn((ip_network("10.0.0.0/8"),))
    )
    return run_passes(Program(node, tuple(balancers), tuple(frontends)))


def service_address(number: int) -> IPv4Address:
    """The ClusterIP of a service of `program`."""
    return IPv4Address(_SERVICES + number)


@contextmanager
def serving(cluster: Cluster, endpoints: int) -> Iterator[None]:
    """While the server pod accepts on all ports of the first and last service."""
    words = [sys.executable, "-c", _ACCEPT, str(FIRST_PORT), str(FIRST_PORT + endpoints)]
    server = cluster.popen(SERVER, words)
    try:
        assert server.stdout is not None
        if server.stdout.readline() != "ready\n":
            raise RuntimeError(f"the server did not start: {server.communicate()[1]}")
        yield
    finally:
        server.kill()
        server.communicate()


def medians(cluster: Cluster, targets: Sequence[Place], connects: int = CONNECTS) -> list[float]:
    """Median microseconds of a connect to each target from the client pod; targets take turns."""
    return cluster.call(CLIENT, connect_times, list(targets), connects)


def report(cluster: Cluster, services: int, bare: float) -> tuple[float, float, float]:
    """Measure with the rules in place, and print against `bare`, a direct connect without any.

    Returns microseconds of a direct connect past the rules, and of one to the first and to the last service.
    """
    names = ("direct, with all rules", "first service", "last service")
    targets = [
        (SERVER_ADDRESS, FIRST_PORT),
        (str(service_address(0)), 80),
        (str(service_address(services - 1)), 80),
    ]
    print(f"    {'direct, without rules':24} {bare:6.1f} us")
    found = medians(cluster, targets)
    for name, median in zip(names, found, strict=True):
        print(
            f"    {name:24} {median:6.1f} us, {median / bare:.2f} x without rules, {median / found[0]:.2f} x direct"
        )
    direct, first, last = found
    return direct, first, last


def beside_the_server() -> None:
    """Run on the processor of the server from now on, where that waits for its turn (SCHED_BATCH).

    To wake another processor that sleeps costs more than all that is measured, and whether it sleeps depends on what
    was connected to just before.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def connect_times(targets: list[Place], connects: int) -> list[float]:
    """Median microseconds of a connect from here to each target; targets take turns."""
    beside_the_server()
    times: list[list[int]] = [[] for _ in targets]
    for turn in range(connects + 100):
        for at, target in enumerate(targets):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_SYNCNT, 2
            )  # what gets no answer fails in 7 seconds
            start = time.perf_counter_ns()
            sock.connect(target)
            took = time.perf_counter_ns() - start
            sock.close()
            if turn >= 100:  # what comes first warms caches
                times[at].append(took)
    return [statistics.median(t) / 1000 for t in times]
