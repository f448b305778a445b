"""Single frames through the loaded programs (BPF_PROG_TEST_RUN): translation, checksums, ICMP, fragments, rubbish."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from k8snetc.backends.ebpf import libbpf
from k8snetc.ir.types import Address, Family, Protocol
from k8snetc.lab.packets import crc32c, internet_checksum, ip
from tests.backends.ebpf import support
from tests.backends.ebpf.testrun import DROP, MACS, PASS, REDIRECT, Programs
from tests.support.lab import SCTP, TCP, UDP

pytestmark = pytest.mark.kernel

FAMILIES = list(Family)
CLIENT = {Family.IPV4: ip_address("203.0.113.9"), Family.IPV6: ip_address("2001:db8::9")}
ROUTER = {Family.IPV4: ip_address("192.0.2.77"), Family.IPV6: ip_address("2001:db8:77::1")}
ENDS = {TCP: 8080, UDP: 5353, SCTP: 9999}


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with Programs(support.both("w1")) as made:
        yield made


def pseudo(source: Address, destination: Address, protocol: int, length: int) -> bytes:
    if source.version == 4:
        return source.packed + destination.packed + struct.pack("!BBH", 0, protocol, length)
    return source.packed + destination.packed + struct.pack("!II", length, protocol)


def segment(
    protocol: Protocol,
    source: Address,
    destination: Address,
    ports: tuple[int, int],
    payload: bytes = b"hello world!",
) -> bytes:
    """The transport part of a packet that opens a connection, with its checksum."""
    if protocol is TCP:
        head, at = struct.pack("!HHIIBBHHH", *ports, 1, 0, 5 << 4, 2, 65535, 0, 0), 16
    elif protocol is UDP:
        head, at = struct.pack("!HHHH", *ports, 8 + len(payload), 0), 6
    else:
        head = struct.pack("!HHI", *ports, 0)
        chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 7, 65536, 1, 1, 7)
        return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk
    data = head + payload
    checksum = internet_checksum(pseudo(source, destination, protocol.number, len(data)) + data)
    return data[:at] + struct.pack("!H", checksum) + data[at + 2 :]


def packet(protocol: Protocol, source: Address, destination: Address, ports: tuple[int, int]) -> bytes:
    return ip(source, destination, protocol.number, segment(protocol, source, destination, ports))


class Read:
    """A packet taken apart, its checksums verified."""

    def __init__(self, data: bytes, *, whole: bool = True) -> None:
        if data[0] >> 4 == 4:
            self.source, self.destination = ip_address(data[12:16]), ip_address(data[16:20])
            assert internet_checksum(data[:20]) == 0, "IP checksum"
            self.protocol, self.payload = data[9], data[20:]
        else:
            self.source, self.destination = ip_address(data[8:24]), ip_address(data[24:40])
            self.protocol, self.payload = data[6], data[40:]
        self.ports = struct.unpack_from("!HH", self.payload)
        if not whole:
            return
        if self.protocol == 132:
            rest = self.payload[:8] + bytes(4) + self.payload[12:]
            assert struct.unpack_from("<I", self.payload, 8)[0] == crc32c(rest), "SCTP checksum"
        elif self.protocol == 1:
            assert internet_checksum(self.payload) == 0, "ICMP checksum"
        else:
            covered = pseudo(self.source, self.destination, self.protocol, len(self.payload)) + self.payload
            assert internet_checksum(covered) == 0, "checksum"


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back(programs: Programs, family: Family, protocol: Protocol) -> None:
    client, vip = CLIENT[family], support.of(family, "192.0.2.10", "2001:db8:e::10")
    verdict, out = programs.send("from_outside", packet(protocol, client, vip, (40000, 80)))
    assert verdict == PASS
    there = Read(out)
    pods = {support.pod(family, p) for p in "abcd"}
    assert there.source == client
    assert there.destination in pods
    assert there.ports == (40000, ENDS[protocol])
    # Out by the uplink, with the node's address and a port that nothing else uses.
    verdict, out = programs.send("to_outside", out)
    assert verdict == PASS
    masked = Read(out)
    assert (masked.source, masked.destination) == (support.node_address(family, 1), there.destination)
    assert 1024 <= masked.ports[0] < 30080
    # The answer takes the same way back.
    answer = packet(protocol, masked.destination, masked.source, (masked.ports[1], masked.ports[0]))
    if protocol is TCP:  # SYN and ACK: an answer does not ask
        at = 20 if family is Family.IPV4 else 40
        body = bytearray(answer[at:])
        body[13] = 0x12
        body[16:18] = bytes(2)
        covered = pseudo(masked.destination, masked.source, 6, len(body)) + bytes(body)
        body[16:18] = struct.pack("!H", internet_checksum(covered))
        answer = answer[:at] + bytes(body)
    if protocol is SCTP:
        at = 20 if family is Family.IPV4 else 40
        body = bytearray(answer[at:])
        body[12], body[8:12] = 2, bytes(4)
        body[8:12] = struct.pack("<I", crc32c(bytes(body)))
        answer = answer[:at] + bytes(body)
    verdict, out = programs.send("from_outside", answer)
    assert verdict == PASS
    assert (Read(out).source, Read(out).destination) == (masked.destination, client)
    verdict, out = programs.send("to_outside", out)
    back = Read(out)
    assert verdict == PASS
    assert (back.source, back.destination, back.ports) == (vip, client, (80, 40000))


def icmp_error(family: Family, source: Address, destination: Address, inside: bytes) -> bytes:
    """Fragmentation needed, or packet too big."""
    if family is Family.IPV4:
        data = struct.pack("!BBHHH", 3, 4, 0, 0, 1400) + inside
        return ip(source, destination, 1, data[:2] + struct.pack("!H", internet_checksum(data)) + data[4:])
    data = struct.pack("!BBHI", 2, 0, 0, 1400) + inside
    checksum = internet_checksum(pseudo(source, destination, 58, len(data)) + data)
    return ip(source, destination, 58, data[:2] + struct.pack("!H", checksum) + data[4:])


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("family", FAMILIES)
def test_errors_are_translated_inside_and_outside(
    programs: Programs, family: Family, protocol: Protocol
) -> None:
    client, vip = CLIENT[family], support.of(family, "192.0.2.10", "2001:db8:e::10")
    _, there = programs.send("from_outside", packet(protocol, client, vip, (41000, 80)))
    _, masked = programs.send("to_outside", there)
    sent = Read(masked)
    # A router on the way to the endpoint complains to the node; the client must learn of its own packet.
    verdict, out = programs.send("from_outside", icmp_error(family, ROUTER[family], sent.source, masked[:48]))
    assert verdict == PASS
    assert Read(out).destination == client
    verdict, out = programs.send("to_outside", out)
    told = Read(out)
    assert verdict == PASS
    assert (told.source, told.destination) == (ROUTER[family], client)
    inside = Read(told.payload[8:], whole=False)
    assert (inside.source, inside.destination, inside.ports) == (client, vip, (41000, 80))


@pytest.mark.parametrize("family", FAMILIES)
def test_refused_with_an_icmp_error(programs: Programs, family: Family) -> None:
    client, vip = support.pod(family, "b"), support.service(family, 2)
    for protocol in (TCP, UDP, SCTP):
        asked = packet(protocol, client, vip, (42000, 80))
        verdict, out = programs.send("from_pod", asked)
        answer = Read(out)
        assert verdict == REDIRECT
        assert (answer.source, answer.destination) == (vip, client)
        assert answer.payload[:2] == (b"\3\3" if family is Family.IPV4 else b"\1\4")
        quoted = answer.payload[8:]
        assert len(quoted) >= (28 if family is Family.IPV4 else 48)
        assert asked.startswith(quoted)


def fragment(
    protocol: Protocol, source: Address, to: Address, offset: int, data: bytes, *, more: bool, identity: int
) -> bytes:
    """A part of a packet whose transport part is longer."""
    if source.version == 6:
        head = struct.pack("!BBHI", protocol.number, 0, offset | more, identity)
        return ip(source, to, 44, head + data)
    head = struct.pack(
        "!BBHHHBBH",
        0x45,
        0,
        20 + len(data),
        identity,
        (0x2000 if more else 0) | offset // 8,
        64,
        protocol.number,
        0,
    )
    head += source.packed + to.packed
    return head[:10] + struct.pack("!H", internet_checksum(head)) + head[12:] + data


@pytest.mark.parametrize("family", FAMILIES)
def test_later_fragments_follow_the_first(programs: Programs, family: Family) -> None:
    client, vip = CLIENT[family], support.of(family, "192.0.2.10", "2001:db8:e::10")
    whole = segment(UDP, client, vip, (43000, 80), bytes(2000))
    start = 20 if family is Family.IPV4 else 48

    def part(offset: int, data: bytes, identity: int) -> bytes:
        more = offset + len(data) < len(whole)
        return fragment(UDP, client, vip, offset, data, more=more, identity=identity)

    _, first = programs.send("from_outside", part(0, whole[:1000], 7))
    verdict, later = programs.send("from_outside", part(1000, whole[1000:], 7))
    assert verdict == PASS
    endpoint = Read(first, whole=False).destination
    assert endpoint in {support.pod(family, p) for p in "abcd"}
    assert Read(later, whole=False).destination == endpoint
    # The checksum is in the first part and is right for the whole.
    body = first[start:] + later[start:]
    assert internet_checksum(pseudo(client, endpoint, 17, len(body)) + body) == 0
    # Of a datagram whose first part was never seen nothing is known: it stays as it is.
    verdict, unknown = programs.send("from_outside", part(1000, whole[1000:], 8))
    assert Read(unknown, whole=False).destination == vip


@pytest.mark.parametrize("family", FAMILIES)
def test_sctp_in_fragments_is_not_given_another_port(programs: Programs, family: Family) -> None:
    """Its checksum would change with the length of the whole, which nobody knows yet: dropped, not broken."""
    client, vip = CLIENT[family], support.of(family, "192.0.2.10", "2001:db8:e::10")
    whole = segment(SCTP, client, vip, (45000, 80))
    first = fragment(SCTP, client, vip, 0, whole[:24], more=True, identity=9)
    assert programs.send("from_outside", first)[0] == DROP


def test_extension_headers(programs: Programs) -> None:
    client, vip = CLIENT[Family.IPV6], ip_address("2001:db8:e::10")
    body = segment(UDP, client, vip, (44000, 80))
    options = bytes([60, 0, 1, 4, 0, 0, 0, 0]) + bytes(
        [17, 0, 1, 4, 0, 0, 0, 0]
    )  # hop by hop, then destination
    verdict, out = programs.send("from_outside", ip(client, vip, 0, options + body))
    assert verdict == PASS
    assert ip_address(out[24:40]) in {support.pod(Family.IPV6, p) for p in "abcd"}
    covered = pseudo(client, ip_address(out[24:40]), 17, len(body)) + out[40 + len(options) :]
    assert internet_checksum(covered) == 0
    # So many headers, and no more.
    for count in (6, 7):
        many = bytes([60, 0, 1, 4, 0, 0, 0, 0]) * (count - 1) + bytes([17, 0, 1, 4, 0, 0, 0, 0])
        verdict, _ = programs.send("from_outside", ip(client, vip, 60, many + body))
        assert verdict == (PASS if count == 6 else DROP)
    # A routing header that is not used up hides where the packet goes: not for us, and dropped.
    routing = bytes([17, 0, 0, 1, 0, 0, 0, 0])
    assert programs.send("from_outside", ip(client, vip, 43, routing + body))[0] == DROP


def allowed(data: bytes) -> bool:
    """Whether policy lets a frame reach pod a: from b to 8080/tcp, from itself, neighbours, or not for a at all."""
    kind = struct.unpack_from("!H", data, 12)[0]
    ip_header = data[14:]
    if kind == 0x0800 and len(ip_header) >= 20:
        source, destination = ip_address(ip_header[12:16]), ip_address(ip_header[16:20])
        protocol, payload = ip_header[9], ip_header[(ip_header[0] & 15) * 4 :]
        family = Family.IPV4
    elif kind == 0x86DD and len(ip_header) >= 40:
        source, destination = ip_address(ip_header[8:24]), ip_address(ip_header[24:40])
        protocol, payload = ip_header[6], ip_header[40:]
        family = Family.IPV6
    else:
        return bool(kind == 0x0806)
    a, b = support.pod(family, "a"), support.pod(family, "b")
    if destination != a or source == a:
        return True
    if protocol == 58 and payload[:1] and (130 <= payload[0] <= 137 or payload[0] == 143):
        return True
    return source == b and protocol in {6, 0, 43, 44, 51, 60}


def silent(data: bytes) -> bool:
    """Whether policy lets a translated frame of pod c leave, which may send nothing: another's, to its node, to itself
    (through a service), or neighbours' talk."""
    kind = struct.unpack_from("!H", data, 12)[0]
    family = Family.IPV4 if kind == 0x0800 else Family.IPV6
    source, to = (12, 16) if family is Family.IPV4 else (8, 24)
    size = 4 if family is Family.IPV4 else 16
    if kind not in {0x0800, 0x86DD} or len(data) < 14 + to + size:
        return bool(kind == 0x0806)
    ip_header = data[14:]
    if ip_address(ip_header[source : source + size]) != support.pod(family, "c"):
        return True
    if ip_address(ip_header[to : to + size]) in {support.node_address(family, 2), support.pod(family, "c")}:
        return True
    kinds = ip_header[40:41]
    return (
        family is Family.IPV6
        and ip_header[6] == 58
        and bool(kinds)
        and (130 <= kinds[0] <= 137 or kinds[0] == 143)
    )


