"""A lab topology from manifests: their Nodes, Pods and endpoints, each where its addresses say it is.

Knows: validated manifests. Must not know: what a Service or a policy does with the traffic.

Where manifests leave something out, the lab adds what lets the rest be tried:
- no Node objects: one node, `node/lab`, that hosts every pod;
- an endpoint without a Pod: a pod named after its address, or, where the address is in no node's pod networks and
  the endpoint names no node, a machine outside the cluster;
- a client outside the cluster, with an address in each network of loadBalancerSourceRanges.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network

from k8snetc.compiler.manifests import Manifests
from k8snetc.compiler.manifests import Node as NodeObject
from k8snetc.compiler.manifests import Pod as PodObject
from k8snetc.ir.types import Address, Network, Protocol
from k8snetc.lab.topology import Client, Node, Pod, Port, Topology

LAB_NODE = "lab"
OUTSIDE = "outside"
_GONE = frozenset({"Succeeded", "Failed"})
_MOST_CLIENT_ADDRESSES = 16

# Where addresses come from that no manifest gives: documentation ranges (RFC 5737, RFC 3849), far from their start.
_CLIENT_NETWORKS = (ip_network("192.0.2.0/24"), ip_network("2001:db8:1ab::/64"))
_NODE_NETWORKS = (ip_network("198.51.100.0/24"), ip_network("2001:db8:1ab:1::/64"))


def topology_of(manifests: Manifests) -> Topology:
    """The topology. Raises `TopologyError` with everything that contradicts itself."""
    return _Builder(manifests).build()


@dataclass(frozen=True, slots=True)
class _Place:
    """An address that endpoints name: with which ports, and on which node ("" if none of them says)."""

    namespace: str
    ports: set[Port] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)


class _Builder:
    """One manifest set on its way to a topology."""

    def __init__(self, manifests: Manifests) -> None:
        self._manifests = manifests
        self._endpoints: dict[Address, _Place] = {}
        for namespace, address, node, ports in _endpoints(manifests):
            place = self._endpoints.setdefault(address, _Place(namespace))
            place.ports.update(ports)
            if node:
                place.nodes.add(node)
        self._host_ports: set[tuple[str, Port]] = set()
        self._pods = [p for p in manifests.pods if p.status.phase not in _GONE]
        self._taken = {
            *self._endpoints,
            *(a for p in self._pods for a in p.addresses),
            *(a for n in manifests.nodes for a in n.ips),
            *(a for s in manifests.services for a in (*s.spec.cluster_ips, *s.spec.external_ips)),
            *(i.ip for s in manifests.services for i in s.status.load_balancer.ingress if i.ip is not None),
        }

    def build(self) -> Topology:
        nodes = self._nodes()
        node_of = {a: n.metadata.name for n in nodes for a in n.ips}
        pods = [p for p in map(self._pod, self._pods) if p is not None]
        known = {a for p in pods for a in p.addresses}
        clients = [self._client()]
        for address, place in sorted(self._endpoints.items(), key=lambda i: (i[0].version, int(i[0]))):
            if address in known or address in node_of:
                continue
            stray = self._stray(address, place)
            if isinstance(stray, Pod):
                pods.append(stray)
            else:
                clients.append(stray)
        return Topology(
            tuple(self._node(n, pods) for n in nodes) or (self._lab_node(),), tuple(pods), tuple(clients)
        )

    # --- nodes ---

    def _nodes(self) -> tuple[NodeObject, ...]:
        return tuple(sorted(self._manifests.nodes, key=lambda n: n.metadata.name))

    def _node(self, node: NodeObject, pods: list[Pod]) -> Node:
        name = node.metadata.name
        theirs = {port for p in pods if p.host_network and p.node == name for port in p.ports}
        ports = {port for a in node.ips for port in self._ports(a)} - theirs
        return Node(name, node.ips, node.pod_networks, tuple(sorted(ports)))

    def _lab_node(self) -> Node:
        addresses = [self._free(n, 250) for n in _NODE_NETWORKS]
        return Node(LAB_NODE, tuple(a for a in addresses if a is not None))

    def _node_for(self, addresses: tuple[Address, ...], named: str) -> str:
        """The node that is named, or whose pod networks hold an address, or the first."""
        if not self._manifests.nodes:
            return LAB_NODE
        if named:
            return named
        for node in self._nodes():
            if any(a in n for a in addresses for n in node.pod_networks):
                return node.metadata.name
        return self._nodes()[0].metadata.name

    # --- pods ---

    def _pod(self, pod: PodObject) -> Pod | None:
        """The pod, or None for one that has no address to be reached under."""
        node = self._node_for(pod.addresses, pod.spec.node_name)
        declared = {Port(Protocol(p.protocol.lower()), p.container_port) for p in pod.spec.ports}
        if pod.spec.host_network:
            # Only one process of a network namespace can have a port: the first one that says it does.
            free = tuple(sorted(p for p in declared if (node, p) not in self._host_ports))
            self._host_ports.update((node, p) for p in free)
            return Pod(pod.metadata.namespace, pod.metadata.name, node, (), free, host_network=True)
        if not pod.addresses:
            return None
        ports = declared.union(*(self._ports(a) for a in pod.addresses))
        return Pod(pod.metadata.namespace, pod.metadata.name, node, pod.addresses, tuple(sorted(ports)))

    def _stray(self, address: Address, place: _Place) -> Pod | Client:
        """What stands behind an endpoint that is no Pod's and no Node's address."""
        name = str(address).replace(".", "-").replace(":", "-").strip("-")
        ports = tuple(sorted(place.ports))
        in_cluster = any(address in n for node in self._manifests.nodes for n in node.pod_networks)
        if place.nodes or in_cluster or not self._manifests.nodes:
            node = self._node_for((address,), min(place.nodes, default=""))
            return Pod(place.namespace, name, node, (address,), ports)
        return Client(name, (address,), ports=ports)

    def _ports(self, address: Address) -> set[Port]:
        place = self._endpoints.get(address)
        return place.ports if place else set()

    # --- outside ---

    def _client(self) -> Client:
        addresses = [self._free(n, 100) for n in _CLIENT_NETWORKS]
        ranges = {
            n
            for s in self._manifests.services
            for n in s.spec.load_balancer_source_ranges
            if n.prefixlen and n.num_addresses > 2
        }
        for network in sorted(ranges, key=lambda n: (n.version, n)):
            if len(addresses) < _MOST_CLIENT_ADDRESSES and not any(a in network for a in addresses if a):
                addresses.append(self._free(network, 1))
        return Client(OUTSIDE, tuple(a for a in addresses if a is not None))

    def _free(self, network: Network, start: int) -> Address | None:
        """An address of the network that nobody has, the `start`th if it can be; None when all are taken."""
        first, number = int(network.network_address), network.num_addresses
        for step in range(min(number - 2, 4096)):
            address = type(network.network_address)(first + 1 + (start - 1 + step) % (number - 2))
            if address not in self._taken:
                self._taken.add(address)
                return address
        return None


def _endpoints(manifests: Manifests) -> Iterator[tuple[str, Address, str, set[Port]]]:
    """Namespace, address, node and ports of every endpoint of every slice, and of legacy Endpoints."""
    for piece in manifests.endpoint_slices:
        if piece.address_type == "FQDN":
            continue
        ports = {Port(Protocol(p.protocol.lower()), p.port) for p in piece.ports if p.port is not None}
        for endpoint in piece.endpoints:
            for address in endpoint.addresses:
                yield piece.metadata.namespace, address, endpoint.node_name, ports
    for legacy in manifests.endpoints:
        for subset in legacy.subsets:
            ports = {Port(Protocol(p.protocol.lower()), p.port) for p in subset.ports if p.port is not None}
            for place in (*subset.addresses, *subset.not_ready_addresses):
                yield legacy.metadata.namespace, place.ip, place.node_name, ports
