"""Packets by hand that try to get past policies: none of them is what a socket would send.

Knows the addresses of `policy_cluster` and the formats of IPv4, IPv6, ICMP and UDP. Must not know any back end.

`POLICY` shuts the pods a and b of y in both directions; pods of x may reach a's port 80, TCP and UDP. Each attempt
carries a text of its own, so that whatever arrives can be told.

`type: ignore[misc]` stands at lambdas with defaults (what a loop is at): mypy infers no type for such parameters.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import count, product

from k8snetc.ir.types import Address
from k8snetc.lab import packets
from tests.semantics import policy_cluster as cluster
from tests.semantics.policy_cases import network_policy

POLICY = network_policy(
    "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector:"
    " {matchLabels: {ns: x}}}], ports: [{port: 80}, {port: 80, protocol: UDP}]}]}"
) + network_policy("{podSelector: {matchLabels: {pod: b}}, policyTypes: [Ingress, Egress]}", name="shut")
WATCHED = ("pod/y/a", "pod/y/b", "pod/x/c", "pod/x/e", "client/out")
SENDERS = ("x/b", "x/d", "out")  # on the pods' node, on another, and outside
ICMP = {0: 1, 1: 58}
UNREACHABLE = {0: (3, 3), 1: (1, 4)}


@dataclass(frozen=True, slots=True)
class Attempt:
    """Packets from a place. `passes`: whether policy lets them through; `service`: whether a service has to."""

    name: str
    place: str
    packets: tuple[bytes, ...]
    mark: bytes
    passes: bool = False
    service: bool = False


def address(name: str, family: int) -> Address:
    """The address of a pod, a node or the outside client; `family` 0 is IPv4."""
    if name == "out":
        return ip_address(cluster.OUTSIDE[0 if family == 0 else 2])
    if name in cluster.PODS:
        return ip_address(cluster.node_addresses(name)[family])
    namespace, pod = name.split("/")
    return ip_address(cluster.pod_addresses(namespace, pod, "w1" if pod in "abc" else "w2")[family])


def attempts() -> Iterator[Attempt]:
    """All of them. The known connection of `_errors` is that of the first attempts: keep the order."""
    marks = (f"<attempt {n}>".encode() for n in count())

    def attempt(
        name: str,
        sender: str,
        make: Callable[[bytes], bytes | tuple[bytes, ...]],
        *,
        passes: bool = False,
        service: bool = False,
    ) -> Attempt:
        mark = next(marks)
        made = make(mark)
        place = "client/out" if sender == "out" else f"pod/{sender}"
        return Attempt(
            f"{name} from {sender}",
            place,
            (made,) if isinstance(made, bytes) else made,
            mark,
            passes,
            service,
        )

    for family, sender in product((0, 1), SENDERS):
        for name, make, passes in (
            *_datagrams(sender, family),
            *_segments(sender, family),
            *_errors(sender, family),
            *_messages(sender, family),
            *_fragments(sender, family),
            *_headers(sender, family),
        ):
            # Only pods of x are let in, and an error about a connection passes with it.
            yield attempt(f"IPv{(4, 6)[family]} {name}", sender, make, passes=passes and sender != "out")
    for family, target in product((0, 1), ("x/c", "x/e", "out")):
        for name, make in _leaving(target, family):
            yield attempt(f"IPv{(4, 6)[family]} {name} to {target}", "y/a", make)
    for family, sender in product((0, 1), SENDERS):
        for name, make, passes in _services(sender, family):
            yield attempt(
                f"IPv{(4, 6)[family]} {name}", sender, make, passes=passes and sender != "out", service=True
            )


_Made = tuple[str, Callable[[bytes], bytes | tuple[bytes, ...]], bool]


def _datagrams(sender: str, family: int) -> Iterator[_Made]:
    """Datagrams with sources of their own choice, and protocols that no rule names."""
    own, a, b = (address(n, family) for n in (sender, "y/a", "y/b"))
    yield "allowed datagram", lambda m: packets.udp((own, 4000), (a, 80), m), True
    yield "datagram to another port", lambda m: packets.udp((own, 4001), (a, 81), m), False
    yield "datagram from its target's address", lambda m: packets.udp((a, 4002), (a, 81), m), False
    yield "datagram from its shut target's address", lambda m: packets.udp((b, 4002), (b, 81), m), False
    for node in cluster.PODS:
        node_address = address(node, family)
        yield (
            f"datagram from {node}'s address",
            lambda m, s=node_address: packets.udp((s, 4003), (a, 81), m),  # type: ignore[misc]
            False,
        )
    for number in (2, 4, 33, 41, 47, 50, 51, 59, 108, 112, 135, 136, 253, 255):
        head = struct.pack("!HHHH", 80, 80, 0, 0)
        yield (
            f"protocol {number}",
            lambda m, n=number, h=head: packets.ip(own, a, n, h + m),  # type: ignore[misc]
            False,
        )


def _segments(sender: str, family: int) -> Iterator[_Made]:
    """TCP segments that ask for nothing, or for several things at once."""
    own, a = address(sender, family), address("y/a", family)
    for flags in (0x00, 0x02, 0x03, 0x04, 0x10, 0x11, 0x12, 0x14, 0x18, 0x29):
        yield (
            f"segment with flags {flags:#x}",
            lambda m, f=flags: packets.tcp(  # type: ignore[misc]
                (own, 4100 + f), (a, 81), f, sequence=5, acknowledged=9, payload=m
            ),
            False,
        )


def _services(sender: str, family: int) -> Iterator[_Made]:
    """The first segment of a connection to a service of the pod that x may reach, from whom it may and may not."""
    vip, port = ip_address(cluster.SERVICES["web"][0][family]), cluster.SERVICES["web"][1]
    # Not from the pod's own address: whoever bears that is the pod, which reaches itself (docs/semantics.md).
    sources = {"its own": address(sender, family), "its service's": vip}
    sources |= {f"{n}'s": address(n, family) for n in cluster.PODS}
    for (number, (name, source)), (place, target) in product(
        enumerate(sources.items()),
        (("the ClusterIP", (vip, 8000)), ("a NodePort", (address("w1", family), port))),
    ):
        yield (
            f"segment to {place} from {name} address",
            lambda m, s=source, t=target, n=number: packets.tcp(  # type: ignore[misc]
                (s, 4600 + n), t, packets.SYN, sequence=5, payload=m
            ),
            name == "its own",
        )


def _errors(sender: str, family: int) -> Iterator[_Made]:
    """ICMP errors: about a connection that is there, about none, and about one that is there to somebody else."""
    own, a, b, other = (address(n, family) for n in (sender, "y/a", "y/b", "z/c"))
    answer = packets.udp((a, 80), (own, 4000), b"12345678")  # of the allowed datagram
    about = {
        "an error about its connection": (a, answer, True),
        "an error about its connection to somebody else": (b, answer, False),
        "an error about no connection": (a, packets.udp((a, 80), (own, 5999), b"12345678"), False),
        "an error about somebody else's packet": (
            a,
            packets.udp((other, 80), (own, 5999), b"12345678"),
            False,
        ),
    }
    for name, (target, quoted, passes) in about.items():
        yield (
            name,
            lambda m, t=target, q=quoted: icmp(  # type: ignore[misc]
                own, t, *UNREACHABLE[family], bytes(4) + q + m
            ),
            passes,
        )


def _messages(sender: str, family: int) -> Iterator[_Made]:
    """ICMP messages, those between neighbours among them: what a router forwards is not between neighbours."""
    own, a = address(sender, family), address("y/a", family)
    kinds = (0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 17) if family == 0 else (*range(127, 139), 141, 143, 151, 200)
    for kind, hops in product(kinds, (255, 64)):
        yield (
            f"ICMP type {kind} with hop limit {hops}",
            lambda m, k=kind, h=hops: icmp(own, a, k, 0, b"\0\1\0\1" + m, hops=h),  # type: ignore[misc]
            False,
        )


def _fragments(sender: str, family: int) -> Iterator[_Made]:
    """A datagram in two parts, to an open and to a shut port, and parts that never become whole."""
    own, a = address(sender, family), address("y/a", family)

    def halves(mark: bytes, port: int) -> tuple[bytes, bytes]:
        whole = segment(own, a, (4200, port), mark + bytes(1200) + mark)
        return (
            fragment(own, a, 0, whole[:800], last=False, number=port),
            fragment(own, a, 800, whole[800:], last=True, number=port),
        )

    yield "a datagram in two fragments", lambda m: halves(m, 80), True
    yield "a datagram in two fragments to another port", lambda m: halves(m, 81), False
    yield "a lone later fragment", lambda m: fragment(own, a, 800, m + bytes(48), last=True, number=7), False
    yield (
        "a lone first fragment",
        lambda m: fragment(own, a, 0, segment(own, a, (4201, 81), m + bytes(72))[:80], last=False, number=8),
        False,
    )


def _headers(sender: str, family: int) -> Iterator[_Made]:
    """A port behind IPv4 options, or behind IPv6 extension headers."""
    own, a, b = (address(n, family) for n in (sender, "y/a", "y/b"))
    if family == 0:
        for port in (80, 81):
            yield (
                f"options before port {port}",
                lambda m, p=port: _ipv4(  # type: ignore[misc]
                    own, a, 17, segment(own, a, (4300, p), m), options=b"\1\1\1\0"
                ),
                port == 80,
            )
        return
    padding = b"\1\4\0\0\0\0"
    behind = {
        "destination options": (60, bytes([17, 0]) + padding),
        "hop-by-hop options": (0, bytes([17, 0]) + padding),
        "the header of a fragment that is whole": (44, bytes([17, 0, 0, 0, 0, 0, 0, 9])),
        "a routing header that is used up": (43, bytes([17, 0, 4, 0, 0, 0, 0, 0])),
    }
    for (name, (number, header)), port in product(behind.items(), (80, 81)):
        yield (
            f"port {port} behind {name}",
            lambda m, n=number, h=header, p=port: packets.ip(  # type: ignore[misc]
                own, a, n, h + segment(own, a, (4300, p), m)
            ),
            port == 80,
        )
    # The back ends differ in whether these pass to an open port; to a shut one they never do.
    more = {
        "a routing header to somebody else": (43, bytes([17, 2, 2, 1, 0, 0, 0, 0]) + b.packed),
        "an authentication header": (51, bytes([17, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1])),
        "eight headers": (60, b"".join(bytes([17 if n == 7 else 60, 0]) + padding for n in range(8))),
    }
    for name, (number, header) in more.items():
        yield (
            f"port 81 behind {name}",
            lambda m, n=number, h=header: packets.ip(own, a, n, h + segment(own, a, (4301, 81), m)),  # type: ignore[misc]
            False,
        )


def _leaving(target: str, family: int) -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    """What the shut pod itself tries."""
    own, there = address("y/a", family), address(target, family)
    yield "datagram", lambda m: packets.udp((own, 4500), (there, 80), m)
    yield "segment without SYN", lambda m: packets.tcp((own, 4500), (there, 80), packets.ACK, payload=m)
    for kind in (3, 8, 11) if family == 0 else (1, 3, *range(128, 138), 143):
        yield f"ICMP type {kind}", lambda m, k=kind: icmp(own, there, k, 0, bytes(4) + m, hops=255)  # type: ignore[misc]


# --- packets ----------------------------------------------------------------------------------------------------


def _pseudo(source: Address, destination: Address, protocol: int, length: int) -> bytes:
    return source.packed + destination.packed + struct.pack("!II", length, protocol)


def segment(source: Address, destination: Address, ports: tuple[int, int], payload: bytes) -> bytes:
    """The UDP part of a packet, with its checksum."""
    head = struct.pack("!HHH", *ports, 8 + len(payload))
    covered = _pseudo(source, destination, 17, 8 + len(payload)) + head + b"\0\0" + payload
    return head + struct.pack("!H", packets.internet_checksum(covered) or 0xFFFF) + payload


def icmp(
    source: Address, destination: Address, kind: int, code: int, body: bytes, *, hops: int = 64
) -> bytes:
    """A packet with an ICMP or ICMPv6 message."""
    number = ICMP[0 if source.version == 4 else 1]
    message = struct.pack("!BBH", kind, code, 0) + body
    covered = message if number == 1 else _pseudo(source, destination, number, len(message)) + message
    message = message[:2] + struct.pack("!H", packets.internet_checksum(covered)) + message[4:]
    return packets.ip(source, destination, number, message, hops=hops)


def fragment(
    source: Address, destination: Address, at: int, data: bytes, *, last: bool, number: int
) -> bytes:
    """One part of a UDP datagram, from byte `at` (a multiple of 8) on."""
    if source.version == 4:
        return _ipv4(source, destination, 17, data, fragment=at // 8 | (0 if last else 0x2000), number=number)
    return packets.ip(source, destination, 44, struct.pack("!BBHI", 17, 0, at | (not last), number) + data)


def _ipv4(
    source: Address,
    destination: Address,
    protocol: int,
    payload: bytes,
    *,
    options: bytes = b"",
    fragment: int = 0,
    number: int = 0,
) -> bytes:
    words = 5 + len(options) // 4
    header = struct.pack(
        "!BBHHHBBH", 0x40 | words, 0, 4 * words + len(payload), number, fragment, 64, protocol, 0
    )
    header += source.packed + destination.packed + options
    return header[:10] + struct.pack("!H", packets.internet_checksum(header)) + header[12:] + payload
