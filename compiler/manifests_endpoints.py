"""EndpointSlice and Endpoints, as the API server would store them.

Knows: the fields of both that a node's dataplane reads, their defaults and their checks.
Must not know: other objects (what must be unique between objects is `manifests`), or what the fields do to packets.
"""

from __future__ import annotations

from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

from pydantic import (
    PlainValidator,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from k8snetc.compiler.fields import (
    EndpointAddressField,
    Flag,
    Model,
    Object,
    Port,
    PortName,
    Problems,
    ProtocolName,
    Text,
    parse_endpoint_address,
    refuse,
)
from k8snetc.ir.types import Address


class Named(Model):
    """A zone or node that a hint names."""

    name: Text


class Hints(Model):
    """Topology hints (KEP-2433 zones, KEP-4444 nodes)."""

    for_zones: tuple[Named, ...] = ()
    for_nodes: tuple[Named, ...] = ()

    @cached_property
    def names(self) -> tuple[frozenset[str], frozenset[str]]:
        """The names of the zones and of the nodes."""
        return frozenset(z.name for z in self.for_zones), frozenset(n.name for n in self.for_nodes)


class Conditions(Model):
    """Conditions of an endpoint with the API's defaults: unset means ready, serving as ready, not terminating."""

    ready: Flag | None = None
    serving: Flag | None = None
    terminating: Flag | None = None

    @cached_property
    def settled(self) -> tuple[bool, bool, bool]:
        """Whether it is ready, serving, terminating."""
        ready = self.ready is not False
        serving = ready if self.serving is None else self.serving
        return ready, serving, self.terminating is True


_UNSET = Conditions()
_SERVING = Conditions(ready=True, serving=True, terminating=False)
_SERVING_AS_READ = {"ready": True, "serving": True, "terminating": False}


def _conditions(value: object, handler: ValidatorFunctionWrapHandler) -> Conditions:
    """Nearly all endpoints have the same conditions: they share one object."""
    if value == _SERVING_AS_READ:
        return _SERVING
    conditions: Conditions = handler(value)
    return conditions


def _endpoint_addresses(value: object) -> tuple[Address, ...]:
    """One list in one call: there are 100,000 of them in a large cluster."""
    if not isinstance(value, list | tuple) or not value:
        raise refuse("an endpoint without addresses", "list its address")
    addresses = []
    for item in value:
        if not isinstance(item, str):
            raise refuse(f"{item!r} is no text", "write the address as a quoted string")
        addresses.append(parse_endpoint_address(item))
    return tuple(addresses)


class Endpoint(NamedTuple):
    """One endpoint of a slice. All its addresses are the same pod; a node uses the first (discovery/v1).

    A tuple: 100,000 of them take 15 MB, as models 110 MB. Those that are made already (`quick_slices`) come in a tuple.
    """

    addresses: tuple[Address, ...]
    conditions: Conditions = _UNSET
    hostname: str = ""
    node_name: str = ""
    zone: str = ""
    hints: Hints | None = None


class _ReadEndpoint(Model):
    """An endpoint as it is written, with the fields of `Endpoint`."""

    addresses: Annotated[tuple[Address, ...], PlainValidator(_endpoint_addresses)]
    conditions: Annotated[Conditions, WrapValidator(_conditions)] = _UNSET
    hostname: Text = ""
    node_name: Text = ""
    zone: Text = ""
    hints: Hints | None = None


def _endpoints(value: object, handler: ValidatorFunctionWrapHandler) -> tuple[Endpoint, ...]:
    if isinstance(value, tuple):
        return value
    read: tuple[_ReadEndpoint, ...] = handler(value)
    return tuple(
        [Endpoint(e.addresses, e.conditions, e.hostname, e.node_name, e.zone, e.hints) for e in read]
    )


if TYPE_CHECKING:
    _Endpoints = tuple[Endpoint, ...]
else:  # what pydantic makes of it
    _Endpoints = Annotated[tuple[_ReadEndpoint, ...], WrapValidator(_endpoints)]


class EndpointPort(Model):
    """A port of a slice or of Endpoints. `port` None (slices only): the API leaves it open, a node ignores it."""

    name: PortName = ""
    protocol: ProtocolName = "TCP"
    port: Port | None = None
    app_protocol: Text | None = None


class EndpointSlice(Object):
    """discovery.k8s.io/v1 EndpointSlice. A slice of FQDNs keeps no endpoints: they mean nothing to a node."""

    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: _Endpoints = ()
    ports: tuple[EndpointPort, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _without_names(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("addressType") == "FQDN":
            return {**value, "endpoints": []}
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = Problems()
        wanted = IPv4Address if self.address_type == "IPv4" else IPv6Address
        there = {type(address) for endpoint in self.endpoints for address in endpoint.addresses}
        for i, endpoint in enumerate(self.endpoints if there - {wanted} else ()):
            for k, address in enumerate(endpoint.addresses):
                if not isinstance(address, wanted):
                    problems.add(
                        ("endpoints", i, "addresses", k),
                        f"{str(address)!r} in a slice of {self.address_type} addresses",
                        "put the addresses of each family into a slice of their own",
                    )
        _check_port_names(self.ports, problems)
        problems.check()
        return self

    @property
    def service(self) -> str:
        """The name of the service that the slice belongs to, "" if none (label kubernetes.io/service-name)."""
        return self.metadata.labels.get("kubernetes.io/service-name", "")


def _check_port_names(
    ports: tuple[EndpointPort, ...], problems: Problems, at: tuple[str | int, ...] = ()
) -> None:
    names: set[str] = set()
    for i, port in enumerate(ports):
        if port.name in names:
            what = f"two ports named {port.name!r}" if port.name else "two ports without a name"
            problems.add((*at, "ports", i), what, "give each port a name of its own")
        names.add(port.name)


# --- Endpoints -----------------------------------------------------------------------------------------------


class EndpointAddress(Model):
    """One address of a subset of Endpoints."""

    ip: EndpointAddressField
    hostname: Text = ""
    node_name: Text = ""


class Subset(Model):
    """Every address of the subset serves every port of it."""

    addresses: tuple[EndpointAddress, ...] = ()
    not_ready_addresses: tuple[EndpointAddress, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class Endpoints(Object):
    """core/v1 Endpoints: the older form, which counts only where a service has no slice."""

    subsets: tuple[Subset, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = Problems()
        for i, subset in enumerate(self.subsets):
            at = ("subsets", i)
            _check_port_names(subset.ports, problems, at)
            for k, port in enumerate(subset.ports):
                if port.port is None:
                    problems.add(
                        (*at, "ports", k), "a port without a number", "give port a number from 1 to 65535"
                    )
        problems.check()
        return self
