"""Cluster facts to a program: which frontend sends whom where.

Knows: what kube-proxy makes of traffic policies, topology hints, terminating endpoints and source ranges
(`docs/semantics.md` has a row for each rule). Must not know: manifests, passes, back ends.

What comes out is naive on purpose: a balancer for each frontend that needs one. Sharing is a pass's work.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from k8snetc.compiler.diagnostics import Diagnostic, InputError
from k8snetc.compiler.facts import EndpointFact, Facts, NodeContext, ServicePortFact
from k8snetc.compiler.lower_policy import lower_policies
from k8snetc.ir.addresses import cover, prefix_of, range_of, subtract
from k8snetc.ir.types import (
    Action,
    Address,
    AddressSet,
    Admission,
    Affinity,
    Balance,
    Balancer,
    Endpoint,
    Exposure,
    Family,
    Frontend,
    Node,
    Program,
    Protocol,
    Refusal,
    Route,
    Who,
)


def lower(facts: Facts) -> Program:
    """The program for the facts' node. Raises `InputError` where two services claim one address and port."""
    node = facts.node
    parts = _Parts()
    for port in facts.service_ports:
        if port.family in node.families:
            _service_port(node, port, parts)
    if parts.clashes:
        raise InputError(parts.clashes)
    rejects, drops = _refused(facts, parts)
    policy = lower_policies(facts)
    return Program(
        node=Node(
            name=node.name,
            families=node.families,
            addresses=node.addresses,
            pod_networks=node.pod_networks,
            detector=node.detector,
            nodeport_networks=node.nodeport_networks,
            localhost_nodeports=node.localhost_nodeports,
            drop_invalid=node.drop_invalid,
        ),
        balancers=tuple(parts.balancers),
        frontends=tuple(parts.frontends.values()),
        sets=(*parts.sets.values(), *policy.sets),
        rejects=rejects,
        drops=drops,
        admissions=tuple(parts.admissions.values()),
        enforcements=policy.enforcements,
        assumed=facts.assumed,
    )


Match = tuple[Address | Family, Protocol, int]


class _Parts:
    """What has been made so far. Local to one call of `lower`."""

    def __init__(self) -> None:
        self.balancers: list[Balancer] = []
        self.frontends: dict[Match, Frontend] = {}
        self.sets: dict[str, AddressSet] = {}
        self.admissions: dict[tuple[Protocol, int], Admission] = {}
        self.clashes: list[Diagnostic] = []

    def add(self, frontend: Frontend) -> None:
        """Add, unless the same service port has it already; another one's is a clash."""
        where = frontend.family if frontend.address is None else frontend.address
        other = self.frontends.setdefault((where, frontend.protocol, frontend.port), frontend)
        if other.service == frontend.service or frontend.origin is None:
            return
        shown = f"node port {frontend.port}" if frontend.address is None else f"{where} port {frontend.port}"
        self.clashes.append(
            Diagnostic(
                frontend.origin.file,
                frontend.origin.line,
                f"service port {frontend.service} claims {shown}/{frontend.protocol.value}, "
                f"which {other.service} has already: {other.origin}",
                "give one of them another address or port",
            )
        )

    def balancer(
        self,
        node: NodeContext,
        port: ServicePortFact,
        name: str,
        kind: str,
        endpoints: tuple[EndpointFact, ...],
    ) -> str:
        """Add a balancer and return its name."""
        full = f"{name} {kind}#{port.family.value}"
        everywhere = node.name is None
        affinity = Affinity(f"{name}#{port.family.value}", port.affinity) if port.affinity else None
        self.balancers.append(
            Balancer(
                full,
                port.family,
                port.protocol,
                tuple(
                    [
                        Endpoint(e.address, e.port, everywhere or e.node == node.name, e.weight, e.origin)
                        for e in endpoints
                    ]
                ),
                affinity,
                port.scheduler,
                port.forwarding,
                port.origin,
            )
        )
        return full


class _Usable:
    """The endpoints that traffic may use: by everybody, and by Local policies. Either may be empty."""

    def __init__(self, node: NodeContext, port: ServicePortFact) -> None:
        self._node = node
        self._all = port.endpoints
        ready = tuple([e for e in port.endpoints if e.ready])
        self.cluster = _near(node, ready) or _serving(port.endpoints)

    @cached_property
    def local(self) -> tuple[EndpointFact, ...]:
        """Worked out only where a policy asks for it."""
        local = [e for e in self._all if is_local(self._node, e)]
        return tuple(e for e in local if e.ready) or _serving(local)

    @property
    def none(self) -> bool:
        return not self.cluster and not self.local


def is_local(node: NodeContext, endpoint: EndpointFact) -> bool:
    """Whether the endpoint runs on the program's node; a node without a name hosts every pod."""
    return node.name is None or endpoint.node == node.name


def _serving(endpoints: Iterable[EndpointFact]) -> tuple[EndpointFact, ...]:
    """Those that serve while they terminate (KEP-1669): used only where none is ready."""
    return tuple(e for e in endpoints if e.serving and e.terminating)


def _near(node: NodeContext, ready: tuple[EndpointFact, ...]) -> tuple[EndpointFact, ...]:
    """Those hinted for this node, else for its zone, if all carry such a hint and one matches; else all."""
    if node.name is not None and all(e.node_hints for e in ready):
        here = tuple(e for e in ready if node.name in e.node_hints)
        if here:
            return here
    if node.zone and all(e.zone_hints for e in ready):
        return tuple(e for e in ready if node.zone in e.zone_hints) or ready
    return ready


