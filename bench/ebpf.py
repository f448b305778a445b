"""The eBPF back end: tables filled and switched, connects at the cgroup hook, packets from outside next to iptables.

    python -m bench.ebpf [--services 10000] [--endpoints 10] [--rounds 5] [--sustained N]

Fill: a node that runs a small program gets the large one; the object is built before the clock starts. Connects: from
a pod's process in the node's cgroup, direct and through a service in turn, so that the ratio holds on a noisy machine;
with 10 services and with all. Outside: a client connects to a NodePort whose endpoint is on the other node (translated
and masqueraded on the way), and streams to one; a node with iptables and a node with eBPF take turns, short ones, so
that what else the machine does meets both. All ends of a connection run on one processor: what is compared is then the
work, and not how long another processor takes to wake up. Sustained: that client's connections one after the other,
each reset, more than there are ports to masquerade with.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from bench import _connects
from bench._bars import Bar, show
from k8snetc.backends.target import InstallOptions, target_for
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
from k8snetc.lab import topology as lab
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.install import install_program

FEW = 10
CONNECT_PORT, STREAM_PORT = 30080, 30081
SINK_PORT = 9000
NODE_ADDRESS = "192.0.2.1"
CLIENT = "client/out"
SECONDS = 0.5  # of a stream
STREAMS = 8  # turns of each round
CONNECTIONS = 40  # of a turn: all of them together use no more than a third of the ports that there are
TURNS = 40  # of each round
PLANES = {
    "iptables-legacy": ("iptables", InstallOptions(iptables="legacy")),
    "ebpf": ("ebpf", InstallOptions(no_cgroup=True)),
}

# Reads whatever is sent to its argument's port, one connection at a time, and answers with the number of bytes.
_SINK = """
import os, socket, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
buffer = bytearray(1 << 20)
while True:
    sock = server.accept()[0]
    total = 0
    while got := sock.recv_into(buffer): total += got
    sock.sendall(str(total).encode())
    sock.close()
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured from outside")
    parser.add_argument(
        "--sustained", type=int, default=0, help="this many connections in a row, not in turns"
    )
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("this needs root: BPF and network namespaces")
    bars = [
        *_fill_and_connect(args.services, args.endpoints),
        *_outside(args.rounds, args.sustained),
    ]
    show(bars)


# --- tables and sockets ---


def _fill_and_connect(services: int, endpoints: int) -> Iterator[Bar]:
    ratios = {}
    for count in (FEW, services):
        with (
            Cluster(_connects.topology(), with_cgroups=True) as cluster,
            _connects.serving(cluster, endpoints),
        ):
            few = _connects.program(FEW, endpoints)
            install_program(cluster, "n1", "ebpf", few)
            if count != FEW:
                yield from _fill(cluster, _connects.program(count, endpoints))
            places = [
                (_connects.SERVER_ADDRESS, _connects.FIRST_PORT),
                (str(_connects.service_address(count - 1)), 80),
            ]
            direct, last = cluster.call(
                _connects.CLIENT, _from_cgroup, str(cluster.cgroup("n1")), places, _connects.CONNECTS
            )
        ratios[count] = last / direct
        print(
            f"  {count:6} services: direct {direct:.1f} us, through the cgroup hook {last:.1f} us", flush=True
        )
        yield Bar(
            f"ebpf: connect through the cgroup hook, {count:,} services", last / direct, "x direct", 1.1
        )
    yield Bar(f"ebpf: the same, {services:,} services against {FEW}", ratios[services] / ratios[FEW], "x")


def _fill(cluster: Cluster, program: Program) -> Iterator[Bar]:
    options = InstallOptions(uplinks=("eth0",), cgroup=str(cluster.cgroup("n1")))
    timed = cluster.call("node/n1", _timed, program, options)
    for title, took in timed:
        print(f"  {took:6.3f} s {title}")
    yield Bar(
        f"ebpf: {len(program.frontends):,} services filled and switched", sum(t for _, t in timed), "s", 1
    )


def _timed(program: Program, options: InstallOptions) -> list[tuple[str, float]]:
    from k8snetc.backends.ebpf.build import build
    from k8snetc.backends.ebpf.state import State

    target = target_for("ebpf", options)
    goal = target.desired(program)
    assert isinstance(goal, State)
    build(goal.source)
    timed = []
    for step in target.steps(target.observe(), goal):
        start = time.perf_counter()
        step.run()
        timed.append((step.title, time.perf_counter() - start))
    return timed


def _from_cgroup(cgroup: str, places: list[_connects.Place], connects: int) -> list[float]:
    Path(cgroup, "cgroup.procs").write_text(str(os.getpid()), "ascii")
    return _connects.connect_times(places, connects)


# --- packets from outside ---


