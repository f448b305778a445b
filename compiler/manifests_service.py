"""Service, as the API server would store it.

Knows: the fields of core/v1 Service that a node's dataplane reads, their defaults and their checks.
Must not know: other objects (what must be unique between objects is `manifests`), or what the fields do to packets.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    PlainValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from k8snetc.compiler.fields import (
    AddressField,
    FamilyName,
    Flag,
    Int,
    Labels,
    Model,
    Object,
    Port,
    PortName,
    PortOrName,
    PortOrUnset,
    Problems,
    ProtocolName,
    Text,
    family_name,
    parse_address,
    parse_network,
    refuse,
)
from k8snetc.ir.types import Address, Network


class ServicePort(Model):
    """One port of a Service. `target_port` is a number or the name of a container port; it defaults to `port`.

    `node_port` 0: none.
    """

    name: PortName = ""
    protocol: ProtocolName = "TCP"
    port: Port
    target_port: PortOrName = 0
    node_port: PortOrUnset = 0
    app_protocol: Text | None = None

    @model_validator(mode="after")
    def _default(self) -> Self:
        if not self.target_port:
            self.__dict__["target_port"] = self.port  # frozen for everybody else; here it is still being made
        return self


class ClientIPConfig(Model):
    """sessionAffinityConfig.clientIP; the timeout in seconds."""

    timeout_seconds: Int = 10800

    @field_validator("timeout_seconds")
    @classmethod
    def _in_range(cls, value: int) -> int:
        if not 0 < value <= 86400:
            raise refuse(
                f"session affinity of {value} seconds is out of range", "use 1 to 86400 seconds (one day)"
            )
        return value


class AffinityConfig(Model):
    """sessionAffinityConfig."""

    client_ip: ClientIPConfig = ClientIPConfig()


def _cluster_ips(value: object) -> tuple[Address, ...]:
    """The addresses of `clusterIPs`; `["None"]` has none."""
    if not isinstance(value, list | tuple):
        raise refuse(f"{value!r} is no list", "write a list of addresses")
    if list(value) == ["None"]:
        return ()
    addresses = []
    for item in value:
        if not isinstance(item, str):
            raise refuse(f"{item!r} is no text", "write the address as a quoted string")
        addresses.append(parse_address(item))
    return tuple(addresses)


def _source_range(value: object) -> Network:
    """A CIDR block; the API server allows blanks around it here (ValidateLoadBalancerSourceRanges)."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise refuse(f"{value!r} is no text", "write the CIDR block as a quoted string")
    return parse_network(value.strip())