def _service_port(node: NodeContext, port: ServicePortFact, parts: _Parts) -> None:
    usable = _Usable(node, port)
    name = f"{port.namespace}/{port.service}" + (f":{port.port_name}" if port.port_name else "")

    def add(exposure: Exposure, address: Address | None, number: int, routes: tuple[Route, ...]) -> None:
        sources = None
        if exposure is Exposure.LOAD_BALANCER and address is not None:
            sources = _sources(node, port, name, address, parts)
        parts.add(
            Frontend(
                exposure, port.family, address, port.protocol, number, routes, sources, name, port.origin
            )
        )

    if port.cluster_ips:
        routes = _internal(node, port, usable, name, parts)
        for address in port.cluster_ips:
            add(Exposure.CLUSTER_IP, address, port.port, routes)
    if port.external_ips or port.balancer_ips or port.node_port is not None:
        routes = _external(node, port, usable, name, parts)
        for address in port.external_ips:
            add(Exposure.EXTERNAL_IP, address, port.port, routes)
        for address in port.balancer_ips:
            add(Exposure.LOAD_BALANCER, address, port.port, routes)
        if port.node_port is not None:
            add(Exposure.NODE_PORT, None, port.node_port, routes)
    if port.health_check_node_port is not None:
        key = Protocol.TCP, port.health_check_node_port
        parts.admissions.setdefault(key, Admission(*key, port.origin))


def _internal(
    node: NodeContext, port: ServicePortFact, usable: _Usable, name: str, parts: _Parts
) -> tuple[Route, ...]:
    """Routes of the ClusterIP."""
    if usable.none:
        return (Route(Who.ANY, Refusal.REJECT),)
    chosen = usable.local if port.internal_local else usable.cluster
    if not chosen:
        return (Route(Who.ANY, Refusal.DROP),)
    kind = "internal-local" if port.internal_local else "internal"
    balancer = parts.balancer(node, port, name, kind, chosen)
    if node.masquerade_all:
        return (Route(Who.ANY, Balance(balancer, masquerade=True)),)
    if not detects(node, port.family):
        return (Route(Who.ANY, Balance(balancer)),)
    return Route(Who.CLUSTER, Balance(balancer)), Route(Who.ANY, Balance(balancer, masquerade=True))


def _external(
    node: NodeContext, port: ServicePortFact, usable: _Usable, name: str, parts: _Parts
) -> tuple[Route, ...]:
    """Routes of the NodePort, external IPs and load-balancer IPs."""
    if usable.none:
        return (Route(Who.ANY, Refusal.REJECT),)
    everybody = parts.balancer(node, port, name, "external", usable.cluster)
    if not port.external_local:
        return (Route(Who.ANY, Balance(everybody, masquerade=True)),)
    outside: Action = Refusal.DROP
    if usable.local:
        outside = Balance(parts.balancer(node, port, name, "external-local", usable.local))
    # Pods and the node take the short cut to all endpoints, as if they had gone out and come in elsewhere.
    short = (Route(Who.CLUSTER, Balance(everybody)),) if detects(node, port.family) else ()
    return *short, Route(Who.NODE, Balance(everybody, masquerade=True)), Route(Who.ANY, outside)


def detects(node: NodeContext, family: Family) -> bool:
    """Whether pods of the cluster can be told from other clients in this family."""
    return Node(detector=node.detector).detects(family)


def _sources(
    node: NodeContext, port: ServicePortFact, name: str, address: Address, parts: _Parts
) -> str | None:
    """The set of clients that may use a load-balancer IP; None for everybody.

    Where the ranges hold the node, the address itself is one of the clients: the node owns it, and so
    sends from it.
    """
    if port.source_ranges is None:
        return None
    ranges = [range_of(port.family, prefix_of(n)) for n in port.source_ranges]
    own = (a for a in node.addresses if a.version == port.family)
    if any(first <= int(a) <= last for a in own for first, last in ranges):
        ranges.append((int(address), int(address)))
    one = AddressSet(f"sources {name} {address}", port.family, cover(port.family, ranges), port.origin)
    parts.sets.setdefault(one.name, one)
    return one.name


def _refused(facts: Facts, parts: _Parts) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the sets of ClusterIPs (anything undefined there is rejected) and of unallocated ones (dropped)."""
    rejects: list[str] = []
    drops: list[str] = []
    for family in facts.node.families:
        ours = {
            int(f.address)
            for f in parts.frontends.values()
            if f.exposure is Exposure.CLUSTER_IP and f.family is family and f.address is not None
        }
        if ours:
            one = AddressSet(f"cluster-ips#{family.value}", family, cover(family, ((a, a) for a in ours)))
            parts.sets[one.name] = one
            rejects.append(one.name)
        services = [
            range_of(family, prefix_of(n)) for n in facts.node.service_networks if n.version == family
        ]
        if services:
            foreign = (int(a) for a in facts.foreign_ips if a.version == family)
            free = subtract(services, ((a, a) for a in (*ours, *foreign)))
            one = AddressSet(f"unallocated#{family.value}", family, cover(family, free))
            parts.sets[one.name] = one
            drops.append(one.name)
    return tuple(rejects), tuple(drops)
