"""The target model: tables as rows of numbers, the features that choose the C, and where programs attach.

Knows: how a row looks in memory (`Layout`), both ways, so that what is written can be read back. Must not know:
how rows come about, the C's text, or the kernel.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import NamedTuple

from k8snetc.backends.ebpf.features import Features

Values = tuple[int, ...]


class Kind(StrEnum):
    """A table's type (`enum bpf_map_type`)."""

    HASH = "hash"
    ARRAY = "array"
    LPM = "lpm"


class Type(StrEnum):
    """A field's type. `be16` and `be32` are in network order; a route takes four values (see `Route`)."""

    U8 = "u8"
    U16 = "u16"
    U32 = "u32"
    BE16 = "be16"
    BE32 = "be32"
    ADDRESS4 = "address4"
    ADDRESS6 = "address6"
    PAD8 = "pad8"
    PAD16 = "pad16"


_CODES = {
    Type.U8: "B",
    Type.U16: "H",
    Type.U32: "I",
    Type.BE16: "H",
    Type.BE32: "I",
    Type.ADDRESS4: "I",
    Type.ADDRESS6: "16s",
    Type.PAD8: "x",
    Type.PAD16: "2x",
}
_NETWORK_ORDER = {Type.BE16: 2, Type.BE32: 4, Type.ADDRESS4: 4}


@dataclass(frozen=True)
class Layout:
    """A C struct without holes: names and types of its fields, in order. Padding fields have no value."""

    fields: tuple[tuple[str, Type], ...]

    @cached_property
    def _struct(self) -> Struct:
        return Struct("=" + "".join(_CODES[t] for _, t in self.fields))

    @cached_property
    def valued(self) -> tuple[tuple[str, Type], ...]:
        """The fields that carry a value."""
        return tuple(f for f in self.fields if f[1] not in (Type.PAD8, Type.PAD16))

    @cached_property
    def _swaps(self) -> tuple[int, ...]:
        return tuple(_NETWORK_ORDER.get(t, 0) for _, t in self.valued)

    @cached_property
    def _wide(self) -> tuple[int, ...]:
        return tuple(i for i, (_, t) in enumerate(self.valued) if t is Type.ADDRESS6)

    @property
    def size(self) -> int:
        """Bytes of a value."""
        return self._struct.size

    def pack(self, values: Values) -> bytes:
        """The values in memory."""
        out: list[int | bytes] = list(values)
        if sys.byteorder == "little":
            for i, width in enumerate(self._swaps):
                if width:
                    out[i] = int.from_bytes(values[i].to_bytes(width, "big"), "little")
        for i in self._wide:
            out[i] = values[i].to_bytes(16, "big")
        return self._struct.pack(*out)

    def unpack(self, data: bytes) -> Values:
        """The values that `pack` made `data` from."""
        raw = self._struct.unpack(data)
        out: list[int] = []
        for i, value in enumerate(raw):
            if isinstance(value, bytes):
                out.append(int.from_bytes(value, "big"))
            elif self._swaps[i] and sys.byteorder == "little":
                out.append(int.from_bytes(value.to_bytes(self._swaps[i], "little"), "big"))
            else:
                out.append(value)
        return tuple(out)

    def text(self, values: Values) -> str:
        """The values for people: `address=10.0.0.1 port=80`, and a route as `cluster=0+2`."""
        words: list[str] = []
        at = 0
        while at < len(values):
            name, kind = self.valued[at]
            if name.endswith(".first"):
                words.append(f"{name.removesuffix('.first')}={_route(values[at : at + 4])}")
                at += 4
            else:
                words.append(f"{name}={_text(kind, values[at])}")
                at += 1
        return " ".join(words)


def _route(values: Values) -> str:
    """`0+2`: the two endpoints from slot 0 on; `0+2m`: masqueraded; otherwise what happens instead."""
    first, count, action, masquerade = values
    if action == 0:
        return f"{first}+{count}{'m' if masquerade else ''}"
    return ("", "reject", "drop", "packets")[action]


def _text(kind: Type, value: int) -> str:
    match kind:
        case Type.ADDRESS4:
            return str(IPv4Address(value))
        case Type.ADDRESS6:
            return str(IPv6Address(value))
        case _:
            return str(value)


class Row(NamedTuple):
    """One element of a table. `comment` is for people: the object that caused it."""

    key: Values
    value: Values
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A map of the generated program, with its content. Rows are in canonical order, without equal keys."""

    name: str
    kind: Kind
    key: Layout
    value: Layout
    rows: tuple[Row, ...]

    @property
    def capacity(self) -> int:
        """The size that the map is created with: exact, as every generation has its own."""
        return max(1, len(self.rows))


@dataclass(frozen=True, slots=True)
class Model:
    """Everything that the node runs: the features render to C, the tables are filled, the hooks attached.

    `profiles` names the enforcements behind the policy profiles, whose numbers are `numbers(profiles)`.
    """

    features: Features
    tables: tuple[Table, ...]
    profiles: tuple[str, ...] = ()
    nodeports: tuple[int, int] = (1, 0)