def _outside(rounds: int, sustained: int) -> Iterator[Bar]:
    """Microseconds a connection and seconds a gigabyte, of a client outside, to NodePorts."""
    connects: dict[str, list[float]] = {name: [] for name in PLANES}
    streams: dict[str, list[float]] = {name: [] for name in PLANES}
    with ExitStack() as stack:
        clusters = {}
        for name, (backend, options) in PLANES.items():
            cluster = stack.enter_context(Cluster(_with_client(), with_cgroups=backend == "ebpf"))
            stack.enter_context(_connects.serving(cluster, 1))
            stack.enter_context(_sink(cluster))
            install_program(cluster, "n1", backend, _node_ports(), options)
            clusters[name] = cluster
        for _ in range(rounds):
            for turn in range(TURNS):
                for name in _order(turn):
                    connects[name].append(clusters[name].call(CLIENT, _per_connection, CONNECTIONS))
            for turn in range(STREAMS):
                for name in _order(turn):
                    streams[name].append(clusters[name].call(CLIENT, _per_gigabyte, SECONDS))
        if sustained:
            took, slow = clusters["ebpf"].call(CLIENT, _in_a_row, sustained)
            print(
                f"  {sustained:,} masqueraded connections in {took:.1f} s ({sustained / took:,.0f}/s),"
                f" {slow} took more than 0.9 s",
                flush=True,
            )
    for name in PLANES:
        us, s = statistics.median(connects[name]), statistics.median(streams[name])
        print(f"  {name:>16}: {1e6 / us:8,.0f} connections/s, {8 / s:6.2f} Gbit/s from outside to a NodePort")
    for what, found in (("connections", connects), ("a TCP stream", streams)):
        pairs = [e / i for e, i in zip(found["ebpf"], found["iptables-legacy"], strict=True)]
        if len(pairs) > 1:
            low, _, high = statistics.quantiles(pairs)
            print(
                f"  {what}: half of {len(pairs)} pairs of turns between {low:.3f} and {high:.3f} x",
                flush=True,
            )
        yield Bar(f"ebpf: time for {what} from outside, against iptables", statistics.median(pairs), "x", 1)


def _order(turn: int) -> list[str]:
    """Who begins takes turns, too: what the first one leaves to the kernel to tidy up meets the second."""
    return [*PLANES] if turn % 2 else [*reversed(PLANES)]


def _with_client() -> lab.Topology:
    made = _connects.topology()
    return lab.Topology(made.nodes, made.pods, (lab.Client("out", (ip_address("198.51.100.9"),)),))


def _node_ports() -> Program:
    """Two NodePorts of the server pod, which is on the other node: one to connect to, one to stream to."""
    few = _connects.program(FEW, 1)
    made = []
    for number, port in ((CONNECT_PORT, _connects.FIRST_PORT), (STREAM_PORT, SINK_PORT)):
        name = f"bench/outside-{number}"
        end = Endpoint(ip_address(_connects.SERVER_ADDRESS), port)
        routes = (Route(Who.ANY, Balance(name, masquerade=True)),)
        made.append(
            (
                Balancer(name, Family.IPV4, Protocol.TCP, (end,)),
                Frontend(Exposure.NODE_PORT, Family.IPV4, None, Protocol.TCP, number, routes, service=name),
            )
        )
    return replace(
        few,
        balancers=(*few.balancers, *(b for b, _ in made)),
        frontends=(*few.frontends, *(f for _, f in made)),
    )


@contextmanager
def _sink(cluster: Cluster) -> Iterator[None]:
    server = cluster.popen(_connects.SERVER, [sys.executable, "-c", _SINK, str(SINK_PORT)])
    try:
        assert server.stdout is not None
        if server.stdout.readline() != "ready\n":
            raise RuntimeError(f"the sink did not start: {server.communicate()[1]}")
        yield
    finally:
        server.kill()
        server.communicate()


def _per_connection(connections: int) -> float:
    """Microseconds for each connection, one after the other."""
    _connects.beside_the_server()
    start = time.perf_counter()
    for _ in range(connections):
        socket.create_connection((NODE_ADDRESS, CONNECT_PORT), 5).close()
    return (time.perf_counter() - start) / connections * 1e6


def _in_a_row(connections: int) -> tuple[float, int]:
    """Seconds for so many connections, and how many waited for another packet. One that fails is an exception."""
    slow = 0
    start = before = time.perf_counter()
    for _ in range(connections):
        with socket.create_connection((NODE_ADDRESS, CONNECT_PORT), 5) as sock:
            # A reset, or the client itself would run out of ports: it may not use one again for a minute.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        now = time.perf_counter()
        slow += now - before > 0.9
        before = now
    return before - start, slow


def _per_gigabyte(seconds: float) -> float:
    """Seconds for each gigabyte that arrives, in one stream."""
    block = bytes(1 << 18)
    _connects.beside_the_server()
    start = time.perf_counter()
    with socket.create_connection((NODE_ADDRESS, STREAM_PORT), 5) as sock:
        while time.perf_counter() - start < seconds:
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)
        arrived = int(sock.recv(64))
        return (time.perf_counter() - start) / arrived * 1e9


if __name__ == "__main__":
    main()
