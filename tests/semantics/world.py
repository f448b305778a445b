"""The cluster in which every rule of docs/semantics.md is tried: two nodes, a few pods, one outside client.

Knows: names, addresses and manifests of that cluster. Must not know: rules, back ends, or the kernel.

Addresses are dual-stack everywhere; a Service helper gives its addresses in both families. Server pods serve
every port of `SERVED` over TCP, UDP and SCTP.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from k8snetc.ir.types import Address, Protocol
from k8snetc.lab.topology import Client, Node, Pod, Port, Topology

Manifest = dict[str, Any]

SERVED = (8080, 8081, 9090)
PORTS = tuple(Port(protocol, number) for protocol in Protocol for number in SERVED)
HOST_PORTS = (Port(Protocol.TCP, 9100), Port(Protocol.UDP, 9100))

NODES = {
    "n1": ("192.0.2.11", "2001:db8::11", "10.244.1.0/24", "fd00:244:1::/64", "a"),
    "n2": ("192.0.2.12", "2001:db8::12", "10.244.2.0/24", "fd00:244:2::/64", "b"),
}
PODS = {
    "client-1": ("n1", "10.244.1.10", "fd00:244:1::10", ()),
    "client-2": ("n2", "10.244.2.10", "fd00:244:2::10", ()),
    "web-1": ("n1", "10.244.1.21", "fd00:244:1::21", PORTS),
    "web-2": ("n2", "10.244.2.22", "fd00:244:2::22", PORTS),
    "web-3": ("n2", "10.244.2.23", "fd00:244:2::23", PORTS),
    "api-1": ("n1", "10.244.1.31", "fd00:244:1::31", PORTS),
}
OUTSIDE = ("192.0.2.100", "2001:db8::100")
SECOND = ("192.0.2.101", "2001:db8::101")

TOPOLOGY = Topology(
    nodes=tuple(
        Node(name, (ip_address(v4), ip_address(v6)), (ip_network(net4), ip_network(net6)), HOST_PORTS)
        for name, (v4, v6, net4, net6, _) in NODES.items()
    ),
    pods=tuple(
        Pod("shop", name, node, (ip_address(v4), ip_address(v6)), ports)
        for name, (node, v4, v6, ports) in PODS.items()
    ),
    clients=(
        Client("outside", tuple(map(ip_address, OUTSIDE)), gateway="n1"),
        Client("second", tuple(map(ip_address, SECOND)), gateway="n1"),
    ),
)

CLUSTER_CIDRS = ("10.244.0.0/16", "fd00:244::/32")


def place(name: str) -> str:
    """The lab's word for a short name: `web-1`, `n1`, `outside`."""
    if name in PODS:
        return f"pod/shop/{name}"
    return f"node/{name}" if name in NODES else f"client/{name}"


def address(name: str, family: int) -> Address:
    """The address of a pod, node or client by its short name, or of a pair of addresses `v4,v6`."""
    pair = {"outside": OUTSIDE, "second": SECOND}.get(name)
    if name in NODES:
        pair = NODES[name][:2]
    elif name in PODS:
        pair = PODS[name][1:3]
    elif "," in name:
        v4, v6 = name.split(",")
        pair = v4, v6
    if pair is None:
        raise KeyError(name)
    return ip_address(pair[0 if family == 4 else 1])


def cluster_manifests() -> list[Manifest]:
    """Namespace, nodes and pods as an API server shows them."""
    nodes = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
            "spec": {"podCIDR": net4, "podCIDRs": [net4, net6]},
            "status": {"addresses": [{"type": "InternalIP", "address": a} for a in (v4, v6)]},
        }
        for name, (v4, v6, net4, net6, zone) in NODES.items()
    ]
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "shop",
                "labels": {"app": name.split("-")[0], "name": name},
            },
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}]},
        }
        for name, (node, v4, v6, _) in PODS.items()
    ]
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}, *nodes, *pods]


def port(
    number: int = 80,
    *,
    name: str = "",
    protocol: str = "TCP",
    target: int | str = 8080,
    node_port: int = 0,
) -> Manifest:
    """A port of a Service."""
    found: Manifest = {"port": number, "protocol": protocol, "targetPort": target}
    if name:
        found["name"] = name
    if node_port:
        found["nodePort"] = node_port
    return found


def service(
    name: str,
    number: int,
    *,
    ports: Sequence[Manifest] = (),
    labels: dict[str, str] | None = None,
    ingress: Sequence[Manifest] = (),
    **spec: Any,
) -> Manifest:
    """A Service with the ClusterIPs 10.96.0.<number> and fd00:96::<number>; `spec` in the API's names."""
    made: Manifest = {
        "type": "ClusterIP",
        "clusterIP": f"10.96.0.{number}",
        "clusterIPs": [f"10.96.0.{number}", f"fd00:96::{number}"],
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack",
        "ports": list(ports) or [port()],
        **spec,
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "labels": labels or {}},
        "spec": {key: value for key, value in made.items() if value is not None},
        "status": {"loadBalancer": {"ingress": list(ingress)}},
    }


def endpoint(name: str, family: int = 4, **more: Any) -> Manifest:
    """An endpoint of a slice: a pod or node by its short name; `more` in the API's names."""
    node = name if name in NODES else PODS[name][0]
    return {
        "addresses": [str(address(name, family))],
        "nodeName": node,
        "zone": NODES[node][4],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        **more,
    }


def hints(*zones: str, nodes: Sequence[str] = ()) -> Manifest:
    """Topology hints for `endpoint(..., hints=...)`."""
    found: Manifest = {"forZones": [{"name": z} for z in zones]}
    if nodes:
        found["forNodes"] = [{"name": n} for n in nodes]
    return found


def slices(
    owner: str,
    *names: str | tuple[str, Manifest],
    ports: Sequence[Manifest] = (),
    suffix: str = "x",
    labels: dict[str, str] | None = None,
    namespace: str = "shop",
) -> list[Manifest]:
    """An EndpointSlice of each family for a Service; `names` are pods or nodes, or pairs with more fields."""
    made = []
    for family in (4, 6):
        pairs = [(n, {}) if isinstance(n, str) else n for n in names]
        made.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{owner}-{suffix}{family}",
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": owner, **(labels or {})},
                },
                "addressType": f"IPv{family}",
                "endpoints": [endpoint(n, family, **more) for n, more in pairs],
                "ports": list(ports) or [{"name": "", "port": 8080, "protocol": "TCP"}],
            }
        )
    return made


def slice_port(number: int = 8080, *, name: str = "", protocol: str = "TCP") -> Manifest:
    """A port of a slice."""
    return {"name": name, "port": number, "protocol": protocol}


def write(folder: Path, manifests: Sequence[Manifest]) -> Path:
    """The manifests and the cluster's own objects as one file, as kubectl prints them."""
    path = folder / "cluster.json"
    items = [*cluster_manifests(), *manifests]
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2))
    return path
