"""IPVS balances real packets in the guest: TCP, UDP and SCTP, both families, by ipvsadm and by netlink."""

import ctypes
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytestmark = pytest.mark.vm

SERVICE = {socket.AF_INET: "10.96.0.10", socket.AF_INET6: "fd96::10"}
PORT = 80
TARGET_PORT = 8080
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in a network namespace; sockets that are made there stay there."""
    with open("/proc/thread-self/ns/net") as here, Path("/run/netns", namespace).open() as there:
        if _libc.setns(there.fileno(), 0):
            raise OSError(ctypes.get_errno(), namespace)
        try:
            yield
        finally:
            assert _libc.setns(here.fileno(), 0) == 0


@dataclass
class Net:
    """A director with a client and two real servers around it, each behind a veth pair of its own."""

    director: str
    client: str
    servers: tuple[str, str]
    closers: list[Callable[[], None]] = field(default_factory=list)

    def address(self, namespace: str, family: socket.AddressFamily) -> str:
        number = (self.client, *self.servers).index(namespace) + 1
        return f"10.{number}.0.2" if family == socket.AF_INET else f"fd00:{number}::2"

    def ipvs(self, *arguments: str) -> str:
        """Run ipvsadm on the director."""
        return ip("netns", "exec", self.director, "ipvsadm", *arguments)

    def listen(self, family: socket.AddressFamily, kind: int, protocol: int) -> None:
        """Each real server answers whoever asks with its own name."""
        for name in self.servers:
            with inside(name):
                server = socket.socket(family, kind, protocol)
                server.bind((self.address(name, family), TARGET_PORT))
            self.closers.append(server.close)
            if kind == socket.SOCK_STREAM:
                server.listen()
                threading.Thread(target=_serve_streams, args=(server, name), daemon=True).start()
            else:
                threading.Thread(target=_serve_datagrams, args=(server, name), daemon=True).start()

    def ask(self, family: socket.AddressFamily, kind: int, protocol: int) -> str:
        """Name of the real server that answers the client at the service's address."""
        with inside(self.client):
            client = socket.socket(family, kind, protocol)
        with client:
            client.settimeout(20)
            client.connect((SERVICE[family], PORT))
            if kind == socket.SOCK_DGRAM:
                client.send(b"who?")
            return client.recv(64).decode()


def _serve_streams(server: socket.socket, name: str) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.sendall(name.encode())


def _serve_datagrams(server: socket.socket, name: str) -> None:
    while True:
        try:
            _, peer = server.recvfrom(64)
            server.sendto(name.encode(), peer)
        except OSError:
            return


def ip(*arguments: str) -> str:
    """Run ip; returns what it prints."""
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def ip_batch(namespace: str | None, *lines: str) -> None:
    """Run these lines of ip in a namespace."""
    command = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    done = subprocess.run(
        command, input="\n".join(lines), check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"{command}: {done.stderr}\n{lines}"


def _up(device: str, number: int, last: int) -> list[str]:
    return [
        f"addr add 10.{number}.0.{last}/24 dev {device}",
        f"addr add fd00:{number}::{last}/64 dev {device} nodad",
        f"link set {device} up",
    ]


_counter = itertools.count()


@pytest.fixture
def net(sctp_sockets: None) -> Iterator[Net]:
    made = f"v{os.getpid()}-{next(_counter)}"
    net = Net(f"{made}d", f"{made}c", (f"{made}a", f"{made}b"))
    try:
        # One `ip` for many lines: starting a program costs under emulation.
        names = (net.director, net.client, *net.servers)
        ip_batch(None, *(f"netns add {name}" for name in names))
        director = ["link set lo up", "link add k8snetc0 type dummy"]
        director += [f"addr add {address} dev k8snetc0 nodad" for address in SERVICE.values()]
        for number, name in enumerate(names[1:], 1):
            director.append(f"link add d{number} type veth peer name eth0 netns {name}")
            director += _up(f"d{number}", number, 1)
        ip_batch(net.director, *director)
        for number, name in enumerate(names[1:], 1):
            gateways = [f"route add default via {a}" for a in (f"10.{number}.0.1", f"fd00:{number}::1")]
            ip_batch(name, "link set lo up", *_up("eth0", number, 2), *gateways)
        with inside(net.director):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        yield net
    finally:
        for close in net.closers:
            close()
        for name in (net.director, net.client, *net.servers):
            subprocess.run(["ip", "netns", "delete", name], check=False, timeout=60)


def _literal(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


TRANSPORTS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP, "-t"),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP, "-u"),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP, "--sctp-service"),
}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_round_robin_over_two_real_servers(net: Net, family: socket.AddressFamily, transport: str) -> None:
    kind, protocol, flag = TRANSPORTS[transport]
    service = _literal(SERVICE[family], PORT)
    net.ipvs("-A", flag, service, "-s", "rr")
    for name in net.servers:
        net.ipvs("-a", flag, service, "-r", _literal(net.address(name, family), TARGET_PORT), "-m")
    net.listen(family, kind, protocol)

    answers = [net.ask(family, kind, protocol) for _ in range(6)]

    assert sorted(answers) == sorted(net.servers * 3)
    assert all(a != b for a, b in itertools.pairwise(answers)), answers


def test_a_service_without_servers_refuses(net: Net) -> None:
    net.ipvs("-A", "-t", _literal(SERVICE[socket.AF_INET], PORT), "-s", "rr")
    with pytest.raises(OSError, match=r"refused|unreachable|No route"):
        net.ask(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)


def test_every_scheduler_is_there() -> None:
    names = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "mh", "fo", "ovf")
    lines = [f"-A -t 10.96.0.10:{port} -s {name}" for port, name in enumerate(names, 1000)]
    done = subprocess.run(
        ["unshare", "-n", "sh", "-ec", "ipvsadm --restore; ipvsadm -Sn"],
        input="".join(f"{line}\n" for line in lines),
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert sorted(done.stdout.splitlines()) == sorted(lines)


def test_netlink_and_ipvsadm_see_the_same(net: Net) -> None:
    from pyroute2 import IPVS, IPVSDest, IPVSService

    with inside(net.director), IPVS() as ipvs:
        service = IPVSService(addr="10.96.0.10", port=80, protocol=socket.IPPROTO_TCP, sched_name="wrr")
        ipvs.service("add", service=service)
        ipvs.dest("add", service=service, dest=IPVSDest(addr="10.2.0.2", port=8080, weight=3, fwd_method=0))
    assert net.ipvs("-S", "-n").split("\n")[:2] == [
        "-A -t 10.96.0.10:80 -s wrr",
        "-a -t 10.96.0.10:80 -r 10.2.0.2:8080 -m -w 3",
    ]
