"""A program as plain data and back: JSON for files that machines keep (receipts, journals, saved plans).

Knows: how any frozen dataclass of `ir.types` maps to JSON, from its annotations. Must not know: files, or single
fields, so that a new field of the IR is kept without a change here (and files of an older IR are refused). The text for
people is `ir.text`; this form is for speed. Everything is kept, origins too: `from_json(to_json(p)) == p`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Union, get_args, get_origin, get_type_hints

import orjson

from k8snetc.ir.types import Origin, PortRange, Prefix, Program

FORMAT = 1
_Decode = Callable[[object], object]
_ADDRESSES = (IPv4Address, IPv6Address)
_NETWORKS = (IPv4Network, IPv6Network)


class DataError(ValueError):
    """The bytes are no program of this format."""


def to_json(program: Program) -> bytes:
    """The program as one line of JSON; equal programs with equal origins give equal bytes."""
    return orjson.dumps({"program_format": FORMAT, "program": program}, default=_plain)


def from_json(data: bytes) -> Program:
    """The program that `to_json` wrote. Raises `DataError` for anything else."""
    try:
        document = orjson.loads(data)
        if not isinstance(document, dict) or document.get("program_format") != FORMAT:
            raise DataError(f"no program of format {FORMAT}")
        program = _decoder(Program)(document["program"])
    except (KeyError, TypeError, ValueError) as e:
        raise e if isinstance(e, DataError) else DataError(f"no program: {e}") from e
    if not isinstance(program, Program):
        raise DataError("no program")
    return program


def _plain(value: object) -> object:
    """What orjson doesn't write by itself: addresses, and named tuples (its integers end at 64 bits)."""
    if isinstance(value, Prefix):
        return [str(value.value) if value.value >> 63 else value.value, value.length]
    if isinstance(value, PortRange):
        return [value.first, value.last]
    if isinstance(value, (*_ADDRESSES, *_NETWORKS)):
        return str(value)
    raise TypeError(f"{type(value)} has no place in a program")


@cache
def _decoder(kind: object) -> _Decode:
    """The function that makes a value of this annotation from JSON."""
    origin = get_origin(kind)
    if origin is tuple:
        (each, _) = get_args(kind)
        decode = _decoder(each)
        return lambda v: tuple(map(decode, _list(v)))
    if origin in (Union, types.UnionType):
        return _union(get_args(kind))
    if not isinstance(kind, type):
        raise TypeError(f"{kind} has no place in a program")
    if issubclass(kind, (*_ADDRESSES, *_NETWORKS)):
        # Programs repeat their addresses; one object for each also saves memory.
        return cache(kind)
    if issubclass(kind, Enum):
        members = {m.value: m for m in kind}
        return lambda v: members[v]
    if issubclass(kind, Prefix | PortRange):
        return lambda v: kind(*[_integer(n) for n in _list(v)])
    if is_dataclass(kind):
        return _dataclass(kind)
    return _exactly(kind)


def _exactly(kind: type) -> _Decode:
    def decode(value: object) -> object:
        if type(value) is not kind:
            raise TypeError(f"{value!r} is no {kind.__name__}")
        return value

    return decode


def _dataclass(kind: type) -> _Decode:
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)]
    decoders = [_decoder(hints[n]) for n in names]
    known: dict[tuple[object, ...], object] | None = {} if kind is Origin else None

    def decode(value: object) -> object:
        if not isinstance(value, dict) or list(value) != names:
            raise TypeError(f"{value!r} is no {kind.__name__}")
        if known is None:
            return kind(*[make(v) for make, v in zip(decoders, value.values(), strict=True)])
        # One manifest object causes much of a program: one value for it.
        key = tuple(value.values())
        if key not in known:
            known[key] = kind(*[make(v) for make, v in zip(decoders, key, strict=True)])
        return known[key]

    return decode


def _union(kinds: tuple[object, ...]) -> _Decode:
    """One of several: told apart by the JSON type, dataclasses by their fields, addresses by their text."""
    if set(kinds) <= {*_ADDRESSES, type(None)}:
        return cache(lambda v: None if v is None else ip_address(v))
    if set(kinds) <= set(_NETWORKS):
        return cache(ip_network)
    classes: list[tuple[frozenset[str], _Decode]] = [
        (frozenset(f.name for f in fields(k)), _decoder(k))
        for k in kinds
        if isinstance(k, type) and is_dataclass(k)
    ]
    others = [
        _decoder(k) for k in kinds if not (isinstance(k, type) and is_dataclass(k)) and k is not type(None)
    ]
    optional = type(None) in kinds

    def decode(value: object) -> object:
        if value is None and optional:
            return None
        if isinstance(value, Mapping):
            return next((make for names, make in classes if names == set(value)), _refuse)(value)
        return next(iter(others), _refuse)(value)

    return decode


def _refuse(value: object) -> object:
    raise TypeError(f"{value!r} fits no field of a program")


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value


def _integer(value: object) -> int:
    if isinstance(value, int | str):
        return int(value)
    raise TypeError(f"{value!r} is no integer")