class ServiceSpec(Model):
    """core/v1 ServiceSpec.

    `cluster_ip` is the API's text: an address, "None" (headless) or "" (none yet). `cluster_ips` are the addresses
    alone, at most one a family: empty for a headless service, an ExternalName, and one that has none yet.
    """

    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    selector: Labels = Field(default_factory=dict)
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: Text = ""
    cluster_ips: Annotated[tuple[Address, ...], PlainValidator(_cluster_ips)] = ()
    external_ips: tuple[AddressField, ...] = ()
    external_name: Text = ""
    session_affinity: Literal["None", "ClientIP"] = "None"
    session_affinity_config: AffinityConfig = AffinityConfig()
    load_balancer_ip: Text = ""
    load_balancer_source_ranges: tuple[Annotated[Network, PlainValidator(_source_range)], ...] = ()
    load_balancer_class: Text = ""
    external_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    internal_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    health_check_node_port: PortOrUnset = 0
    publish_not_ready_addresses: Flag = False
    ip_families: tuple[FamilyName, ...] = ()
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = None
    allocate_load_balancer_node_ports: Flag = True
    traffic_distribution: Text = ""

    @field_validator("cluster_ip")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value not in {"", "None"}:
            parse_address(value)
        return value

    @property
    def headless(self) -> bool:
        """Whether the service has no ClusterIP by its own wish."""
        return self.cluster_ip == "None"

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = Problems()
        self._settle_cluster_ips(problems)
        self._settle_families(problems)
        self._check_ports(problems)
        self._check_type(problems)
        for i, ip in enumerate(self.external_ips):
            if ip.is_unspecified or ip.is_loopback or ip.is_link_local or ip.is_multicast:
                problems.add(
                    ("externalIPs", i),
                    f"{str(ip)!r} can't be an external IP",
                    "use an address that is not unspecified, loopback, link-local or multicast",
                )
        problems.check()
        return self

    def _settle_cluster_ips(self, problems: Problems) -> None:
        """`clusterIP` and `clusterIPs` say the same; either may be left out."""
        if self.cluster_ip not in {"", "None"}:
            try:
                first = parse_address(self.cluster_ip)
            except PydanticCustomError as error:
                problems.add_error(("clusterIP",), error)
                return
            if not self.cluster_ips:
                self.__dict__["cluster_ips"] = (first,)
            elif self.cluster_ips[0] != first:
                problems.add(
                    ("clusterIPs", 0),
                    f"clusterIPs begins with {self.cluster_ips[0]}, but clusterIP is {first}",
                    "make the first of clusterIPs the same as clusterIP, or leave one of them out",
                )
        elif self.cluster_ips and self.cluster_ip == "None":
            problems.add(
                ("clusterIPs",), "clusterIPs holds addresses, but clusterIP is None", "keep one of the two"
            )
        elif self.cluster_ips:
            self.__dict__["cluster_ip"] = str(self.cluster_ips[0])
        if len({ip.version for ip in self.cluster_ips}) != len(self.cluster_ips):
            problems.add(
                ("clusterIPs",),
                "clusterIPs has more than one address of a family",
                "give at most one IPv4 and one IPv6",
            )

    def _settle_families(self, problems: Problems) -> None:
        """`ipFamilies` and `ipFamilyPolicy` default from the addresses, else to IPv4 alone."""
        if self.type == "ExternalName":
            return
        families = self.ip_families
        if len(set(families)) != len(families):
            problems.add(("ipFamilies",), "ipFamilies names a family twice", "name each family once")
        of_ips = tuple(family_name(ip) for ip in self.cluster_ips)
        if families and of_ips and of_ips != families[: len(of_ips)]:
            problems.add(
                ("clusterIPs",),
                f"clusterIPs are of {', '.join(of_ips)}, but ipFamilies says {', '.join(families)}",
                "give the families in the order of the addresses",
            )
        if not families:
            families = of_ips or ("IPv4",)
            if not of_ips and self.ip_family_policy in {"PreferDualStack", "RequireDualStack"}:
                families = ("IPv4", "IPv6")
            self.__dict__["ip_families"] = families
        if self.ip_family_policy is None:
            self.__dict__["ip_family_policy"] = "RequireDualStack" if len(families) > 1 else "SingleStack"
        elif self.ip_family_policy == "SingleStack" and len(families) > 1:
            problems.add(
                ("ipFamilyPolicy",),
                "ipFamilyPolicy is SingleStack, but there are two families",
                "use PreferDualStack or RequireDualStack, or keep one family",
            )

    def _check_ports(self, problems: Problems) -> None:
        if not self.ports and not self.headless and self.type != "ExternalName":
            problems.add(("ports",), "a service without ports", "list the ports it serves")
        names: set[str] = set()
        numbers: set[tuple[str, int]] = set()
        node_ports: set[tuple[str, int]] = set()
        for i, port in enumerate(self.ports):
            at = ("ports", i)
            if not port.name:
                if len(self.ports) > 1:
                    problems.add(
                        at, "a port without a name, beside others", "give every port of the service a name"
                    )
            elif port.name in names:
                problems.add(
                    (*at, "name"), f"two ports named {port.name!r}", "give each port a name of its own"
                )
            names.add(port.name)
            if (port.protocol, port.port) in numbers:
                problems.add(
                    (*at, "port"),
                    f"port {port.port}/{port.protocol} is listed twice",
                    "list each port of a protocol once",
                )
            numbers.add((port.protocol, port.port))
            if not port.node_port:
                continue
            if self.type not in {"NodePort", "LoadBalancer"}:
                problems.add(
                    (*at, "nodePort"),
                    f"nodePort in a service of type {self.type}",
                    "make it of type NodePort or LoadBalancer, or leave nodePort out",
                )
            if (port.protocol, port.node_port) in node_ports:
                problems.add(
                    (*at, "nodePort"),
                    f"nodePort {port.node_port}/{port.protocol} is listed twice",
                    "give each port of a protocol a nodePort of its own",
                )
            node_ports.add((port.protocol, port.node_port))

    def _check_type(self, problems: Problems) -> None:
        if self.type == "ExternalName":
            if not self.external_name:
                problems.add(
                    ("externalName",), "an ExternalName service without a name", "give spec.externalName"
                )
            if self.cluster_ip:
                problems.add(
                    ("clusterIP",),
                    "an ExternalName service has no ClusterIP",
                    "leave clusterIP out, or change the type",
                )
        elif self.type in {"NodePort", "LoadBalancer"} and self.headless:
            problems.add(
                ("clusterIP",),
                f"a service of type {self.type} can't be headless",
                "leave clusterIP out, or change the type",
            )
        if self.load_balancer_source_ranges and self.type != "LoadBalancer":
            problems.add(
                ("loadBalancerSourceRanges",),
                f"loadBalancerSourceRanges in a service of type {self.type} would guard nothing",
                "they guard load-balancer addresses: make the type LoadBalancer, or leave them out",
            )
        outside = self.type in {"NodePort", "LoadBalancer"} or bool(self.external_ips)
        if self.external_traffic_policy == "Local" and not outside:
            problems.add(
                ("externalTrafficPolicy",),
                f"externalTrafficPolicy Local in a service of type {self.type} that nothing outside can reach",
                "leave it out, or make the type NodePort or LoadBalancer",
            )
        if self.health_check_node_port and not (
            self.type == "LoadBalancer" and self.external_traffic_policy == "Local"
        ):
            problems.add(
                ("healthCheckNodePort",),
                "healthCheckNodePort without type LoadBalancer and externalTrafficPolicy Local",
                "leave it out: only such a service has one",
            )


class Ingress(Model):
    """One of status.loadBalancer.ingress. `ip` None: a host name alone, which means nothing to a node."""

    ip: AddressField | None = None
    hostname: Text = ""
    ip_mode: Literal["VIP", "Proxy"] = "VIP"


class LoadBalancerStatus(Model):
    """status.loadBalancer."""

    ingress: tuple[Ingress, ...] = ()


class ServiceStatus(Model):
    """Service status."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(Object):
    """core/v1 Service."""

    spec: ServiceSpec
    status: ServiceStatus = ServiceStatus()
