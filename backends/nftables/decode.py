"""Elements as the kernel holds them, turned into the text of the model.

Knows: how keys and values of our sets and maps are laid out in registers. Must not know: sockets, what sets are for.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from ipaddress import IPv6Address
from itertools import repeat
from socket import inet_ntoa

from k8snetc.backends.nftables.netlink import attributes
from k8snetc.ir.addresses import cover
from k8snetc.ir.types import Family

_KEY, _DATA, _FLAGS, _KEY_END = 1, 2, 3, 10  # NFTA_SET_ELEM_*
_INTERVAL_END = 1  # NFT_SET_ELEM_INTERVAL_END
_VERDICTS = {0: "drop", 1: "accept", -1: "continue", -3: "jump", -4: "goto", -5: "return"}

Show = Callable[[bytes], str]


@cache
def _ipv6(value: bytes) -> str:
    return str(IPv6Address(value))


@cache
def _protocol(value: bytes) -> str:
    return {6: "tcp", 17: "udp", 132: "sctp"}.get(value[0], str(value[0]))


@cache
def _port(value: bytes) -> str:
    return str(int.from_bytes(value, "big"))


@cache
def _number(value: bytes) -> str:
    return str(int.from_bytes(value, sys.byteorder))


@cache
def _byte(value: bytes) -> str:
    return f"0x{value[0]:x}"


_FIELDS: dict[str, tuple[int, Show]] = {
    "ipv4_addr": (4, inet_ntoa),
    "ip saddr": (4, inet_ntoa),
    "ip daddr": (4, inet_ntoa),
    "ipv6_addr": (16, _ipv6),
    "ip6 saddr": (16, _ipv6),
    "ip6 daddr": (16, _ipv6),
    "@nh,96,8": (1, _byte),
    "@nh,128,8": (1, _byte),
    "meta l4proto": (1, _protocol),
    "th dport": (2, _port),
    "tcp dport": (2, _port),
    "udp dport": (2, _port),
    "sctp dport": (2, _port),
    "numgen random mod 2": (4, _number),
}


class Layout:
    """How the registers of a concatenation are read: fields, each padded to four bytes."""

    def __init__(self, expression: str) -> None:
        fields = [_FIELDS[f] for f in expression.split(" . ")]
        self.format = "".join(f"{size}s{-size % 4}x" for size, _ in fields)
        # A key that is no concatenation comes without padding.
        if len(fields) == 1:
            self.format = f"{fields[0][0]}s"
        self.struct = struct.Struct(self.format)
        self.shows = tuple(show for _, show in fields)

    def text(self, parts: Iterable[bytes]) -> str:
        """The words of unpacked fields."""
        return " . ".join([show(part) for show, part in zip(self.shows, parts, strict=True)])

    def texts(self, columns: Sequence[Sequence[bytes]]) -> Iterator[str]:
        """The words of many: a column for each field."""
        words = [map(show, column) for show, column in zip(self.shows, columns, strict=True)]
        return map(" . ".join, zip(*words, strict=True))

    def read(self, data: bytes, at: int) -> str:
        """The words of the fields at that place."""
        return self.text(self.struct.unpack_from(data, at))


class RepeatedError(Exception):
    """An element came twice: the kernel moved the set to another hash table meanwhile, so others did not come."""


def decode(spec: tuple[str, ...], lists: Iterable[bytes]) -> dict[str, str]:
    """The elements in the kernel's lists, of a set or map declared so.

    Raises `ValueError` for a set that isn't ours, `RepeatedError` if it is to be read again.
    """
    declared = spec[0].split(" ", 1)[1]
    key_words, _, value_words = declared.partition(" : ")
    try:
        key = Layout(key_words)
        value = Layout(value_words) if value_words not in {"", "verdict"} else None
    except KeyError as e:
        raise ValueError(f"{e} is no field of our sets") from e
    if "flags interval" in spec:
        return dict.fromkeys(_intervals(key, lists), "")
    found: dict[str, str] = {}
    count = 0
    for data in lists:
        if value_words != "verdict":
            quick = _alike(key, value, data)
            if quick is not None:
                count += len(quick)
                found.update(quick)
                continue
        for _, begin, end in attributes(data, 0, len(data)):
            at = {kind: (b, e) for kind, b, e in attributes(data, begin, end)}
            shown = key.read(data, at[_KEY][0] + 4)
            count += 1
            if value is not None:
                found[shown] = value.read(data, at[_DATA][0] + 4)
            else:
                first, last = at.get(_DATA, (0, 0))
                found[shown] = _verdict(data[first:last]) if value_words else ""
    if count != len(found):
        raise RepeatedError(f"{count - len(found)} elements twice")
    return found


def _alike(key: Layout, value: Layout | None, data: bytes) -> list[tuple[str, str]] | None:
    """The elements of a list in which all have the same attributes; None if they don't."""
    one = struct.Struct(f"12s{key.format}" + ("" if value is None else f"8s{value.format}"))
    if not data or len(data) % one.size:
        return None
    # Columns instead of rows: then the loops are those of the interpreter, and a hundred thousand elements are quick.
    heads, *columns = zip(*one.iter_unpack(data), strict=True)
    width = len(key.shows)
    if len(set(heads)) > 1 or _sizes(heads[0], one.size, key.struct.size):
        return None
    keys = key.texts(columns[:width])
    if value is None:
        return list(zip(keys, repeat("")))
    heads = columns[width]
    if len(set(heads)) > 1 or _value_sizes(heads[0], value.struct.size):
        return None
    return list(zip(keys, value.texts(columns[width + 1 :]), strict=True))


