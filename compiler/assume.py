"""`--assume-addresses`: manifests from Git get the addresses that a cluster would give them, made up but stable.

Knows: which objects a cluster would add (pods of workloads, slices of services, nodes) and which addresses and ports it
would allot. Must not know: files, options, or what becomes of the result; `assumed` in it says that it must not be
installed.

What is made up depends on the identity of an object alone (a hash of kind, namespace and name), not on the order of
files, and changes only when two identities want the same address. What the manifests do say is kept. The ranges:

    services         10.96.0.0/12      fd00:10:96::/112
    pods             10.128.0.0/10     fd00:10:128::/64     each node without podCIDRs has a /20, a /80 of it
    nodes            198.18.0.0/16     fd00:198:18::/112    RFC 2544: in no real network
    load balancers   198.19.0.0/16     fd00:198:19::/112
    NodePorts        30000-32767

Where no manifest names a node there is one, `assumed-node`, that has all the pods. Node selectors, taints and resources
are not looked at: a pod is on the node that a hash chooses, a DaemonSet has one on each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import count
from typing import Final

from k8snetc.compiler.diagnostics import Diagnostic, InputError
from k8snetc.compiler.fields import FamilyName, family_name
from k8snetc.compiler.manifests import CronJob, EndpointSlice, Manifests, Node, Pod, Service, Workload
from k8snetc.compiler.manifests_service import Ingress, LoadBalancerStatus, ServicePort, ServiceStatus
from k8snetc.ir.addresses import address_of
from k8snetc.ir.types import Address, Family, Network, Origin, PortRange

SERVICES: Final = (IPv4Network("10.96.0.0/12"), IPv6Network("fd00:10:96::/112"))
PODS: Final = (IPv4Network("10.128.0.0/10"), IPv6Network("fd00:10:128::/64"))
NODES: Final = (IPv4Network("198.18.0.0/16"), IPv6Network("fd00:198:18::/112"))
BALANCERS: Final = (IPv4Network("198.19.0.0/16"), IPv6Network("fd00:198:19::/112"))
NODE_PORTS: Final = PortRange(30000, 32767)
NODE_PREFIX: Final = (20, 80)  # length of a node's share of PODS
NODE_NAME: Final = "assumed-node"
_LAST_DITCH: Final = 4096  # hashes tried before looking for any free place

_FAMILIES: Final[tuple[FamilyName, ...]] = ("IPv4", "IPv6")


def assume(manifests: Manifests, *, node_ports: PortRange = NODE_PORTS) -> Manifests:
    """The manifests with everything that they leave to the cluster.

    Raises `InputError` where a range is too small for what wants an address of it.
    """
    dual = _is_dual_stack(manifests)
    families = _FAMILIES if dual else _FAMILIES[:1]
    nodes = _nodes(manifests, families)
    pods = _pods(manifests, nodes, families)
    services = _services(manifests, node_ports)
    slices = _slices(manifests, services, pods, nodes)
    return replace(
        manifests,
        nodes=nodes,
        pods=pods,
        services=services,
        endpoint_slices=(*manifests.endpoint_slices, *slices),
        assumed=True,
    )


def _is_dual_stack(manifests: Manifests) -> bool:
    return (
        any("IPv6" in s.spec.ip_families for s in manifests.services)
        or any(n.version == 6 for node in manifests.nodes for n in node.pod_networks)
        or any(ip.version == 6 for pod in manifests.pods for ip in pod.addresses)
    )


# --- choosing by hash ------------------------------------------------------------------------------------------


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class _Pool:
    """Numbers from `first` to `last`, each given out once, chosen by the identity that asks."""

    def __init__(self, what: str, first: int, last: int, taken: Iterable[int] = ()) -> None:
        self._what = what
        self._first = first
        self._size = last - first + 1
        self._taken = {t for t in taken if first <= t <= last}

    def take(self, identity: str) -> int:
        """The number for an identity. Ask in sorted order: the first to ask wins a number that two want."""
        for attempt in range(_LAST_DITCH):
            value = self._first + _hash(f"{identity}#{attempt}") % self._size
            if value not in self._taken:
                self._taken.add(value)
                return value
        if len(self._taken) < self._size:
            value = next(v for v in range(self._first, self._first + self._size) if v not in self._taken)
            self._taken.add(value)
            return value
        raise InputError(
            [
                Diagnostic(
                    "--assume-addresses",
                    0,
                    f"there are more than the {self._size} {self._what} that can be made up",
                    "compile fewer manifests at once, or give real addresses",
                )
            ]
        )


def _address_pool(what: str, network: Network, taken: Iterable[Address]) -> _Pool:
    """The addresses of a network, without its first and last."""
    first = int(network.network_address)
    last = int(network.broadcast_address)
    return _Pool(what, first + 1, last - 1, (int(a) for a in taken if a.version == network.version))


def _identity(origin: Origin) -> str:
    return f"{origin.kind}/{origin.namespace}/{origin.name}"


# --- nodes -----------------------------------------------------------------------------------------------------


def _nodes(manifests: Manifests, families: tuple[FamilyName, ...]) -> tuple[Node, ...]:
    """The given nodes and those that are only named, with addresses and podCIDRs of every family."""
    given = {node.metadata.name: node for node in manifests.nodes}
    named = {pod.spec.node_name for pod in manifests.pods}
    named |= {endpoint.node_name for s in manifests.endpoint_slices for endpoint in s.endpoints}
    named -= {"", *given}
    alone = not given and not named
    if alone:
        named = {NODE_NAME}
    for name in named:
        origin = Origin("--assume-addresses", 0, "Node", "", name)
        given[name] = Node.model_validate({"metadata": {"name": name}, "origin": origin})
    taken = [ip for node in given.values() for ip in node.ips]
    shares = [n for node in given.values() for n in node.pod_networks]
    made: dict[str, Node] = {}
    addresses = {f: _address_pool("node addresses", _of(NODES, f), taken) for f in families}
    networks = {f: _share_pool(f, shares) for f in families}
    for name in sorted(given):
        node = given[name]
        identity = f"Node//{name}"
        ips = list(node.ips)
        cidrs = list(node.pod_networks)
        for family in families:
            version = _version(family)
            if all(ip.version != version for ip in ips):
                ips.append(address_of(version, addresses[family].take(identity)))
            if all(n.version != version for n in cidrs):
                cidrs.append(_of(PODS, family) if alone else _share(family, networks[family].take(identity)))
        made[name] = _with_addresses(node, ips, cidrs)
    order = [node.metadata.name for node in manifests.nodes] + sorted(named)
    return tuple(made[name] for name in order)


def _with_addresses(node: Node, ips: list[Address], cidrs: list[Network]) -> Node:
    spec = {"podCIDRs": [str(n) for n in cidrs]}
    known = [a.model_dump() for a in node.status.addresses]
    new = [{"type": "InternalIP", "address": str(ip)} for ip in ips if ip not in node.ips]
    made = Node.model_validate(
        {
            "metadata": {"name": node.metadata.name},
            "origin": node.origin,
            "spec": spec,
            "status": {"addresses": known + new},
        }
    )
    return made.model_copy(update={"metadata": node.metadata})


def _share_pool(family: FamilyName, taken: list[Network]) -> _Pool:
    whole = _of(PODS, family)
    length = _of_family(NODE_PREFIX, family)
    number = 1 << (length - whole.prefixlen)
    shift = whole.max_prefixlen - length
    base = int(whole.network_address)
    used: set[int] = set()
    for network in taken:
        if network.version == whole.version and network.overlaps(whole):
            first = max(0, (int(network.network_address) - base) >> shift)
            last = min(number - 1, (int(network.broadcast_address) - base) >> shift)
            used.update(range(first, last + 1))
    return _Pool("nodes", 0, number - 1, used)


def _share(family: FamilyName, index: int) -> Network:
    whole = _of(PODS, family)
    length = _of_family(NODE_PREFIX, family)
    start = int(whole.network_address) + (index << (whole.max_prefixlen - length))
    return ip_network((start, length)) if family == "IPv6" else IPv4Network((start, length))


def _of(ranges: tuple[IPv4Network, IPv6Network], family: FamilyName) -> Network:
    return ranges[0] if family == "IPv4" else ranges[1]


def _of_family(values: tuple[int, int], family: FamilyName) -> int:
    return values[0] if family == "IPv4" else values[1]


def _version(family: FamilyName) -> Family:
    return Family.IPV4 if family == "IPv4" else Family.IPV6


# --- pods --------------------------------------------------------------------------------------------------------


def _pods(manifests: Manifests, nodes: tuple[Node, ...], families: tuple[FamilyName, ...]) -> tuple[Pod, ...]:
    """The given pods and those that workloads make, each with a node and addresses."""
    by_name = {node.metadata.name: node for node in nodes}
    names = sorted(by_name)
    placed: list[tuple[str, Pod, str]] = []  # identity, pod, node
    for pod in manifests.pods:
        identity = _identity(pod.origin)
        placed.append((identity, pod, pod.spec.node_name or _choose(identity, names)))
    placed.extend(_made_pods(manifests, names))
    taken = [ip for pod in manifests.pods for ip in pod.addresses]
    pools: dict[tuple[str, int], _Pool] = {
        (name, network.version): _address_pool(f"pod addresses of {name}", network, taken)
        for name, node in by_name.items()
        for network in node.pod_networks
    }
    done: dict[str, Pod] = {}
    for identity, pod, name in sorted(placed, key=lambda p: p[0]):
        ips = list(pod.addresses)
        if not pod.finished:
            for family in families:
                version = _version(family)
                if any(ip.version == version for ip in ips):
                    continue
                if pod.spec.host_network:
                    ips.extend([ip for ip in by_name[name].internal_ips if ip.version == version][:1])
                else:
                    ips.append(address_of(version, pools[name, version].take(identity)))
        done[identity] = _placed(pod, name, ips)
    return tuple(done[identity] for identity, _, _ in placed)


def _choose(identity: str, names: list[str]) -> str:
    """The node of a pod, by rendezvous hashing: a node that comes or goes moves only its own pods."""
    return max(names, key=lambda name: _hash(f"{identity}@{name}"))


def _placed(pod: Pod, node: str, ips: list[Address]) -> Pod:
    status = {
        "phase": pod.status.phase or "Running",
        "podIPs": [{"ip": str(ip)} for ip in ips],
        "conditions": [c.model_dump() for c in pod.status.conditions]
        or [{"type": "Ready", "status": "True"}],
    }
    checked = Pod.model_validate(
        {"metadata": {"name": pod.metadata.name}, "origin": pod.origin, "status": status}
    )
    return pod.model_copy(
        update={"spec": pod.spec.model_copy(update={"node_name": node}), "status": checked.status}
    )


def _made_pods(manifests: Manifests, nodes: list[str]) -> Iterator[tuple[str, Pod, str]]:
    """One pod a replica, one a node for DaemonSets; none for a workload whose pods or owner are among the manifests."""
    real: dict[str, list[Pod]] = {}
    for pod in manifests.pods:
        real.setdefault(pod.metadata.namespace, []).append(pod)
    workloads = {_identity(w.origin) for w in manifests.workloads}
    used = {(pod.metadata.namespace, pod.metadata.name) for pod in manifests.pods}
    for workload in sorted(
        manifests.workloads, key=lambda w: (w.origin.kind != "StatefulSet", _identity(w.origin))
    ):
        origin = workload.origin
        owners = (f"{o.kind}/{origin.namespace}/{o.name}" for o in workload.metadata.owner_references)
        if any(owner in workloads for owner in owners):
            continue
        labels = workload.template.metadata.labels
        if labels and any(
            labels.items() <= pod.metadata.labels.items() for pod in real.get(origin.namespace, ())
        ):
            continue
        replicas = workload.replicas
        for i in range(len(nodes) if replicas is None else replicas):
            # The identity of a DaemonSet's pod is its node: another node must not renumber it.
            suffix = nodes[i] if replicas is None else str(i)
            name = _pod_name(workload, suffix, used)
            pod = _made_pod(workload, name, suffix)
            identity = f"{_identity(origin)}/{suffix}"
            yield identity, pod, nodes[i] if replicas is None else _choose(identity, nodes)


def _pod_name(workload: Workload | CronJob, suffix: str, used: set[tuple[str, str]]) -> str:
    """`web-0`; where something else has that name already, the workload's kind is in it too."""
    origin = workload.origin
    name = f"{origin.name}-{suffix}"
    if (origin.namespace, name) in used:
        name = f"{origin.name}-{origin.kind.lower()}-{suffix}"
    if len(name) > 253:
        name = f"{name[:230].rstrip('-.')}-{_hash(name):016x}"
    used.add((origin.namespace, name))
    return name