def rubbish(dice: random.Random, pod: str = "a", *, leaving: bool = False) -> Iterator[bytes]:
    """Random bytes, and packets to a pod, or of it, cut short or with bytes changed."""
    for _ in range(400):
        yield dice.randbytes(dice.randrange(14, 200))
    for _ in range(4000):
        family = dice.choice(FAMILIES)
        source = dice.choice([support.pod(family, "b"), support.pod(family, "c"), CLIENT[family]])
        to = dice.choice([support.pod(family, pod), support.pod(family, pod), support.service(family, 1)])
        if leaving:
            others = [support.pod(family, "b"), support.service(family, 1), CLIENT[family]]
            source, to = support.pod(family, pod), dice.choice(others)
        data = packet(
            dice.choice(list(Protocol)), source, to, (dice.randrange(65536), dice.choice([8080, 80, 8081]))
        )
        kind = 0x0800 if family is Family.IPV4 else 0x86DD
        frame = bytearray(MACS + struct.pack("!H", kind) + data)
        for _ in range(dice.randrange(4)):
            frame[dice.randrange(14, len(frame))] = dice.randrange(256)
        yield bytes(frame[: dice.randrange(14, len(frame) + 1) if dice.random() < 0.4 else len(frame)])


@pytest.mark.parametrize("seed", range(3))
def test_rubbish_never_passes_what_policy_denies(seed: int) -> None:
    with Programs(support.both("w1")) as programs:
        for frame in rubbish(random.Random(seed)):
            for hook in ("from_pod", "from_outside", "to_outside", "to_pod"):
                try:
                    verdict, _ = programs.frame(hook, frame)
                except libbpf.BpfError:
                    assert len(frame) < 54, "the kernel refuses to run frames that end within the IP header"
                    break
                assert verdict in {PASS, DROP, REDIRECT}
                if hook == "to_pod" and verdict == PASS:
                    assert allowed(frame), frame.hex()


@pytest.mark.parametrize("seed", range(2))
def test_rubbish_never_leaves_a_pod_that_may_not_send(seed: int) -> None:
    with Programs(support.both("w2")) as programs:
        for frame in rubbish(random.Random(seed), "c", leaving=True):
            try:
                verdict, out = programs.frame("from_pod", frame)
            except libbpf.BpfError:
                assert len(frame) < 54, "the kernel refuses to run frames that end within the IP header"
                continue
            assert verdict in {PASS, DROP, REDIRECT}
            if verdict == PASS:
                assert silent(out), f"{frame.hex()} -> {out.hex()}"
