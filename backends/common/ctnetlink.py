"""The kernel's connection table over netlink: read by kinds of connections, marked and forgotten by entries.

Knows: ctnetlink (linux/netfilter/nfnetlink_conntrack.h). Must not know: programs, policy, why a connection is marked.

A busy node has a hundred thousand entries, and only some thousand kinds: connections that differ in nothing but the
client's port. Of an entry only what tells its kind is looked at, and only a kind is read as a whole. The conntrack tool
can't be used: it goes through the whole table for each kind that it changes, and fails where that takes a second
(docs/decisions/0041).

The direction of an entry is that of the first packet that was seen. In the middle of a connection that may be one of
the side that answers (`nf_conntrack_tcp_loose`). The kernel can't check the windows of such a connection, for it has
not seen how they are scaled, and tells so in the entry's TCP flags (net/netfilter/nf_conntrack_proto_tcp.c, `tcp_new`).
Entries that were in a flow table bear the flag, too.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from k8snetc.backends.target import InstallError
from k8snetc.ir.types import Address, Protocol

_NETLINK_NETFILTER = 12
_CTNETLINK = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_SET, _GET, _DELETE = 0, 1, 2  # enum cntl_msg_types: IPCTNL_MSG_CT_...
_REQUEST, _ACKNOWLEDGE, _DUMP = 0x1, 0x4, 0x300  # NLM_F_...
_ERROR, _DONE = 2, 3  # NLMSG_...
_HEADER = struct.Struct(
    "=IHHIIBBH"
)  # struct nlmsghdr: length, type, flags, number, port; struct nfgenmsg: family...
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_TYPE = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_ORIGINAL, _REPLY, _PROTOCOL, _MARK, _ID, _ZONE, _MASK = 1, 2, 4, 8, 12, 18, 21  # enum ctattr_type: CTA_...
_IP, _PROTO = 1, 2  # enum ctattr_tuple: CTA_TUPLE_...
_SOURCES, _DESTINATIONS = (1, 3), (2, 4)  # enum ctattr_ip: CTA_IP_V4_SRC, V4_DST, V6_SRC, V6_DST
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3  # enum ctattr_l4proto: CTA_PROTO_...
_TCP, _TCP_FLAGS = 1, 4  # CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL
_BE_LIBERAL = 0x08  # IP_CT_TCP_FLAG_BE_LIBERAL
_PORTS_HEADS = (_ATTRIBUTE.pack(6, _SOURCE_PORT), _ATTRIBUTE.pack(6, _DESTINATION_PORT))
_LARGEST = 1 << 18
"""More than the kernel puts into one answer (net/netlink/af_netlink.c: 32 KiB)."""

_PROTOCOLS = {6: Protocol.TCP, 17: Protocol.UDP, 132: Protocol.SCTP}


@dataclass(frozen=True, slots=True)
class Flow:
    """Connections of one kind: as their first packet was (`source` to `destination`), and where they really go.

    `protocol` None: another than these; ports that aren't there are 0. `source_port` is known where it matters: for a
    connection that was picked up in its middle, so that either end may have asked. `entries` name them to the kernel.
    """

    protocol: Protocol | None
    source: Address
    destination: Address
    port: int
    endpoint: Address
    endpoint_port: int
    mark: int = 0
    source_port: int | None = None
    entries: tuple[Entry, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """One connection, in the kernel's words: its family, and attributes that say which it is."""

    family: int
    name: bytes
    number: bytes


def flows(mask: int, only: Protocol | None = None) -> list[Flow]:
    """All connections of the caller's network namespace by kinds; of their marks only the bits of `mask` count.

    Raises `InstallError`.
    """
    kinds: dict[object, tuple[Flow, list[Entry]]] = {}
    with _kernel("does not tell which connections it tracks") as kernel:
        kernel.send(_message(_GET, _REQUEST | _DUMP, socket.AF_UNSPEC))
        for message in _answers(kernel):
            parts = dict(_attributes(message, _HEADER.size, len(message)))
            original, reply = parts[_ORIGINAL], parts[_REPLY]
            mark = int.from_bytes(parts.get(_MARK, b"")) & mask
            picked_up = _PROTOCOL in parts and _is_picked_up(parts[_PROTOCOL])
            kind = (_without_port(original, 12), _without_port(reply, 4), mark, picked_up and original)
            if kind not in kinds:
                kinds[kind] = (_flow(original, reply, mark, picked_up=picked_up), [])
            zone = _attribute(_ZONE, parts[_ZONE]) if _ZONE in parts else b""
            name = _attribute(_ORIGINAL | 0x8000, original) + zone  # NLA_F_NESTED
            kinds[kind][1].append(Entry(message[16], name, _attribute(_ID, parts[_ID])))
    return [replace(f, entries=tuple(e)) for f, e in kinds.values() if only is None or f.protocol is only]


