"""What a node does to a new connection, straight from the manifests: a second opinion on services.

Knows: Service, EndpointSlice and Endpoints objects as plain data, and kube-proxy's rules in the order in which they
ask. Must not know: anything of k8snetc. Slow and plain on purpose: one packet at a time, everything worked out anew.

Sources: kube-proxy's `CategorizeEndpoints`, `topologyModeFromHints` and the rules of its iptables mode; core/v1 and
discovery.k8s.io/v1; docs/semantics.md for what is decided otherwise (undefined ports of a ClusterIP, `serving` unset).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

Document = dict[str, Any]
REJECT, DROP, PASS = "reject", "drop", "pass"


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection. `own`: a process of the node itself sends it."""

    source: str
    destination: str
    protocol: str
    port: int
    own: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a connection may end. `masqueraded`: it gets there with the node's address."""

    address: str
    port: int
    masqueraded: bool


Fate = str | frozenset[Place]  # REJECT, DROP or PASS; or the places of which one is chosen


@dataclass(frozen=True, slots=True)
class Node:
    """A node and its options. `cluster`: blocks of the cluster's pods by which they are told; may be none."""

    name: str
    addresses: tuple[str, ...]
    zone: str
    cluster: tuple[str, ...]
    node_port_blocks: tuple[str, ...]
    masquerade_all: bool = False


def fate(documents: Sequence[Document], node: Node, packet: Packet) -> Fate:
    """What becomes of a packet."""
    found = [d for d in documents if d["kind"] == "Service"]
    for kind in ("clusterIP", "externalIP", "balancerIP", "nodePort"):
        for service in found:
            for port in service["spec"]["ports"]:
                if _is_for(service, port, kind, node, packet):
                    ends = _endpoints(documents, service["metadata"], port, _version(packet.destination))
                    return _serve(service["spec"], kind, ends, node, packet)
    known = {ip for service in found for ip in service["spec"]["clusterIPs"]}
    return REJECT if packet.destination in known else PASS


def _is_for(service: Document, port: Document, kind: str, node: Node, packet: Packet) -> bool:
    spec = service["spec"]
    families = {_version(ip) for ip in spec["clusterIPs"]}
    if port["protocol"] != packet.protocol or _version(packet.destination) not in families:
        return False
    if kind == "nodePort":
        served = not node.node_port_blocks or _within(packet.destination, node.node_port_blocks)
        return port.get("nodePort") == packet.port and packet.destination in node.addresses and served
    ingress = service["status"]["loadBalancer"]["ingress"]
    addresses = {
        "clusterIP": spec["clusterIPs"],
        "externalIP": spec["externalIPs"],
        "balancerIP": [i["ip"] for i in ingress if i.get("ipMode", "VIP") == "VIP"],
    }
    return bool(port["port"] == packet.port and packet.destination in addresses[kind])


def _serve(spec: Document, kind: str, ends: Sequence[_End], node: Node, packet: Packet) -> Fate:
    everywhere = _near(node, [e for e in ends if e.ready]) or [e for e in ends if e.leaving]
    mine = [e for e in ends if e.node == node.name]
    here = [e for e in mine if e.ready] or [e for e in mine if e.leaving]
    pod = _within(packet.source, node.cluster)
    if kind == "balancerIP" and not _in_ranges(spec, node, packet):
        return DROP
    if not everywhere and not here:
        return REJECT
    if kind == "clusterIP":
        chosen = here if spec["internalTrafficPolicy"] == "Local" else everywhere
        told = any(_version(block) == _version(packet.source) for block in node.cluster)
        masquerade = node.masquerade_all or (told and not pod)
    elif spec.get("externalTrafficPolicy") != "Local":
        chosen, masquerade = everywhere, True
    elif pod:
        chosen, masquerade = everywhere, False
    elif packet.own:
        chosen, masquerade = everywhere, True
    else:
        chosen, masquerade = here, False
    if not chosen:
        return DROP
    return frozenset(
        Place(e.address, e.port, _leaves(node, packet, e) and (masquerade or e.address == packet.source))
        for e in chosen
    )


def _leaves(node: Node, packet: Packet, end: _End) -> bool:
    """Whether the packet goes out of the node's stack: what is delivered to the node itself is not masqueraded."""
    return packet.own or end.address not in node.addresses


def _in_ranges(spec: Document, node: Node, packet: Packet) -> bool:
    blocks = [r for r in spec.get("loadBalancerSourceRanges", ()) if _version(r) == _version(packet.source)]
    if not blocks or _within(packet.source, blocks):
        return True
    # The node owns the address, so it may send from it, if it is allowed itself.
    return packet.source == packet.destination and any(_within(a, blocks) for a in node.addresses)


# --- endpoints ---


@dataclass(frozen=True, slots=True)
class _End:
    address: str
    port: int
    node: str
    ready: bool
    leaving: bool  # serving while terminating
    zones: tuple[str, ...]
    nodes: tuple[str, ...]


def _near(node: Node, ready: list[_End]) -> list[_End]:
    if ready and all(e.nodes for e in ready) and any(node.name in e.nodes for e in ready):
        return [e for e in ready if node.name in e.nodes]
    if ready and node.zone and all(e.zones for e in ready) and any(node.zone in e.zones for e in ready):
        return [e for e in ready if node.zone in e.zones]
    return ready


def _endpoints(documents: Sequence[Document], owner: Document, port: Document, version: int) -> list[_End]:
    """Those of the port in one family, each place once: the ready mention, else the first."""
    found: dict[tuple[str, int], _End] = {}
    for end in _mentions(documents, owner, port, version):
        before = found.get((end.address, end.port))
        if before is None or (end.ready and not before.ready):
            found[end.address, end.port] = end
    return list(found.values())


def _mentions(documents: Sequence[Document], owner: Document, port: Document, version: int) -> Iterator[_End]:
    def wanted(p: Document) -> bool:
        return bool(p["name"] == port["name"] and p["protocol"] == port["protocol"])

    slices = [
        d
        for d in documents
        if d["kind"] == "EndpointSlice"
        and d["metadata"]["namespace"] == owner["namespace"]
        and d["metadata"]["labels"]["kubernetes.io/service-name"] == owner["name"]
    ]
    for one in sorted(slices, key=lambda d: str(d["metadata"]["name"])):
        if one["addressType"] != f"IPv{version}":
            continue
        for p in filter(wanted, one["ports"]):
            for e in one["endpoints"]:
                said = e["conditions"]
                ready = said.get("ready", True)
                going = said.get("terminating", False) and said.get("serving", ready)
                hints = e.get("hints") or {}
                yield _End(
                    e["addresses"][0],
                    p["port"],
                    e["nodeName"],
                    ready,
                    going,
                    tuple(z["name"] for z in hints.get("forZones", ())),
                    tuple(n["name"] for n in hints.get("forNodes", ())),
                )
    if slices:
        return
    for legacy in documents:
        if legacy["kind"] != "Endpoints" or legacy["metadata"]["name"] != owner["name"]:
            continue
        for subset in legacy["subsets"]:
            for p in filter(wanted, subset["ports"]):
                for key, ready in (("addresses", True), ("notReadyAddresses", False)):
                    for a in subset[key]:
                        if _version(a["ip"]) == version:
                            yield _End(a["ip"], p["port"], a["nodeName"], ready, False, (), ())


# --- addresses ---


def _version(text: str) -> int:
    return 6 if ":" in text else 4


_address = lru_cache(ip_address)
_network = lru_cache(ip_network)


def _within(address: str, blocks: Sequence[str]) -> bool:
    return any(_address(address) in _network(b) for b in blocks if _version(b) == _version(address))
