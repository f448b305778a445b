"""The field types that manifests are made of: addresses, CIDRs, ports, names, labels, with the API server's checks.

Knows: what the API server accepts in one field, and what to tell the user where it does not. Must not know: objects,
files, or how fields hang together. Part of the pydantic border, with the other `manifests_*` modules.

Sources: k8s.io/apimachinery/pkg/util/validation, RFC 1123, RFC 1035, RFC 6335.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_pton
from struct import unpack
from typing import Annotated, Literal, LiteralString, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    PlainValidator,
    Strict,
    model_validator,
)
from pydantic_core import PydanticCustomError

from k8snetc.ir.types import Address, Network, Origin

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_LEADING_ZERO = re.compile(r"(^|\.)0[0-9]")
_IS_NUMBER = re.compile(r"[0-9]+")
_DOTTED = re.compile(r"[0-9]+(\.[0-9]+){3}")


def refuse(what: str, fix: str) -> PydanticCustomError:
    """The error of a field: what is wrong, and what to do. `validate` puts file, line and field before it."""
    form: LiteralString = "{what}; {fix}"
    return PydanticCustomError("refused", form, {"what": what, "fix": fix})


class Problems:
    """What is wrong between the fields of one object, all of it: collected, then raised as one error.

    `at` is the path below the object that is being validated, in the API's names: `("ports", 1, "name")`.
    """

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: list[tuple[tuple[str | int, ...], str, str]] = []

    def add(self, at: tuple[str | int, ...], what: str, fix: str) -> None:
        """Note one problem."""
        self._found.append((at, what, fix))

    def add_error(self, at: tuple[str | int, ...], error: PydanticCustomError) -> None:
        """Note a field's own error, raised by `refuse`."""
        context = error.context or {}
        self._found.append((at, str(context.get("what")), str(context.get("fix"))))

    def check(self) -> None:
        """Raise if there is any problem."""
        if self._found:
            raise PydanticCustomError(
                "refused_all", "{count} problems", {"count": len(self._found), "all": self._found}
            )


# Parts of camelCase names that the API writes in capitals.
_CAPITALS = {"ip": "IP", "ips": "IPs", "cidr": "CIDR", "cidrs": "CIDRs"}


def api_name(attribute: str) -> str:
    """The API's name of a snake_case attribute: `cluster_ips` -> `clusterIPs`."""
    first, *rest = attribute.split("_")
    return first + "".join(_CAPITALS.get(part) or part.capitalize() for part in rest)


