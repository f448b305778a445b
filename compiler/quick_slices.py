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
from k8snetc.compiler.fields import parse_endpoint_address
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


class _Reference(Struct, forbid_unknown_fields=True, gc=False, rename="camel"):
    api_version: str | UnsetType = UNSET
    kind: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    namespace: str | UnsetType = UNSET
    resource_version: str | UnsetType = UNSET
    uid: str | UnsetType = UNSET


class _Endpoint(Struct, forbid_unknown_fields=True, gc=False, rename="camel"):
    addresses: list[str]
    conditions: _Conditions | UnsetType = UNSET
    hostname: str | UnsetType = UNSET
    node_name: str | UnsetType = UNSET
    zone: str | UnsetType = UNSET
    hints: _Hints | UnsetType = UNSET
    target_ref: _Reference | UnsetType = UNSET


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
        endpoints = tuple([_endpoint(e) for e in one.endpoints])
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
    return Shortcut(value, {"endpoints": endpoints}, occurrences(_encode(one), b":"))


def _endpoint(one: _Endpoint) -> Endpoint:
    (address,) = one.addresses  # more are allowed, but nobody writes them
    return Endpoint(
        (parse_endpoint_address(address),),
        _conditions(one.conditions),
        one.hostname or "",
        one.node_name or "",
        one.zone or "",
        None if one.hints is UNSET else _hints(_names(one.hints.for_zones), _names(one.hints.for_nodes)),
    )


@lru_cache(maxsize=64)
def _conditions(given: _Conditions | UnsetType) -> Conditions:
    return Conditions() if given is UNSET else Conditions.model_validate(msgspec.to_builtins(given))


def _names(given: list[_Named] | UnsetType) -> tuple[str, ...] | None:
    return None if given is UNSET else tuple([one.name for one in given])


@lru_cache(maxsize=1 << 10)
def _hints(zones: tuple[str, ...] | None, nodes: tuple[str, ...] | None) -> Hints:
    given = {"forZones": zones, "forNodes": nodes}
    return Hints.model_validate(
        {key: [{"name": name} for name in names] for key, names in given.items() if names is not None}
    )


AT_ONCE: Final = AtOnce("EndpointSlice", from_json, from_yaml)
"""EndpointSlices, for those who read files."""