def set_mark(entries: Iterable[Entry], mark: int, mask: int) -> None:
    """Give connections `mark` in the bits of `mask`; those that have ended don't matter. Raises `InstallError`."""
    value = _attribute(_MARK, mark.to_bytes(4)) + _attribute(_MASK, mask.to_bytes(4))
    _tell("does not mark connections", _SET, ((e, e.name + value) for e in entries))


def forget(entries: Iterable[Entry]) -> None:
    """Remove connections from the table; those that have ended don't matter. Raises `InstallError`."""
    _tell("does not forget connections", _DELETE, ((e, e.name + e.number) for e in entries))


def _tell(what: str, kind: int, requests: Iterable[tuple[Entry, bytes]]) -> None:
    with _kernel(what) as kernel:
        for entry, attributes in requests:
            kernel.send(_message(kind, _REQUEST | _ACKNOWLEDGE, entry.family, attributes))
            try:
                for _ in _answers(kernel):
                    pass
            except OSError as e:
                if e.errno != errno.ENOENT:
                    raise


@contextmanager
def _kernel(what: str) -> Iterator[socket.socket]:
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
            yield kernel
    except OSError as e:
        raise InstallError(
            f"the kernel {what}: {e.strerror}; it needs root (CAP_NET_ADMIN) and the module nf_conntrack_netlink"
        ) from e


def _message(kind: int, flags: int, family: int, attributes: bytes = b"") -> bytes:
    return (
        _HEADER.pack(_HEADER.size + len(attributes), _CTNETLINK | kind, flags, 1, 0, family, 0, 0)
        + attributes
    )


def _answers(kernel: socket.socket) -> Iterator[bytes]:
    """The messages until the kernel says that it is done. Raises OSError where it refuses."""
    while True:
        data = kernel.recv(_LARGEST)
        at = 0
        while at < len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if kind in {_DONE, _ERROR}:  # both say 0, or what is wrong
                code = struct.unpack_from("=i", data, at + 16)[0]
                if code < 0:
                    raise OSError(-code, os.strerror(-code))
                return
            yield data[at : at + length]
            at += (length + 3) & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(
    data: bytes, at: int, end: int, unpack: Callable[[bytes, int], tuple[int, int]] = _ATTRIBUTE.unpack_from
) -> Iterator[tuple[int, bytes]]:
    while at < end:
        length, kind = unpack(data, at)
        yield kind & _TYPE, data[at + 4 : at + length]
        at += (length + 3) & ~3


def _inside(data: bytes) -> dict[int, bytes]:
    return dict(_attributes(data, 0, len(data)))


def _without_port(ends: bytes, at: int) -> bytes:
    """A tuple without one of its ports, which begins so many bytes before the end; all of it if it has no ports."""
    return ends[:-at] + ends[-at + 2 :] if (ends[-16:-12], ends[-8:-4]) == _PORTS_HEADS else ends


def _is_picked_up(of: bytes) -> bool:
    flags = _inside(_inside(of).get(_TCP, b"")).get(_TCP_FLAGS, b"\0")
    return bool(flags[0] & _BE_LIBERAL)


def _flow(original: bytes, reply: bytes, mark: int, *, picked_up: bool) -> Flow:
    number, source, source_port, destination, port = _ends(original)
    _, endpoint, endpoint_port, _, _ = _ends(reply)
    return Flow(
        _PROTOCOLS.get(number),
        source,
        destination,
        port,
        endpoint,
        endpoint_port,
        mark,
        source_port if picked_up else None,
    )


def _ends(of: bytes) -> tuple[int, Address, int, Address, int]:
    parts = _inside(of)
    addresses, ports = _inside(parts[_IP]), _inside(parts[_PROTO])
    source, destination = (
        ip_address(next(addresses[k] for k in kinds if k in addresses)) for kinds in (_SOURCES, _DESTINATIONS)
    )
    return (
        ports[_NUMBER][0],
        source,
        int.from_bytes(ports.get(_SOURCE_PORT, b"")),
        destination,
        int.from_bytes(ports.get(_DESTINATION_PORT, b"")),
    )