class Model(BaseModel):
    """A frozen piece of a manifest: API names in, snake_case out; fields that don't matter here are ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=api_name,
        hide_input_in_errors=True,
        protected_namespaces=(),
        defer_build=True,  # a kind's validator is made when the first object of that kind is there
    )


class Exact(Model):
    """A piece in which an unknown field is an error, because a misspelt one would open or shut a hole."""

    model_config = ConfigDict(extra="forbid")


# --- plain types, without the conversions that the API server does not do ----------------------------------

Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Int = Annotated[int, Strict()]


# --- addresses -----------------------------------------------------------------------------------------------


def _usual_address(text: str) -> Address | None:
    """An address that is written as nearly all are; None where `ipaddress` has to say what it is.

    inet_pton(3) takes IPv4 in exactly the form that is wanted, six times as fast as `ipaddress`; of IPv6 all but zones.
    """
    try:
        if ":" not in text:
            return IPv4Address(int.from_bytes(inet_pton(AF_INET, text), "big"))
        value = int.from_bytes(inet_pton(AF_INET6, text), "big")
    except (OSError, ValueError):  # ValueError: a NUL in the text
        return None
    return None if value >> 32 == 0xFFFF else IPv6Address(value)  # that is IPv4-mapped


@lru_cache(maxsize=1 << 18)
def parse_address(text: str) -> Address:
    """An IP address as the API server takes it for new objects. Raises the field error otherwise."""
    usual = _usual_address(text)
    if usual is not None:
        return usual
    try:
        address = IPv6Address(text)
    except ValueError:
        raise _no_address(text) from None
    if address.scope_id is not None:
        raise refuse(f"{text!r} has a zone", "leave the % and what follows")
    if address.ipv4_mapped is not None:
        raise refuse(f"{text!r} is an IPv4-mapped IPv6 address", f"write {address.ipv4_mapped}")
    return address


def _no_address(text: str) -> PydanticCustomError:
    if text != text.strip():
        return refuse(f"{text!r} has blanks around it", "write the address alone")
    if "/" in text:
        return refuse(f"{text!r} is a CIDR block", "an address stands here: leave the / and what follows")
    if _LEADING_ZERO.search(text) and _DOTTED.fullmatch(text):
        return refuse(
            f"{text!r} has leading zeros, which some read as octal", "write the address without them"
        )
    return refuse(f"{text!r} is no IP address", "write an IPv4 or IPv6 address, as 10.1.2.3 or fd00::1")


@lru_cache(maxsize=1 << 16)
def parse_network(text: str) -> Network:
    """A CIDR block; bits beyond the prefix are masked off, as the API documents. Raises the field error."""
    address, slash, length = text.partition("/")
    if not slash:
        bits = 128 if ":" in text else 32
        raise refuse(
            f"{text!r} is no CIDR block", f"give the length of the prefix, as {text or '10.0.0.0'}/{bits}"
        )
    base = parse_address(address)
    if (
        not _IS_NUMBER.fullmatch(length)
        or (length[0] == "0" and len(length) > 1)
        or int(length) > base.max_prefixlen
    ):
        raise refuse(
            f"{text!r} has no valid prefix length",
            f"write a number from 0 to {base.max_prefixlen} after the /",
        )
    return ip_network(text, strict=False)


def parse_endpoint_address(text: str) -> Address:
    """An address that traffic can be sent to: ValidateEndpointIP refuses the special ones."""
    address = _usual_address(text)  # not kept: of endpoints each is there once
    if address is None:
        address = parse_address(text)
    value = int(address)
    kind = ""
    if isinstance(address, IPv4Address):
        if value == 0:
            kind = "unspecified"
        elif value >> 24 == 127:
            kind = "a loopback address"
        elif value >> 16 == 0xA9FE:
            kind = "link-local"
        elif value >> 8 == 0xE00000:  # wider multicast passes the API's check
            kind = "link-local multicast"
    elif value >> 48 and value >> 120 not in {0xFE, 0xFF}:
        pass  # quickly: those below begin otherwise
    elif address.is_unspecified:
        kind = "unspecified"
    elif address.is_loopback:
        kind = "a loopback address"
    elif address.is_link_local:
        kind = "link-local"
    elif value >> 112 & 0xFF0F == 0xFF02:
        kind = "link-local multicast"
    if kind:
        raise refuse(f"{text!r} is {kind}", "traffic can't be sent there: give the address of a pod or host")
    return address


def parse_endpoint_addresses(texts: Sequence[str]) -> Sequence[Address]:
    """What `parse_endpoint_address` says of each: of many ordinary IPv4 addresses in a third of the time."""
    try:
        packed = b"".join(map(_packed_ipv4, texts))
    except (OSError, ValueError):
        return [parse_endpoint_address(text) for text in texts]
    if not _SPECIAL_IPV4.isdisjoint(packed[::4]):
        return [parse_endpoint_address(text) for text in texts]
    return [*map(IPv4Address, unpack(f"!{len(texts)}I", packed))]


_packed_ipv4 = partial(inet_pton, AF_INET)
_SPECIAL_IPV4 = frozenset({0, 127, 169, 224})
"""The first bytes of all IPv4 addresses that traffic can't be sent to, and of others."""


def _address(value: object) -> Address:
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    if not isinstance(value, str):
        raise refuse(f"{value!r} is no text", "write the address as a quoted string")
    return parse_address(value)


def _endpoint_address(value: object) -> Address:
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    if not isinstance(value, str):
        raise refuse(f"{value!r} is no text", "write the address as a quoted string")
    return parse_endpoint_address(value)


def _network(value: object) -> Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise refuse(f"{value!r} is no text", "write the CIDR block as a quoted string")
    return parse_network(value)


AddressField = Annotated[Address, PlainValidator(_address)]
EndpointAddressField = Annotated[Address, PlainValidator(_endpoint_address)]
NetworkField = Annotated[Network, PlainValidator(_network)]


# --- names ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 16)
def is_label(text: str) -> bool:
    """Whether it is an RFC 1123 label: at most 63 of a-z, 0-9 and `-`, no `-` at either end."""
    return _LABEL.fullmatch(text) is not None


@lru_cache(maxsize=1 << 16)
def is_subdomain(text: str) -> bool:
    """Whether it is an RFC 1123 subdomain: labels joined by dots, at most 253 characters."""
    return len(text) <= 253 and _SUBDOMAIN.fullmatch(text) is not None


@lru_cache(maxsize=1 << 12)
def is_port_name(text: str) -> bool:
    """Whether it is an IANA service name (RFC 6335): at most 15 of a-z, 0-9 and single `-`, a letter among them."""
    return len(text) <= 15 and _PORT_NAME.fullmatch(text) is not None


@lru_cache(maxsize=1 << 16)
def _label_error(key: str, value: str) -> tuple[str, str] | None:
    domain, slash, name = key.rpartition("/")
    if (slash and not is_subdomain(domain)) or not _QUALIFIED.fullmatch(name):
        return (
            f"{key!r} is no label key",
            "a key is [domain/]name, the name at most 63 of A-Z a-z 0-9 - _ .",
        )
    if value and not _QUALIFIED.fullmatch(value):
        return (
            f"{value!r} is no value for label {key!r}",
            "a value is at most 63 of A-Z a-z 0-9 - _ ., with a letter or digit at both ends",
        )
    return None


