"""Rules of Services that are about many connections, about time, or about packets that no client sends.

Like test_services.py on every back end, with real packets; the rows of docs/semantics.md name these tests.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from k8snetc.backends.base import UnsupportedError
from k8snetc.ir.types import Protocol
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import DEFAULT_TIMEOUT, Outcome, Probe
from k8snetc.lab.topology import Port
from tests.semantics import dataplanes
from tests.semantics.build import programs
from tests.semantics.dataplanes import Dataplane
from tests.semantics.world import Manifest, address, place, port, service, slice_port, slices
from tests.vm.plugin import in_guest

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.parametrize("dataplane", [*dataplanes.ALL, dataplanes.IN_VM], ids=lambda d: d.name),
]

# An emulated processor answers a hundred probes in seconds.
PATIENCE = 10.0 if in_guest() else 0.9  # below a second: then TCP sends a lost SYN again
SILENCE = 3.0 if in_guest() else DEFAULT_TIMEOUT
"""Seconds for the few probes that nobody shall answer; what is answered comes in a tenth of that."""

CLUSTER_IP = "10.96.0.10,fd00:96::10"
THREE = ("web-1", "web-2", "web-3")
CLIENTS = ("client-1", "client-2", "api-1", "web-3", "outside", "second")


def probes(client: str, to: str, number: int, protocol: Protocol = Protocol.TCP) -> list[Probe]:
    """The same in both families."""
    return [
        Probe(place(client), address(to, family), protocol, number, timeout=PATIENCE) for family in (4, 6)
    ]


def unanswered(world: Cluster, asked: Sequence[Probe]) -> bool:
    """Whether none of them is answered, nor refused."""
    results = world.probe_all(replace(p, timeout=SILENCE) for p in asked)
    return {r.outcome for r in results} == {Outcome.TIMEOUT}


def test_equal_share(world: Cluster, dataplane: Dataplane, tmp_path: Path) -> None:
    dataplanes.install(world, dataplane, programs(tmp_path, [service("web", 10), *slices("web", *THREE)]))
    # A fair share of 900 is 300 with a standard deviation of 14; six of these are one failure in 10^8. Turns are exact.
    tries, slack = (90, 1) if dataplane.in_turn else (900, 84)
    for probe in probes("client-1", CLUSTER_IP, 80):
        shares = Counter(r.server for r in world.probe_all([probe] * tries))
        assert set(shares) == {place(e) for e in THREE}, shares
        assert all(abs(n - tries // 3) <= slack for n in shares.values()), shares


def affine(seconds: int, *names: str) -> list[Manifest]:
    """A service with session affinity and those endpoints."""
    config = {"clientIP": {"timeoutSeconds": seconds}}
    web = service(
        "web",
        10,
        type="NodePort",
        ports=(port(80, node_port=30080),),
        sessionAffinity="ClientIP",
        sessionAffinityConfig=config,
    )
    return [web, *slices("web", *names)]


def servers(world: Cluster, clients: Sequence[str] = CLIENTS) -> dict[str, str]:
    """Who answers each client, in each family; every client is asked several times, at both addresses."""
    found: dict[str, str] = {}
    wanted = [
        (f"{client} {probe.destination.version}", probe)
        for client in clients
        for to, number in ((CLUSTER_IP, 80), ("n1", 30080))
        # Pods of n2 meet n1's memory at its NodePort and n2's at the ClusterIP: ask those only for the latter.
        if to != "n1" or client in {"client-1", "api-1", "outside", "second"}
        for probe in probes(client, to, number) * 4
    ]
    for (who, probe), result in zip(wanted, world.probe_all(p for _, p in wanted), strict=True):
        assert result.answered, f"{probe}: {result}"
        assert found.setdefault(who, result.server) == result.server, f"{who} was moved"
    return found


def test_affinity(world: Cluster, dataplane: Dataplane, tmp_path: Path) -> None:
    dataplanes.install(world, dataplane, programs(tmp_path, affine(2, *THREE)))
    hashed = (
        dataplane.backend == "ipvs"
    )  # docs/semantics.md: what is chosen by hashing does not change with time
    last, first = time.monotonic(), servers(world)
    assert len(set(first.values())) > 1, "all clients with one endpoint: that is no balancing"
    in_turn = 0
    for _ in range(10):
        time.sleep(1.05)
        began, now = time.monotonic(), servers(world)
        if hashed or time.monotonic() - last < 2:
            assert now == first, "forgotten too early"
            in_turn += 1
        else:  # the machine was too slow for the clients to come in time
            in_turn = 0
        last, first = began, now
        if in_turn == 2:  # longer than it remembers: each new connection starts the time anew
            break
    assert in_turn == 2, "the clients never came in time"
    if hashed:
        return
    time.sleep(3.2)
    # Twelve memories, each as likely as one in three to choose the same again: 2 * 10^-6 that all do.
    assert servers(world) != first


def test_affinity_survives(world: Cluster, dataplane: Dataplane, tmp_path: Path) -> None:
    before = programs(tmp_path, affine(600, "web-1", "web-2"))
    dataplanes.install(world, dataplane, before)
    clients = tuple(c for c in CLIENTS if c != "web-3")
    first = servers(world, clients)
    more = programs(tmp_path, affine(600, "web-1", "web-2", "web-3"))
    dataplanes.install(world, dataplane, more, before)
    assert servers(world, clients) == first
    less = programs(tmp_path, affine(600, "web-1", "web-3"))
    dataplanes.install(world, dataplane, less, more)
    after = servers(world, clients)
    kept = {who: server for who, server in first.items() if server == place("web-1")}
    assert {who: after[who] for who in kept} == kept
    assert place("web-2") not in after.values()


def test_health_check_port_is_let_in(world: Cluster, dataplane: Dataplane, tmp_path: Path) -> None:
    balanced = service(
        "web", 10, type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=32000,
        ingress=({"ip": "203.0.113.7"},), ports=(port(80, node_port=30080),),
    )  # fmt: skip
    checks = probes("outside", "n1", 32000)
    world.listen("node/n1", Port(Protocol.TCP, 32000))
    try:
        if not dataplane.lets_in:
            # Said in docs/semantics.md. What is left to see: we do not shut it ourselves.
            dataplanes.install(world, dataplane, programs(tmp_path, [balanced, *slices("web", "web-1")]))
            assert {r.outcome for r in world.probe_all(checks)} == {Outcome.ANSWERED}
            return
        variant = dataplane.options.iptables if dataplane.options.iptables != "auto" else "nft"
        for tool in (f"iptables-{variant}", f"ip6tables-{variant}"):
            world.run("node/n1", [tool, "-A", "INPUT", "-p", "tcp", "--dport", "32000", "-j", "DROP"])
        assert unanswered(world, checks)
        dataplanes.install(world, dataplane, programs(tmp_path, [balanced, *slices("web", "web-1")]))
        assert {r.outcome for r in world.probe_all(checks)} == {Outcome.ANSWERED}
    finally:
        world.unlisten("node/n1", Port(Protocol.TCP, 32000))


def test_source_ranges_with_the_node(world: Cluster, dataplane: Dataplane, tmp_path: Path) -> None:
    """The load-balancer IP stands on the node itself, so that what it sends there comes from that address."""
    balancer = "203.0.113.7,2001:db8:113::7"

    def web(*ranges: str) -> list[Manifest]:
        ingress = tuple({"ip": ip} for ip in balancer.split(","))
        web = service("web", 10, type="LoadBalancer", ingress=ingress, loadBalancerSourceRanges=list(ranges))
        return [web, *slices("web", "web-1")]

    addresses = [("-4", "203.0.113.7/32"), ("-6", "2001:db8:113::7/128")]
    sent = probes("n1", balancer, 80)
    for family, ip in addresses:
        world.run("node/n1", ["ip", family, "address", "add", ip, "dev", "lo"])
    try:
        dataplanes.install(world, dataplane, programs(tmp_path, web("192.0.2.100/32", "2001:db8::100/128")))
        assert unanswered(world, sent)
        dataplanes.install(world, dataplane, programs(tmp_path, web("192.0.2.11/32", "2001:db8::11/128")))
        assert {r.server for r in world.probe_all(sent)} == {place("web-1")}
    finally:
        for family, ip in addresses:
            world.run("node/n1", ["ip", family, "address", "delete", ip, "dev", "lo"])


def test_the_first_packet_of_the_node_waits_for_its_neighbour(
    world: Cluster, dataplane: Dataplane, tmp_path: Path
) -> None:
    """The node knows no link address of the endpoint yet, so its first packet waits: it must not go astray then."""
    balanced = service("web", 10, type="NodePort", ports=(port(80, node_port=30080),))
    dataplanes.install(world, dataplane, programs(tmp_path, [balanced, *slices("web", "web-1")]))
    for to, number in (("n1", 30080), (CLUSTER_IP, 80)):
        world.run("node/n1", ["ip", "neigh", "flush", "all"])
        sent = probes("n1", to, number)
        assert {r.server for r in world.probe_all(sent)} == {place("web-1")}, to


def test_the_short_cut_back_to_the_own_node(world: Cluster, dataplane: Dataplane, tmp_path: Path) -> None:
    """Packets come back past the node that translated, so the client knows nobody who answers."""
    local = service(
        "web", 10, type="NodePort", ports=(port(80, node_port=30080),), externalTrafficPolicy="Local"
    )
    dataplanes.install(world, dataplane, programs(tmp_path, [local, *slices("web", "web-1")]))
    assert unanswered(world, probes("client-1", "n2", 30080))
    assert {r.server for r in world.probe_all(probes("client-1", "n1", 30080))} == {place("web-1")}
    dataplanes.install(world, dataplane, programs(tmp_path, [local, *slices("web", "web-2")]))
    assert {r.server for r in world.probe_all(probes("client-1", "n2", 30080))} == {place("web-2")}


# --- packets that no client sends ---


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return int(~(total + (total >> 16)) & 0xFFFF)


def _ipv4(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + ends
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + payload


def _tcp(source: str, destination: str, ports: tuple[int, int], flags: int) -> bytes:
    head = struct.pack("!HHIIBBHHH", *ports, 1, 0, 0x50, flags, 1024, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!BBH", 0, 6, len(head))
    return head[:16] + struct.pack("!H", _checksum(pseudo + head)) + head[18:]


def _udp(ports: tuple[int, int], payload: bytes) -> bytes:
    return struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload


def _send_frame(packet: bytes, gateway: bytes, interface: str) -> None:
    """Put a packet on the wire, to the neighbour with that link-layer address."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0x0800) as sock:
        sock.sendto(packet, (interface, 0x0800, 0, 0, gateway))


