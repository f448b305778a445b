"""Manifests to cluster facts: services with the endpoints that belong to them.

Knows: which objects a node's service proxy heeds, and how slices find their service and port. Must not
know: what traffic policies or hints do with the endpoints (that is lowering), or any back end.
Network policies are resolved by `resolve_policy`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from k8snetc.compiler import own_annotations
from k8snetc.compiler.diagnostics import Diagnostic, InputError
from k8snetc.compiler.facts import EndpointFact, Facts, NodeContext, ServicePortFact
from k8snetc.compiler.manifests import Manifests
from k8snetc.compiler.manifests_endpoints import Endpoint, Endpoints, EndpointSlice
from k8snetc.compiler.manifests_service import Service, ServicePort
from k8snetc.compiler.resolve_policy import resolve_policy
from k8snetc.ir.addresses import family_of
from k8snetc.ir.types import Address, Family, Network, Origin, Protocol

# Objects with these labels are looked after by somebody else, or by nobody (kube-proxy's informers leave them out).
PROXY_NAME = "service.kubernetes.io/service-proxy-name"
HEADLESS = "service.kubernetes.io/headless"
SERVICE_NAME = "kubernetes.io/service-name"

NO_HINTS: frozenset[str] = frozenset()

# (namespace, service, port name, protocol, family)
PortKey = tuple[str, str, str, str, Family]
Place = tuple[int, int]  # address (its family is the key's), port


def resolve(manifests: Manifests, node: NodeContext, *, assumed: bool = False) -> Facts:
    """The facts for `node`. Raises `InputError` for services that have no address yet."""
    proxied = [s for s in manifests.services if _is_proxied(s)]
    wrong = [*without_address(proxied), *own_annotations.problems(manifests)]
    if wrong:
        raise InputError(wrong)
    endpoints = _weighted(_endpoints(manifests), own_annotations.weights(manifests))
    ports = [f for s in proxied for f in _service(s, endpoints)]
    ports.sort(key=lambda f: (f.namespace, f.service, f.family, f.protocol.value, f.port))
    return Facts(
        node=node,
        service_ports=tuple(ports),
        policies=resolve_policy(manifests, node),
        foreign_ips=tuple(
            sorted(
                {
                    ip
                    for s in manifests.services
                    if PROXY_NAME in s.metadata.labels
                    for ip in s.spec.cluster_ips
                },
                key=lambda a: (a.version, int(a)),
            )
        ),
        assumed=assumed,
    )


def _is_proxied(service: Service) -> bool:
    """Whether a service means anything to the node."""
    spec = service.spec
    return spec.type != "ExternalName" and not spec.headless and PROXY_NAME not in service.metadata.labels


def without_address(services: Iterable[Service]) -> Iterator[Diagnostic]:
    """Services that the node looks after, but that no API server has given an address yet."""
    return (_bare(s) for s in services if _is_proxied(s) and not s.spec.cluster_ips)


def _bare(service: Service) -> Diagnostic:
    owner = f"{service.metadata.namespace}/{service.metadata.name}"
    return Diagnostic(
        service.origin.file,
        service.origin.line,
        f"Service {owner} has no clusterIP",
        "take manifests from a cluster (kubectl get -o yaml), or pass --assume-addresses to make addresses up",
    )


# --- services ---


def _service(
    service: Service, endpoints: Mapping[PortKey, tuple[EndpointFact, ...]]
) -> Iterator[ServicePortFact]:
    spec, meta = service.spec, service.metadata
    outside = spec.type in {"NodePort", "LoadBalancer"} or bool(spec.external_ips)
    local = outside and spec.external_traffic_policy == "Local"
    ingress = tuple(
        i.ip for i in service.status.load_balancer.ingress if i.ip is not None and i.ip_mode == "VIP"
    )
    node_ports = spec.type in {"NodePort", "LoadBalancer"}
    for cluster_ip in spec.cluster_ips:
        family = family_of(cluster_ip)
        ranges = _of(family, spec.load_balancer_source_ranges)
        for port in spec.ports:
            key = meta.namespace, meta.name, port.name, port.protocol, family
            yield ServicePortFact(
                namespace=meta.namespace,
                service=meta.name,
                port_name=port.name,
                family=family,
                protocol=Protocol(port.protocol.lower()),
                port=port.port,
                node_port=port.node_port if node_ports and port.node_port else None,
                cluster_ips=(cluster_ip,),
                external_ips=_addresses(family, spec.external_ips),
                balancer_ips=_addresses(family, ingress),
                endpoints=endpoints.get(key, ()),
                origin=service.origin,
                external_local=local,
                internal_local=spec.internal_traffic_policy == "Local",
                affinity=_affinity(service),
                source_ranges=ranges or None,
                health_check_node_port=_health_check(service, port),
                scheduler=own_annotations.scheduler_of(service),
                forwarding=own_annotations.forwarding_of(service),
            )


def _affinity(service: Service) -> int | None:
    spec = service.spec
    return (
        spec.session_affinity_config.client_ip.timeout_seconds
        if spec.session_affinity == "ClientIP"
        else None
    )


def _health_check(service: Service, port: ServicePort) -> int | None:
    """The port that is let in, once a service: with its first port."""
    spec = service.spec
    wanted = spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"
    return (
        spec.health_check_node_port
        if wanted and spec.health_check_node_port and port is spec.ports[0]
        else None
    )


def _addresses(family: Family, addresses: Iterable[Address]) -> tuple[Address, ...]:
    return tuple(dict.fromkeys(a for a in addresses if a.version == family))


def _of(family: Family, networks: Iterable[Network]) -> tuple[Network, ...]:
    return tuple(n for n in networks if n.version == family)


# --- endpoints ---


def _endpoints(manifests: Manifests) -> dict[PortKey, tuple[EndpointFact, ...]]:
    """Each service port's endpoints, each place once: from slices, from legacy Endpoints only where there is none."""
    found: defaultdict[PortKey, dict[Place, EndpointFact]] = defaultdict(dict)
    sliced: set[tuple[str, str]] = set()
    order = sorted(manifests.endpoint_slices, key=lambda s: (s.metadata.namespace, s.metadata.name))
    for one in order:
        labels = one.metadata.labels
        service = labels.get(SERVICE_NAME)
        if not service or HEADLESS in labels or PROXY_NAME in labels:
            continue
        sliced.add((one.metadata.namespace, service))
        if one.address_type != "FQDN":
            _slice(one, service, found)
    for legacy in manifests.endpoints:
        labels = legacy.metadata.labels
        owner = legacy.metadata.namespace, legacy.metadata.name
        if owner not in sliced and HEADLESS not in labels and PROXY_NAME not in labels:
            _legacy(legacy, found)
    return {key: tuple([places[place] for place in sorted(places)]) for key, places in found.items()}