def check_label(key: str, value: str) -> None:
    """Raise the field error where a label's key or value is one that the API server refuses."""
    error = _label_error(key, value)
    if error is not None:
        raise refuse(*error)


def _labels(value: dict[str, str]) -> dict[str, str]:
    for key, text in value.items():
        check_label(key, text)
    return value


def _port_name(value: str) -> str:
    if value and not is_label(value):
        raise refuse(
            f"{value!r} is no port name", "use at most 63 of a-z, 0-9 and -, with no - at either end"
        )
    return value


def _container_port_name(value: str) -> str:
    if value and not is_port_name(value):
        raise refuse(
            f"{value!r} is no name of a container port",
            "use at most 15 of a-z, 0-9 and single -, at least one letter, with no - at either end",
        )
    return value


Labels = Annotated[dict[Text, Text], AfterValidator(_labels)]
Annotations = dict[Text, Text]
PortName = Annotated[Text, AfterValidator(_port_name)]
ContainerPortName = Annotated[Text, AfterValidator(_container_port_name)]


# --- ports ---------------------------------------------------------------------------------------------------


def check_port(value: int) -> int:
    """A port number, 1 to 65535."""
    if not 0 < value < 65536:
        raise refuse(f"port {value} is out of range", "use a port from 1 to 65535")
    return value


def _port(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        if isinstance(value, str) and _IS_NUMBER.fullmatch(value):
            raise refuse(f"port {value!r} is text", f"write the number without quotes: {int(value)}")
        raise refuse(f"{value!r} is no port number", "write a number from 1 to 65535")
    return check_port(value)


def _optional_port(value: object) -> int:
    return 0 if value == 0 and not isinstance(value, bool) else _port(value)


def _port_or_name(value: object) -> int | str:
    if isinstance(value, str):
        if not value:
            return 0
        if _IS_NUMBER.fullmatch(value):
            raise refuse(
                f"port {value!r} is text, which means a port of that name; a name has a letter in it",
                f"write the number without quotes: {int(value)}",
            )
        if not is_port_name(value):
            raise refuse(
                f"{value!r} is no name of a container port",
                "use at most 15 of a-z, 0-9 and single -, at least one letter, with no - at either end",
            )
        return value
    return _optional_port(value)


Port = Annotated[int, PlainValidator(_port)]
PortOrUnset = Annotated[int, PlainValidator(_optional_port)]  # 0: not given
PortOrName = Annotated[int | str, PlainValidator(_port_or_name)]  # 0: not given

ProtocolName = Literal["TCP", "UDP", "SCTP"]
FamilyName = Literal["IPv4", "IPv6"]


def family_name(item: Address | Network) -> FamilyName:
    """The API's word for the family of an address or network."""
    return "IPv4" if item.version == 4 else "IPv6"


# --- what every object has -----------------------------------------------------------------------------------


class Owner(Model):
    """One of an object's owners."""

    kind: Text = ""
    name: Text = ""
    controller: Flag = False


class Metadata(Model):
    """ObjectMeta, as far as it matters. `namespace` is "" for cluster-scoped kinds."""

    name: Text = ""
    namespace: Text = ""
    labels: Labels = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)
    owner_references: tuple[Owner, ...] = ()
    deletion_timestamp: Text | None = None


class Object(Model):
    """A top-level object. `origin` is where it was read."""

    metadata: Metadata
    origin: InstanceOf[Origin]


class ExactObject(Object):
    """A top-level object in which an unknown field is an error: rules that are not indented below `spec`, say."""

    model_config = ConfigDict(extra="forbid")

    api_version: Text
    kind: Text
    status: object = None


# --- label selectors -----------------------------------------------------------------------------------------


class Requirement(Exact):
    """One of a selector's `matchExpressions` (meta/v1 LabelSelectorRequirement)."""

    key: Text
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.operator in {"In", "NotIn"}:
            if not self.values:
                raise refuse(f"operator {self.operator} without values", "list the values it compares with")
        elif self.values:
            raise refuse(f"operator {self.operator} with values", "leave `values` out")
        check_label(self.key, "")
        for value in self.values:
            check_label(self.key, value)
        return self


class LabelSelector(Exact):
    """meta/v1 LabelSelector: all of `match_labels` and all of `match_expressions`. Empty selects everything."""

    match_labels: Labels = Field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether an object with these labels is selected (NotIn and DoesNotExist match an absent key)."""
        for key, value in self.match_labels.items():
            if labels.get(key) != value:
                return False
        for r in self.match_expressions:
            match r.operator:
                case "In":
                    ok = labels.get(r.key) in r.values
                case "NotIn":
                    ok = r.key not in labels or labels[r.key] not in r.values
                case "Exists":
                    ok = r.key in labels
                case "DoesNotExist":
                    ok = r.key not in labels
            if not ok:
                return False
        return True