def _send_raw(packet: bytes, destination: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(packet, (destination, 0))


# Each prints `ready`, then `got` if a datagram or packet of ours comes within so many seconds.
LISTEN_UDP = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sock.bind(("127.0.0.1", 5999))
sock.settimeout(float(sys.argv[1]))
print("ready", flush=True)
try: print("got" if sock.recv(100) == b"martian" else "other")
except TimeoutError: print("nothing")
"""
SNIFF_TCP = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP); sock.settimeout(0.1)
print("ready", flush=True)
end, found = time.monotonic() + float(sys.argv[1]), "nothing"
while time.monotonic() < end:
    try: data = sock.recv(200)
    except TimeoutError: continue
    if data[20:22] == (5998).to_bytes(2): found = "got"; break
print(found)
"""


def _what_arrives(
    world: Cluster, where: str, program: str, client: str, send: object, *args: object, within: int = 2
) -> str:
    listener = world.popen(where, [sys.executable, "-c", program, str(within)])
    try:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        assert callable(send)
        world.call(client, send, *args)
        return listener.stdout.read().strip()
    finally:
        listener.kill()
        listener.communicate(timeout=10)


def test_localhost_node_port(world: Cluster, dataplane: Dataplane, tmp_path: Path) -> None:
    web = [
        service("web", 10, type="NodePort", ports=(port(80, node_port=30080),)),
        *slices("web", "web-1", "web-2"),
    ]
    local = Probe("node/n1", address("127.0.0.1,::1", 4), Protocol.TCP, 30080, timeout=PATIENCE)
    dataplanes.install(world, dataplane, programs(tmp_path, web))
    assert {r.outcome for r in world.probe_all([local] * 4)} == {Outcome.REFUSED}
    everywhere = programs(tmp_path, web, {"localhost-nodeports": True})
    if dataplane.backend == "ipvs":  # said in docs/semantics.md: IPVS can't
        with pytest.raises(UnsupportedError):
            dataplanes.install(world, dataplane, everywhere)
        return
    dataplanes.install(world, dataplane, everywhere)
    # The node must ask for the endpoint's link address, which it can't as 127.0.0.1.
    world.run("node/n1", ["ip", "neigh", "flush", "all"])
    answers = world.probe_all([local] * 28)
    assert {r.server for r in answers} == {place("web-1"), place("web-2")}
    assert all(r.source and r.source.address == address("n1", 4) for r in answers)
    # The guard: what comes from elsewhere for 127.0.0.1 does not get in.
    gateway, interface = _gateway(world)
    martian = _ipv4("192.0.2.100", "127.0.0.1", 17, _udp((5997, 5999), b"martian"))
    sent = ("client/outside", _send_frame, martian, gateway, interface)
    assert _what_arrives(world, "node/n1", LISTEN_UDP, *sent) == "nothing"
    world.reset()
    world.sysctl("node/n1", "net/ipv4/conf/all/route_localnet", "1")
    try:
        assert _what_arrives(world, "node/n1", LISTEN_UDP, *sent, within=20) == "got", (
            "without the guard it does"
        )
    finally:
        world.sysctl("node/n1", "net/ipv4/conf/all/route_localnet", "0")


def _gateway(world: Cluster) -> tuple[bytes, str]:
    """The link-layer address of n1 and the client's interface towards it."""
    assert world.probe("client/outside", "192.0.2.11", 9100).answered  # so that the neighbour is known
    words = world.run("client/outside", ["ip", "-4", "neighbour", "show", "192.0.2.11"]).stdout.split()
    return bytes.fromhex(words[words.index("lladdr") + 1].replace(":", "")), words[words.index("dev") + 1]


def test_invalid_packets(world: Cluster, dataplane: Dataplane, tmp_path: Path) -> None:
    web = [service("web", 10), *slices("web", "web-2")]
    client, server = str(address("client-1", 4)), str(address("web-2", 4))
    syn_and_reset = 0x06  # a combination that connection tracking calls invalid
    packet = _ipv4(client, server, 6, _tcp(client, server, (5998, 8080), syn_and_reset))
    sent = (place("client-1"), _send_raw, packet, server)
    dataplanes.install(world, dataplane, programs(tmp_path, web))
    assert _what_arrives(world, place("web-2"), SNIFF_TCP, *sent) == "nothing"
    dataplanes.install(world, dataplane, programs(tmp_path, web, {"conntrack-tcp-be-liberal": True}))
    assert _what_arrives(world, place("web-2"), SNIFF_TCP, *sent, within=20) == "got"


# --- changes ---


def test_udp_endpoint_that_goes(world: Cluster, dataplane: Dataplane, tmp_path: Path) -> None:
    ports = (port(53, protocol="UDP"),)
    ends = (slice_port(8080, protocol="UDP"),)
    both = [service("dns", 10, ports=ports), *slices("dns", "web-1", "web-2", ports=ends)]
    before = programs(tmp_path, both)
    dataplanes.install(world, dataplane, before)
    for family in (4, 6):
        probe = Probe(place("client-1"), address(CLUSTER_IP, family), Protocol.UDP, 53, timeout=PATIENCE)
        with world.flow(probe, interval=0.02 * dataplane.slowness) as flow:
            server = flow.opening.server
            other = ({"web-1", "web-2"} - {server.rsplit("/", 1)[1]}).pop()
            less = [service("dns", 10, ports=ports), *slices("dns", other, ports=ends)]
            after = programs(tmp_path, less)
            dataplanes.install(world, dataplane, after, before)
            deadline = time.monotonic() + 5 * dataplane.slowness
            while flow.report().servers[-1] == server and time.monotonic() < deadline:
                time.sleep(0.05 * dataplane.slowness)
            assert flow.report().servers == (server, place(other))
        dataplanes.install(world, dataplane, before, after)
