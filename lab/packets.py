"""Packets that the lab builds and reads itself: SCTP (RFC 9260), because its kernel has no SCTP sockets, ICMP echo, and
whole IP packets for tests that need one no socket would send.

Pure. Must not know sockets.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from k8snetc.ir.types import Address

INIT, INIT_ACK, ABORT = 1, 2, 6
COOKIE_ECHO, COOKIE_ACK = 10, 11
_STATE_COOKIE = 7
_HEADER = struct.Struct("!HHI")
_CHUNK = struct.Struct("!BBH")
_INIT = struct.Struct("!IIHHI")


def _table() -> tuple[int, ...]:
    table = []
    for n in range(256):
        crc = n
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC32C = _table()


def crc32c(data: bytes) -> int:
    """The checksum of RFC 9260, appendix A (Castagnoli, reflected)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Sctp:
    """An SCTP packet of one chunk.

    `tag` is the verification tag of the receiver (0 in an INIT), `own_tag` the initiate tag of INIT and INIT ACK,
    `cookie` the state cookie of INIT ACK and COOKIE ECHO.
    """

    source: int
    destination: int
    chunk: int
    tag: int = 0
    own_tag: int = 0
    cookie: bytes = b""

    def encode(self) -> bytes:
        """The packet with its checksum."""
        match self.chunk:
            case 1 | 2:
                body = _INIT.pack(self.own_tag, 65536, 1, 1, self.own_tag)
                if self.cookie:
                    body += struct.pack("!HH", _STATE_COOKIE, 4 + len(self.cookie)) + self.cookie
            case 10:
                body = self.cookie
            case _:
                body = b""
        chunk = _CHUNK.pack(self.chunk, 0, 4 + len(body)) + body + b"\0" * (-len(body) % 4)
        header = _HEADER.pack(self.source, self.destination, self.tag)
        # The checksum is computed with zeros in its place and is the one little-endian field (RFC 9260, 6.8).
        checksum = struct.pack("<I", crc32c(header + b"\0\0\0\0" + chunk))
        return header + checksum + chunk


def sctp_ports(data: bytes) -> tuple[int, int] | None:
    """Source and destination port of a packet of which perhaps only the start is there (ICMP errors quote it)."""
    if len(data) < 4:
        return None
    source, destination = struct.unpack_from("!HH", data)
    return source, destination


def decode_sctp(data: bytes) -> Sctp | None:
    """The first chunk of a packet; None when it is broken: too short or with a wrong checksum."""
    if len(data) < 16:
        return None
    (checksum,) = struct.unpack_from("<I", data, 8)
    if crc32c(data[:8] + b"\0\0\0\0" + data[12:]) != checksum:
        return None
    source, destination, tag = _HEADER.unpack_from(data)
    chunk, _, length = _CHUNK.unpack_from(data, 12)
    body = data[16 : 12 + length]
    if chunk not in {INIT, INIT_ACK}:
        return Sctp(source, destination, chunk, tag, cookie=body if chunk == COOKIE_ECHO else b"")
    if len(body) < _INIT.size:
        return None
    own_tag = _INIT.unpack_from(body)[0]
    return Sctp(source, destination, chunk, tag, own_tag, _state_cookie(body[_INIT.size :]))


def _state_cookie(parameters: bytes) -> bytes:
    while len(parameters) >= 4:
        kind, length = struct.unpack_from("!HH", parameters)
        if length < 4:
            break
        if kind == _STATE_COOKIE:
            return parameters[4:length]
        parameters = parameters[length + (-length % 4) :]
    return b""


def echo_request(version: int, payload: bytes, sequence: int = 1) -> bytes:
    """An ICMP or ICMPv6 echo request; a ping socket fills in identifier and checksum."""
    return struct.pack("!BBHHH", 8 if version == 4 else 128, 0, 0, 0, sequence) + payload


def echo_payload(version: int, data: bytes) -> bytes | None:
    """The payload of an echo reply; None for anything else."""
    if len(data) < 8 or data[0] != (0 if version == 4 else 129):
        return None
    return data[8:]


FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def internet_checksum(data: bytes) -> int:
    """The checksum of RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(source: Address, destination: Address, protocol: int, payload: bytes, *, hops: int = 64) -> bytes:
    """An IP packet of either family around `payload`, without options or extension headers."""
    if source.version == 6:
        header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops)
        return header + source.packed + destination.packed + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, hops, protocol, 0)
    header += source.packed + destination.packed
    checksum = struct.pack("!H", internet_checksum(header))
    return header[:10] + checksum + header[12:] + payload


def tcp(
    source: tuple[Address, int],
    destination: tuple[Address, int],
    flags: int,
    *,
    sequence: int = 0,
    acknowledged: int = 0,
    payload: bytes = b"",
) -> bytes:
    """An IP packet with one TCP segment (RFC 9293)."""
    header = struct.pack(
        "!HHIIBBHHH", source[1], destination[1], sequence, acknowledged, 5 << 4, flags, 65535, 0, 0
    )
    return _transport(source[0], destination[0], 6, header, at=16, payload=payload)


def udp(source: tuple[Address, int], destination: tuple[Address, int], payload: bytes) -> bytes:
    """An IP packet with one UDP datagram (RFC 768)."""
    header = struct.pack("!HHHH", source[1], destination[1], 8 + len(payload), 0)
    return _transport(source[0], destination[0], 17, header, at=6, payload=payload)


def _transport(
    source: Address, destination: Address, protocol: int, header: bytes, *, at: int, payload: bytes
) -> bytes:
    """Fill in the checksum at byte `at` of the header, over the pseudo-header of the family."""
    segment = header + payload
    pseudo = source.packed + destination.packed + struct.pack("!II", len(segment), protocol)
    checksum = struct.pack("!H", internet_checksum(pseudo + segment))
    segment = segment[:at] + checksum + segment[at + 2 :]
    return ip(source, destination, protocol, segment)