def _made_pod(workload: Workload | CronJob, name: str, suffix: str) -> Pod:
    """A pod with the template's labels and those that the workload's controller adds and that can be foreseen."""
    origin = workload.origin
    template = workload.template
    labels = dict(template.metadata.labels)
    if origin.kind == "StatefulSet":
        labels |= {"statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": suffix}
    elif origin.kind == "Job":
        labels |= {"job-name": origin.name[:63], "batch.kubernetes.io/job-name": origin.name[:63]}
    pod = Pod.model_validate(
        {
            "metadata": {"name": name, "namespace": origin.namespace, "labels": labels},
            "origin": Origin(origin.file, origin.line, "Pod", origin.namespace, name),
        }
    )
    return pod.model_copy(update={"spec": template.spec})


# --- services ----------------------------------------------------------------------------------------------------


def _services(manifests: Manifests, node_ports: PortRange) -> tuple[Service, ...]:
    """The services with ClusterIPs, NodePorts and load-balancer addresses."""
    given = manifests.services
    cluster_taken = [ip for s in given for ip in s.spec.cluster_ips]
    balancer_taken = [i.ip for s in given for i in s.status.load_balancer.ingress if i.ip is not None]
    cluster = {f: _address_pool("services", _of(SERVICES, f), cluster_taken) for f in _FAMILIES}
    balancer = {f: _address_pool("load balancers", _of(BALANCERS, f), balancer_taken) for f in _FAMILIES}
    ports_taken: dict[str, set[int]] = {"TCP": set(), "UDP": set(), "SCTP": set()}
    for service in given:
        for port in service.spec.ports:
            ports_taken[port.protocol].add(port.node_port)
        ports_taken["TCP"].add(service.spec.health_check_node_port)
    ports = {p: _Pool(f"NodePorts of {p}", *node_ports, taken) for p, taken in ports_taken.items()}
    made: dict[Origin, Service] = {}
    for service in sorted(given, key=lambda s: _identity(s.origin)):
        made[service.origin] = _service(service, cluster, balancer, ports)
    return tuple(made[service.origin] for service in given)