def _weighted(
    endpoints: dict[PortKey, tuple[EndpointFact, ...]], weights: Mapping[tuple[str, Address], int]
) -> dict[PortKey, tuple[EndpointFact, ...]]:
    """The endpoints with the weights that their pods ask for."""
    if not weights:
        return endpoints
    return {
        key: tuple(e._replace(weight=weights.get((key[0], e.address), e.weight)) for e in facts)
        for key, facts in endpoints.items()
    }


def _slice(one: EndpointSlice, service: str, found: defaultdict[PortKey, dict[Place, EndpointFact]]) -> None:
    family = Family.IPV4 if one.address_type == "IPv4" else Family.IPV6
    for port in one.ports:
        if port.port is None:
            continue
        places = found[one.metadata.namespace, service, port.name, port.protocol, family]
        _add(places, [_endpoint(endpoint, port.port, one.origin) for endpoint in one.endpoints])


def _endpoint(endpoint: Endpoint, port: int, origin: Origin) -> EndpointFact:
    """A slice's endpoint; of its addresses, which are all the same pod, the first."""
    addresses, conditions, _, node, _, hints = endpoint
    ready, serving, terminating = conditions.settled
    zones, nodes = (NO_HINTS, NO_HINTS) if hints is None else hints.names
    return EndpointFact(addresses[0], port, node, ready, serving, terminating, zones, nodes, 1, origin)


def _add(places: dict[Place, EndpointFact], facts: Iterable[EndpointFact]) -> None:
    """The same place in several slices counts once: the one that is ready, and of those the first."""
    for fact in facts:
        place = int(fact.address), fact.port
        other = places.setdefault(place, fact)
        if other is not fact and fact.ready and not other.ready:
            places[place] = fact


def _legacy(endpoints: Endpoints, found: defaultdict[PortKey, dict[Place, EndpointFact]]) -> None:
    meta = endpoints.metadata
    for subset in endpoints.subsets:
        for port in subset.ports:
            if port.port is None:
                continue
            for addresses, ready in ((subset.addresses, True), (subset.not_ready_addresses, False)):
                for address in addresses:
                    key = meta.namespace, meta.name, port.name, port.protocol, family_of(address.ip)
                    fact = EndpointFact(
                        address.ip, port.port, address.node_name, ready, ready, origin=endpoints.origin
                    )
                    _add(found[key], (fact,))
