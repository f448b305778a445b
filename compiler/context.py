"""The node that the program is for: Node objects and options become a `NodeContext`.

Knows: how flags, the configuration file and Node objects add up. Must not know: how options are written (`options`), or
what the context means for packets (`resolve`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from k8snetc.compiler.diagnostics import Diagnostic, InputError
from k8snetc.compiler.facts import NodeContext
from k8snetc.compiler.manifests import Manifests, Node
from k8snetc.compiler.manifests_service import Service
from k8snetc.compiler.options import ContextOptions, DetectLocal, NodePortAddresses
from k8snetc.ir.types import Address, Detector, Family, FromInterface, Network, PortRange, SourceIn

DEFAULT_NODE_PORTS = PortRange(30000, 32767)


def node_context(manifests: Manifests, options: ContextOptions | None = None) -> NodeContext:
    """The context of the node that `options.node` names, or of a node that hosts every pod.

    Raises `InputError` with everything that does not fit: an unknown node, a way to detect local traffic without what
    it needs, NodePorts out of the range.
    """
    options = options or ContextOptions()
    errors: list[Diagnostic] = []
    nodes = _nodes(manifests, options, errors)
    pod_networks = _collapse(n for node in nodes for n in node.pod_networks)
    addresses = options.node_address or tuple(dict.fromkeys(ip for node in nodes for ip in node.ips))
    errors.extend(node_ports_out_of_range(manifests.services, options))
    detector = _detector(manifests, options, pod_networks, errors)
    if options.nodeport_addresses and options.nodeport_addresses.primary and not addresses:
        errors.append(
            Diagnostic("--nodeport-addresses", 0, "primary needs the node's addresses", "give --node-address")
        )
    if errors:
        raise InputError(errors)
    return NodeContext(
        name=options.node,
        families=options.ip_families or _families(manifests, addresses),
        addresses=addresses,
        pod_networks=pod_networks,
        zone=nodes[0].zone if options.node is not None and nodes else "",
        detector=detector,
        service_networks=options.service_cidr or (),
        nodeport_networks=_nodeport_networks(options.nodeport_addresses, addresses),
        nodeport_range=options.service_node_port_range or DEFAULT_NODE_PORTS,
        masquerade_all=bool(options.masquerade_all),
        localhost_nodeports=bool(options.localhost_nodeports),
        drop_invalid=not options.conntrack_tcp_be_liberal,
    )


def _nodes(manifests: Manifests, options: ContextOptions, errors: list[Diagnostic]) -> tuple[Node, ...]:
    """The Node object that is named, or all. Without any Node object, a name that pods or endpoints use will do."""
    if options.node is None:
        return manifests.nodes
    found = tuple(node for node in manifests.nodes if node.metadata.name == options.node)
    if found:
        return found
    known = {node.metadata.name for node in manifests.nodes}
    if not known:
        known = {pod.spec.node_name for pod in manifests.pods}
        known |= {e.node_name for s in manifests.endpoint_slices for e in s.endpoints}
        known |= {
            a.node_name
            for e in manifests.endpoints
            for s in e.subsets
            for a in (*s.addresses, *s.not_ready_addresses)
        }
        known.discard("")
        if not known or options.node in known:
            return ()
    names = sorted(known)
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    errors.append(
        Diagnostic("--node", 0, f"no node is named {options.node!r}", f"the manifests have {shown}")
    )
    return ()


def _collapse(networks: Iterable[Network]) -> tuple[Network, ...]:
    """The fewest networks that hold the same addresses, IPv4 first, sorted."""
    v4: list[IPv4Network] = []
    v6: list[IPv6Network] = []
    for network in networks:
        if isinstance(network, IPv4Network):
            v4.append(network)
        else:
            v6.append(network)
    return (*collapse_addresses(v4), *collapse_addresses(v6))


def _detector(
    manifests: Manifests, options: ContextOptions, pod_networks: tuple[Network, ...], errors: list[Diagnostic]
) -> Detector:
    mode = options.detect_local_mode or DetectLocal.CLUSTER_CIDR
    _unused(options, mode, errors)
    networks: tuple[Network, ...]
    match mode:
        case DetectLocal.CLUSTER_CIDR:
            if options.cluster_cidr is None:
                networks = _collapse(n for node in manifests.nodes for n in node.pod_networks)
            else:
                networks = _collapse(options.cluster_cidr)
            return SourceIn(networks) if networks else None
        case DetectLocal.NODE_CIDR:
            if not pod_networks:
                _missing(
                    errors, mode, "the node's podCIDRs", "give a Node object with podCIDRs, or another mode"
                )
                return None
            return SourceIn(pod_networks)
        case DetectLocal.BRIDGE_INTERFACE:
            if not options.pod_bridge_interface:
                _missing(errors, mode, "the bridge's name", "give --pod-bridge-interface")
                return None
            return FromInterface(options.pod_bridge_interface, prefix=False)
        case DetectLocal.INTERFACE_NAME_PREFIX:
            if not options.pod_interface_name_prefix:
                _missing(errors, mode, "how the interfaces' names begin", "give --pod-interface-name-prefix")
                return None
            return FromInterface(options.pod_interface_name_prefix, prefix=True)


def _unused(options: ContextOptions, mode: DetectLocal, errors: list[Diagnostic]) -> None:
    """What another mode needs: with this one it would mean nothing, while who gave it counts on it."""
    for flag, value, of in (
        ("--pod-bridge-interface", options.pod_bridge_interface, DetectLocal.BRIDGE_INTERFACE),
        ("--pod-interface-name-prefix", options.pod_interface_name_prefix, DetectLocal.INTERFACE_NAME_PREFIX),
    ):
        if value is not None and mode is not of:
            what = f"{value!r} means nothing with --detect-local-mode={mode}"
            errors.append(Diagnostic(flag, 0, what, f"give --detect-local-mode={of}, or leave it out"))


def _missing(errors: list[Diagnostic], mode: DetectLocal, what: str, fix: str) -> None:
    errors.append(Diagnostic("--detect-local-mode", 0, f"{mode} needs {what}", fix))


def _nodeport_networks(
    given: NodePortAddresses | None, addresses: tuple[Address, ...]
) -> tuple[Network, ...]:
    """Networks that restrict NodePorts; empty: no restriction."""
    if given is None:
        return ()
    if not given.primary:
        return _collapse(given.networks)
    first: dict[int, Network] = {}
    for address in addresses:
        if address.version not in first:
            first[address.version] = IPv4Network(address) if address.version == 4 else IPv6Network(address)
    return _collapse(first.values())


def node_ports_out_of_range(services: Iterable[Service], options: ContextOptions) -> Iterator[Diagnostic]:
    """NodePorts that the cluster's API server would not have allotted."""
    allowed = options.service_node_port_range or DEFAULT_NODE_PORTS
    for service in services:
        for i, port in enumerate(service.spec.ports):
            if port.node_port and not allowed.first <= port.node_port <= allowed.last:
                yield Diagnostic(
                    service.origin.file,
                    service.origin.line,
                    f"spec.ports[{i}].nodePort: {port.node_port} is not in {allowed.first}-{allowed.last}",
                    "use a port of that range, or give the cluster's with --service-node-port-range",
                )


def _families(manifests: Manifests, addresses: tuple[Address, ...]) -> tuple[Family, ...]:
    """The families that anything has an address of; IPv4 where nothing has."""
    found = {a.version for a in addresses}
    found |= {ip.version for s in manifests.services for ip in (*s.spec.cluster_ips, *s.spec.external_ips)}
    found |= {
        i.ip.version for s in manifests.services for i in s.status.load_balancer.ingress if i.ip is not None
    }
    found |= {6 if s.address_type == "IPv6" else 4 for s in manifests.endpoint_slices if s.endpoints}
    found |= {ip.version for pod in manifests.pods for ip in pod.addresses}
    found |= {n.version for node in manifests.nodes for n in node.pod_networks}
    return tuple(Family(version) for version in sorted(found)) or (Family.IPV4,)