def _service(
    service: Service,
    cluster: dict[FamilyName, _Pool],
    balancer: dict[FamilyName, _Pool],
    ports: dict[str, _Pool],
) -> Service:
    spec = service.spec
    if spec.type == "ExternalName":
        return service
    identity = _identity(service.origin)
    ips = {family_name(ip): ip for ip in spec.cluster_ips}
    if not spec.headless:
        for family in spec.ip_families:
            if family not in ips:
                ips[family] = address_of(_version(family), cluster[family].take(identity))
    changes: dict[str, object] = {}
    if ips:
        first = next(iter(ips.values()))
        changes |= {"cluster_ips": tuple(ips.values()), "cluster_ip": str(first)}
    if spec.type == "NodePort" or (spec.type == "LoadBalancer" and spec.allocate_load_balancer_node_ports):
        changes["ports"] = tuple(_with_node_port(identity, port, ports[port.protocol]) for port in spec.ports)
    status = service.status
    if spec.type == "LoadBalancer":
        if spec.external_traffic_policy == "Local" and not spec.health_check_node_port:
            changes["health_check_node_port"] = ports["TCP"].take(f"{identity}/health")
        if not status.load_balancer.ingress:
            ingress = tuple(
                Ingress.model_validate({"ip": address_of(_version(f), balancer[f].take(identity))})
                for f in ips
            )
            status = ServiceStatus.model_construct(
                load_balancer=LoadBalancerStatus.model_construct(ingress=ingress)
            )
    return service.model_copy(update={"spec": spec.model_copy(update=changes), "status": status})


