"""The elements of one set as the kernel holds them, and whether anything has changed at all, over nfnetlink.

Knows: the message format (linux/netfilter/nf_tables.h). Must not know: what the bytes of a key mean.

libnftables lists a set too, but it builds and sorts an expression for each element first: with 100,000 elements
that takes four times as long as this.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_NETFILTER = 12  # NETLINK_NETFILTER
_GETSETELEM = (10 << 8) | 13  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM
_GETGEN = (10 << 8) | 16  # NFT_MSG_GETGEN
_REQUEST, _REQUEST_DUMP = 0x1, 0x301
_DONE, _ERROR = 3, 2
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR
_ELEMENTS = 3  # NFTA_SET_ELEM_LIST_ELEMENTS
_GEN_ID = 1  # NFTA_GEN_ID
_TYPE = 0x3FFF
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ATTEMPTS = 20
_BUFFER = 1 << 20


class ChangedError(Exception):
    """The set changed again and again while it was read."""


def element_lists(family: int, table: str, name: str) -> list[bytes]:
    """The payloads of all lists of elements of a set. `family` is NFPROTO_IPV4 (2) or NFPROTO_IPV6 (10).

    Raises `OSError` as the kernel answers, `ChangedError` if others never let it be.
    """
    for _ in range(_ATTEMPTS):
        try:
            return list(_dump(family, table, name))
        except _InterruptedError:
            continue
    raise ChangedError(f"{table} {name}")


def generation() -> tuple[int, int]:
    """What tells a ruleset from every other: the network namespace, and the number of its last transaction.

    The kernel counts transactions of everybody in the namespace (since Linux 3.13). Raises `OSError`.
    """
    place = os.stat("/proc/thread-self/ns/net").st_ino
    with _socket() as s:
        s.send(_HEADER.pack(_HEADER.size + 4, _GETGEN, _REQUEST, 1, 0) + bytes(4))
        data = s.recv(_BUFFER)
    length, kind, *_ = _HEADER.unpack_from(data)
    _raise_error(data, 0, kind, "the number of the last transaction")
    for what, begin, end in attributes(data, _HEADER.size + 4, length):
        if what == _GEN_ID:
            return place, int.from_bytes(data[begin:end], "big")
    raise OSError(errno.ENODATA, os.strerror(errno.ENODATA), "the number of the last transaction")


class _InterruptedError(Exception):
    """Somebody changed the rules in the middle of the dump."""


def attributes(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, begin and end of the payload of each attribute in `data[at:end]`."""
    while at + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & _TYPE, at + 4, at + length
        at += (length + 3) & ~3


def _dump(family: int, table: str, name: str) -> Iterator[bytes]:
    body = struct.pack("=BBH", family, 0, 0) + _text(1, table) + _text(2, name)
    with _socket() as s:
        s.send(_HEADER.pack(_HEADER.size + len(body), _GETSETELEM, _REQUEST_DUMP, 1, 0) + body)
        while True:
            data = s.recv(_BUFFER)
            at = 0
            while at < len(data):
                length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
                if flags & _INTERRUPTED:
                    raise _InterruptedError
                if kind == _DONE:
                    return
                _raise_error(data, at, kind, f"{table} {name}")
                for what, begin, end in attributes(data, at + _HEADER.size + 4, at + length):
                    if what == _ELEMENTS:
                        yield data[begin:end]
                at += (length + 3) & ~3


@contextmanager
def _socket() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as s:
        s.bind((0, 0))
        yield s


def _raise_error(data: bytes, at: int, kind: int, what: str) -> None:
    """Raise what the message at that place says, if it is an error."""
    if kind == _ERROR:
        code = -int(struct.unpack_from("=i", data, at + _HEADER.size)[0])
        raise OSError(code, os.strerror(code), what)


def _text(kind: int, value: str) -> bytes:
    payload = value.encode("utf-8") + b"\0"
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)
