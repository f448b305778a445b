"""The cluster that every policy case runs in: two nodes, three namespaces, nine pods a node, and some odd ones.

Knows manifests and the lab's topology of the same cluster. Namespace z is declared by no manifest.

| pods | node | web | dns | sig |
|---|---|---|---|---|
| a, b, c of x, y and z | w1 | 80/tcp | 80/udp | 80/sctp |
| d, e, f of x, y and z | w2 | 81/tcp | 81/udp | 80/sctp |

All pods listen on 80 and 81 of TCP and UDP and on 80 of SCTP. Besides: `x/host`, a host-network pod on w2; `y/done`,
which has finished and whose address x/b has by now; z/e is Pending with its address, z/f is being deleted.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from k8snetc.ir.types import Protocol
from k8snetc.lab.topology import Client, Node, Pod, Port, Topology

Document = dict[str, Any]

TCP, UDP, SCTP = Protocol.TCP, Protocol.UDP, Protocol.SCTP
NAMESPACES = {"x": {"team": "blue", "ns": "x"}, "y": {"team": "red", "ns": "y"}}
PODS = {"w1": ("a", "b", "c"), "w2": ("d", "e", "f")}
LISTEN = (Port(TCP, 80), Port(TCP, 81), Port(UDP, 80), Port(UDP, 81), Port(SCTP, 80))
CLUSTER_CIDRS = (ip_network("10.244.0.0/16"), ip_network("fd44::/16"))
# By name: their addresses, NodePort and externalTrafficPolicy; the endpoint of each is y/a.
SERVICES = {
    "web": (("10.96.0.80", "fd96::80"), 30080, "Cluster"),
    "near": (("10.96.0.81", "fd96::81"), 30081, "Local"),
}
WEB, WEB_V6 = SERVICES["web"][0]
OUTSIDE = ("203.0.113.9", "198.51.100.9", "2001:db8::9", "2001:db8:1::9")


def node_number(node: str) -> int:
    """1 for w1, 2 for w2."""
    return int(node[1:])


def pod_addresses(namespace: str, name: str, node: str) -> tuple[str, str]:
    """IPv4 and IPv6: x is in the tens, y in the twenties, z in the thirties."""
    host = 10 * ("xyz".index(namespace) + 1) + "abcdef".index(name)
    return f"10.244.{node_number(node)}.{host}", f"fd44:{node_number(node)}::{host}"


def node_addresses(node: str) -> tuple[str, str]:
    """IPv4 and IPv6."""
    return f"172.18.0.{node_number(node)}", f"fd18::{node_number(node)}"


def topology() -> Topology:
    """The cluster for the lab."""
    nodes = tuple(
        Node(
            w,
            tuple(map(ip_address, node_addresses(w))),
            (ip_network(f"10.244.{node_number(w)}.0/24"), ip_network(f"fd44:{node_number(w)}::/64")),
            (Port(TCP, 10250),),
        )
        for w in PODS
    )
    pods = [
        Pod(ns, name, w, tuple(map(ip_address, pod_addresses(ns, name, w))), LISTEN)
        for ns in "xyz"
        for w, names in PODS.items()
        for name in names
    ]
    pods.append(Pod("x", "host", "w2", ports=(Port(TCP, 7070),), host_network=True))
    return Topology(
        nodes, tuple(pods), (Client("out", tuple(map(ip_address, OUTSIDE)), "w1", (Port(TCP, 80),)),)
    )


def documents() -> list[Document]:
    """The cluster as manifests, without policies."""
    out: list[Document] = []
    for node in PODS:
        listed = [{"type": "InternalIP", "address": a} for a in node_addresses(node)]
        cidrs = [f"10.244.{node_number(node)}.0/24", f"fd44:{node_number(node)}::/64"]
        metadata = {"name": node, "labels": {"role": "edge" if node == "w1" else "core"}}
        spec = {"podCIDR": cidrs[0], "podCIDRs": cidrs}
        out.append(_object("v1", "Node", metadata, spec=spec, status={"addresses": listed}))
    for name, labels in NAMESPACES.items():
        wrong = {"kubernetes.io/metadata.name": "z"} if name == "y" else {}
        out.append(_object("v1", "Namespace", {"name": name, "labels": {**labels, **wrong}}))
    for ns in "xyz":
        for node, names in PODS.items():
            for name in names:
                out.append(_pod(ns, name, node))
    host = _pod("x", "host", "w2", list(node_addresses("w2")))
    host["spec"]["hostNetwork"] = True
    done = _pod("y", "done", "w1", list(pod_addresses("x", "b", "w1")))
    done["status"]["phase"] = "Succeeded"
    out += [
        host,
        done,
        *(_service(name) for name in SERVICES),
        *(s for name in SERVICES for s in _slices(name)),
    ]
    return out


def _object(version: str, kind: str, metadata: Document, **rest: object) -> Document:
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def _pod(namespace: str, name: str, node: str, addresses: list[str] | None = None) -> Document:
    own = addresses or list(pod_addresses(namespace, name, node))
    number = 80 if node == "w1" else 81
    ports = [
        {"name": "web", "containerPort": number},
        {"name": "dns", "containerPort": number, "protocol": "UDP"},
        {"name": "sig", "containerPort": 80, "protocol": "SCTP"},
    ]
    metadata: Document = {"name": name, "namespace": namespace, "labels": {"pod": name}}
    if name in "ad":
        metadata["labels"]["tier"] = "front"
    if name in "be":
        metadata["labels"]["tier"] = ""
    if (namespace, name) == ("z", "f"):
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    status = {
        "phase": "Pending" if (namespace, name) == ("z", "e") else "Running",
        "podIP": own[0],
        "podIPs": [{"ip": a} for a in own],
    }
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "x", "ports": ports}]}
    return _object("v1", "Pod", metadata, spec=spec, status=status)


def _service(name: str) -> Document:
    addresses, node_port, traffic = SERVICES[name]
    spec = {
        "type": "NodePort",
        "externalTrafficPolicy": traffic,
        "selector": {"pod": "a"},
        "clusterIP": addresses[0],
        "clusterIPs": list(addresses),
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack",
        "ports": [{"name": "web", "port": 8000, "targetPort": "web", "nodePort": node_port}],
    }
    return _object("v1", "Service", {"name": name, "namespace": "y"}, spec=spec)


def _slices(name: str) -> list[Document]:
    """A service has one endpoint, y/a on w1, so that a probe's way is certain."""
    out = []
    for family, address in zip(("IPv4", "IPv6"), pod_addresses("y", "a", "w1"), strict=True):
        metadata = {
            "name": f"{name}-{family.lower()}",
            "namespace": "y",
            "labels": {"kubernetes.io/service-name": name},
        }
        endpoint = {"addresses": [address], "nodeName": "w1", "conditions": {"ready": True}}
        out.append(
            _object(
                "discovery.k8s.io/v1",
                "EndpointSlice",
                metadata,
                addressType=family,
                ports=[{"name": "web", "port": 80, "protocol": "TCP"}],
                endpoints=[endpoint],
            )
        )
    return out