def _with_node_port(identity: str, port: ServicePort, pool: _Pool) -> ServicePort:
    if port.node_port:
        return port
    return port.model_copy(update={"node_port": pool.take(f"{identity}/{port.protocol}/{port.port}")})


# --- slices --------------------------------------------------------------------------------------------------------


def _slices(
    manifests: Manifests, services: tuple[Service, ...], pods: tuple[Pod, ...], nodes: tuple[Node, ...]
) -> Iterator[EndpointSlice]:
    """Slices of the services with a selector that have none, nor Endpoints: as the slice controller makes them."""
    has_own = {(s.metadata.namespace, s.service) for s in manifests.endpoint_slices}
    has_own |= {(e.metadata.namespace, e.metadata.name) for e in manifests.endpoints}
    zones = {node.metadata.name: node.zone for node in nodes}
    by_namespace: dict[str, list[Pod]] = {}
    for pod in pods:
        by_namespace.setdefault(pod.metadata.namespace, []).append(pod)
    for service in services:
        key = (service.metadata.namespace, service.metadata.name)
        selector = service.spec.selector
        if not selector or service.spec.type == "ExternalName" or key in has_own:
            continue
        behind = [
            pod
            for pod in by_namespace.get(key[0], ())
            if selector.items() <= pod.metadata.labels.items() and not pod.finished
        ]
        for family in service.spec.ip_families:
            yield from _slices_of(service, family, behind, zones)


