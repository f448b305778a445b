"""EndpointSlices from their JSON text at once, as controllers write them: nearly all of a large cluster is endpoints.

Knows: which texts certainly mean to pydantic what they mean here; everything else is left to it, with all errors.
Must not know: files, Lists, what makes a slice as a whole valid (`manifests_endpoints`, which also takes the endpoints
made here). msgspec is imported on the way here, so import this module for large inputs only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType
from pydantic_core import PydanticCustomError

from k8snetc.compiler.counting import occurrences
from k8snetc.compiler.document import AtOnce, JsonValue, Shortcut
from k8snetc.compiler.fields import parse_endpoint_addresses
from k8snetc.compiler.manifests_endpoints import Conditions, Endpoint, Hints
from k8snetc.compiler.quick_slices_yaml import from_yaml

# Fields that are unknown here may hold anything, also keys that are there twice: such a slice is left to pydantic.


class _Conditions(Struct, forbid_unknown_fields=True, gc=False, frozen=True):
    ready: bool | UnsetType | None = UNSET
    serving: bool | UnsetType | None = UNSET
    terminating: bool | UnsetType | None = UNSET


class _Named(Struct, forbid_unknown_fields=True, gc=False):
    name: str


class _Hints(Struct, forbid_unknown_fields=True, gc=False, rename="camel"):
    for_zones: list[_Named] | UnsetType = UNSET
    for_nodes: list[_Named] | UnsetType = UNSET


class _Endpoint(Struct, forbid_unknown_fields=True, gc=False, rename="camel"):
    addresses: list[str]
    conditions: _Conditions | UnsetType = UNSET
    hostname: str | UnsetType = UNSET
    node_name: str | UnsetType = UNSET
    zone: str | UnsetType = UNSET
    hints: _Hints | UnsetType = UNSET
    target_ref: dict[str, str] | UnsetType = UNSET  # means nothing here


class _Slice(Struct, forbid_unknown_fields=True, gc=False, rename="camel"):
    api_version: str
    kind: str
    metadata: dict[str, object]
    address_type: str
    endpoints: list[_Endpoint]
    ports: list[dict[str, object]] | UnsetType = UNSET


_MARK: Final = b'"EndpointSlice"'
_decode: Final = msgspec.json.Decoder(_Slice).decode
_encode: Final = msgspec.json.Encoder().encode


def from_json(text: bytes) -> Shortcut | None:
    """The slice that a JSON object in UTF-8 is; None where it is something else, or may have an error in it."""
    if _MARK not in text or b"\\" in text:
        return None
    try:
        one = _decode(text)
        if one.kind != "EndpointSlice" or one.address_type == "FQDN":
            return None
        endpoints, colons = _endpoints(one.endpoints)
    except (msgspec.DecodeError, PydanticCustomError, RecursionError, ValueError):
        return None
    value: dict[str, JsonValue] = {
        "apiVersion": one.api_version,
        "kind": one.kind,
        "metadata": cast(JsonValue, one.metadata),
        "addressType": one.address_type,
    }
    if one.ports is not UNSET:
        value["ports"] = cast(JsonValue, one.ports)
    return Shortcut(value, {"endpoints": endpoints}, occurrences(_encode(value), b":") + 1 + colons)


def _endpoints(given: list[_Endpoint]) -> tuple[tuple[Endpoint, ...], int]:
    """The endpoints, and the colons in their text: one for each key, and those in addresses.

    A name with a colon in it is a difference to the text, and so goes the other way, as a key that is there twice.
    """
    texts = [text for (text,) in [one.addresses for one in given]]  # more are allowed, but nobody writes them
    colons = "".join(texts).count(":")
    endpoints = []
    for one, address in zip(given, parse_endpoint_addresses(texts), strict=True):
        conditions, inner = _conditions(one.conditions)
        colons += 1 + inner
        hints = None
        if one.hints is not UNSET:
            hints, inner = _hints(_names(one.hints.for_zones), _names(one.hints.for_nodes))
            colons += inner
        if one.target_ref is not UNSET:
            colons += 1 + len(one.target_ref)
        colons += (one.hostname is not UNSET) + (one.node_name is not UNSET) + (one.zone is not UNSET)
        endpoints.append(
            Endpoint((address,), conditions, one.hostname or "", one.node_name or "", one.zone or "", hints)
        )
    return tuple(endpoints), colons


@lru_cache(maxsize=64)
def _conditions(given: _Conditions | UnsetType) -> tuple[Conditions, int]:
    """The conditions, and how many keys they are written with."""
    if given is UNSET:
        return Conditions(), 0
    fields = msgspec.to_builtins(given)
    return Conditions.model_validate(fields), 1 + len(fields)


def _names(given: list[_Named] | UnsetType) -> tuple[str, ...] | None:
    return None if given is UNSET else tuple([one.name for one in given])


@lru_cache(maxsize=1 << 10)
def _hints(zones: tuple[str, ...] | None, nodes: tuple[str, ...] | None) -> tuple[Hints, int]:
    """The hints, and how many keys they are written with."""
    given = {"forZones": zones, "forNodes": nodes}
    fields = {key: [{"name": name} for name in names] for key, names in given.items() if names is not None}
    return Hints.model_validate(fields), 1 + len(fields) + sum(map(len, fields.values()))


AT_ONCE: Final = AtOnce("EndpointSlice", from_json, from_yaml)
"""EndpointSlices, for those who read files."""