def _sizes(head: bytes, size: int, key_size: int) -> bool:
    """Whether the head of an element is not that of one with a key of that size first."""
    length, _, nest, kind, inner, _ = struct.unpack("=6H", head)
    return (length, nest, kind & 0x3FFF, inner) != (size, key_size + 8, _KEY, key_size + 4)


def _value_sizes(head: bytes, value_size: int) -> bool:
    nest, kind, inner, what = struct.unpack("=4H", head)
    return (nest, kind & 0x3FFF, inner, what & 0x3FFF) != (value_size + 8, _DATA, value_size + 4, 1)


@lru_cache(maxsize=4096)
def _verdict(data: bytes) -> str:
    """A verdict; most elements of a map have one of a few."""
    for _, b, e in attributes(data, 0, len(data)):
        inner = {kind: (x, y) for kind, x, y in attributes(data, b, e)}
        code = int.from_bytes(data[inner[1][0] : inner[1][1]], "big", signed=True)
        word = _VERDICTS.get(code, str(code))
        if 2 in inner:
            chain = data[inner[2][0] : inner[2][1]].rstrip(b"\0").decode("utf-8", "replace")
            return f"{word} {chain}"
        return word
    return "?"


# --- intervals ---


def _intervals(key: Layout, lists: Iterable[bytes]) -> Iterator[str]:
    if len(key.shows) > 1:
        yield from _boxes(key, lists)
        return
    size = key.struct.size
    family = Family.IPV4 if size == 4 else Family.IPV6
    edges: list[tuple[int, bool]] = []
    for data in lists:
        for _, begin, end in attributes(data, 0, len(data)):
            at = {kind: (b, e) for kind, b, e in attributes(data, begin, end)}
            first = at[_KEY][0] + 4
            flags = int.from_bytes(data[at[_FLAGS][0] : at[_FLAGS][1]], "big") if _FLAGS in at else 0
            # An end comes before a beginning at the same place.
            edges.append((int.from_bytes(data[first : first + size], "big"), not flags & _INTERVAL_END))
    begun: int | None = None
    for at_value, begins in sorted(edges):
        if begins:
            begun = at_value
        elif begun is not None:
            yield _range(key, family, begun, at_value - 1)
            begun = None
    if begun is not None:
        yield _range(key, family, begun, (1 << family.bits) - 1)


def _boxes(key: Layout, lists: Iterable[bytes]) -> Iterator[str]:
    """Concatenations of which the last field is a range of addresses."""
    for data in lists:
        for _, begin, end in attributes(data, 0, len(data)):
            at = {kind: b + 4 for kind, b, _ in attributes(data, begin, end)}
            low = key.struct.unpack_from(data, at[_KEY])
            high = key.struct.unpack_from(data, at.get(_KEY_END, at[_KEY]))
            family = Family.IPV4 if len(low[-1]) == 4 else Family.IPV6
            head = " . ".join([show(part) for show, part in zip(key.shows, low[:-1], strict=False)])
            last = _range(key, family, int.from_bytes(low[-1], "big"), int.from_bytes(high[-1], "big"))
            yield f"{head} . {last}" if low[:-1] == high[:-1] else f"{key.text(low)}-{key.text(high)}"


def _range(key: Layout, family: Family, first: int, last: int) -> str:
    """A range of addresses: as a prefix, if it is one."""
    show, size = key.shows[-1], family.bits // 8
    low = show(first.to_bytes(size, "big"))
    prefixes = cover(family, [(first, last)])
    if len(prefixes) > 1:
        return f"{low}-{show(last.to_bytes(size, 'big'))}"
    return low if first == last else f"{low}/{prefixes[0].length}"