def _slices_of(
    service: Service, family: FamilyName, pods: list[Pod], zones: dict[str, str]
) -> Iterator[EndpointSlice]:
    """One slice for each set of port numbers: a named port may be another number in another pod."""
    version = _version(family)
    groups: dict[tuple[tuple[str, str, int], ...], list[dict[str, object]]] = {}
    for pod in sorted(pods, key=lambda p: p.metadata.name):
        ip = next((ip for ip in pod.addresses if ip.version == version), None)
        if ip is None:
            continue
        terminating = pod.metadata.deletion_timestamp is not None
        endpoint: dict[str, object] = {
            "addresses": [str(ip)],
            "conditions": {
                "ready": service.spec.publish_not_ready_addresses or (pod.ready and not terminating),
                "serving": pod.ready,
                "terminating": terminating,
            },
            "nodeName": pod.spec.node_name,
            "zone": zones.get(pod.spec.node_name, ""),
        }
        groups.setdefault(tuple(_ports(service, pod)), []).append(endpoint)
    origin = service.origin
    for i, ports in zip(count(), sorted(groups), strict=False):
        name = f"{origin.name}-{family.lower()}-{i}"
        labels = {"kubernetes.io/service-name": origin.name}
        if service.spec.headless:
            labels["service.kubernetes.io/headless"] = ""
        yield EndpointSlice.model_validate(
            {
                "metadata": {"name": name, "namespace": origin.namespace, "labels": labels},
                "origin": Origin(origin.file, origin.line, "EndpointSlice", origin.namespace, name),
                "addressType": family,
                "endpoints": groups[ports],
                "ports": [{"name": n, "protocol": p, "port": number} for n, p, number in ports],
            }
        )


def _ports(service: Service, pod: Pod) -> Iterator[tuple[str, str, int]]:
    """(name, protocol, number) of each port of the service that the pod has: a name that it lacks is left out."""
    for port in service.spec.ports:
        target = port.target_port
        if isinstance(target, str):
            number = next(
                (
                    p.container_port
                    for p in pod.spec.ports
                    if p.name == target and p.protocol == port.protocol
                ),
                None,
            )
        else:
            number = target
        if number is not None:
            yield port.name, port.protocol, number
