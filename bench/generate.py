"""Clusters of any size, printed as `kubectl get services,endpointslices,nodes,pods -A -o json` (or yaml) prints them.

    python bench/generate.py --services 10000 --endpoints 10 > cluster.json

Knows: the shape of kubectl's output. Deterministic: the same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import TextIO

import yaml

CREATED = "2026-01-01T00:00:00Z"
SERVICE_BASE = int(IPv4Address("10.96.0.0"))
SERVICE_BASE_V6 = int(IPv6Address("fd00:10:96::"))
POD_BASE = int(IPv4Address("10.0.0.0")) + (128 << 16)  # 10.128.0.0/10: room for four million pods
POD_BASE_V6 = int(IPv6Address("fd00:10:128::"))
NODE_BASE = int(IPv4Address("192.168.0.10"))
NODE_BASE_V6 = int(IPv6Address("fd00:192:168::10"))
SERVICES_PER_NAMESPACE = 50

Object = dict[str, object]


def _uid(*parts: object) -> str:
    """Looks like a UUID, means the same object every time."""
    value = hash_of("/".join(map(str, parts)))
    return (
        f"{value:032x}"[:8]
        + f"-{value >> 16 & 0xFFFF:04x}-4{value >> 8 & 0xFFF:03x}-8{value & 0xFFF:03x}-"
        + (f"{value:032x}"[-12:])
    )


def hash_of(text: str) -> int:
    """A hash that is the same in every process."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())


def _metadata(kind: str, name: str, namespace: str, labels: dict[str, str]) -> Object:
    metadata: Object = {"creationTimestamp": CREATED, "labels": labels, "name": name}
    if namespace:
        metadata["namespace"] = namespace
    metadata["resourceVersion"] = str(hash_of(name + namespace) % 10**8)
    metadata["uid"] = _uid(kind, namespace, name)
    return metadata


class Cluster:
    """A cluster of `services` x `endpoints`, spread over `nodes`."""

    def __init__(
        self, services: int, endpoints: int, *, nodes: int = 10, node_ports: int = 0, dual_stack: bool = False
    ) -> None:
        self.services = services
        self.endpoints = endpoints
        self.nodes = max(1, nodes)
        self.node_ports = node_ports
        self.dual_stack = dual_stack

    def objects(self, *, pods: bool = False) -> Iterator[Object]:
        """Everything, in kubectl's order: by kind, namespace and name."""
        yield from (self.service(i) for i in range(self.services))
        for i in range(self.services):
            yield self.slice(i, 4)
            if self.dual_stack:
                yield self.slice(i, 6)
        yield from (self.node(i) for i in range(self.nodes))
        if pods:
            for i in range(self.services):
                yield from (self.pod(i, k) for k in range(self.endpoints))

    def _names(self, i: int) -> tuple[str, str]:
        return f"team-{i // SERVICES_PER_NAMESPACE:03d}", f"service-{i:05d}"

    def _node_of(self, pod: int) -> str:
        return f"worker-{pod % self.nodes:03d}"

    def service(self, i: int) -> Object:
        """Service `i`; the first `node_ports` of them have a NodePort."""
        namespace, name = self._names(i)
        ips = [str(IPv4Address(SERVICE_BASE + 1 + i))]
        if self.dual_stack:
            ips.append(str(IPv6Address(SERVICE_BASE_V6 + 1 + i)))
        port: Object = {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}
        if i < self.node_ports:
            port = {"name": "http", "nodePort": 30000 + i, "port": 80, "protocol": "TCP", "targetPort": 8080}
        spec: Object = {
            "clusterIP": ips[0],
            "clusterIPs": ips,
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4", "IPv6"][: len(ips)],
            "ipFamilyPolicy": "RequireDualStack" if self.dual_stack else "SingleStack",
            "ports": [port],
            "selector": {"app": name},
            "sessionAffinity": "None",
            "type": "NodePort" if i < self.node_ports else "ClusterIP",
        }
        if i < self.node_ports:
            spec["externalTrafficPolicy"] = "Cluster"
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _metadata("Service", name, namespace, {"app": name}),
            "spec": spec,
            "status": {"loadBalancer": {}},
        }

    def _pod_ip(self, i: int, k: int, family: int = 4) -> str:
        number = i * self.endpoints + k + 1
        return str(IPv4Address(POD_BASE + number) if family == 4 else IPv6Address(POD_BASE_V6 + number))

    def slice(self, i: int, family: int) -> Object:
        """The EndpointSlice of service `i` in one family."""
        namespace, service = self._names(i)
        suffix = f"{hash_of(service) % 36**5:05d}"[:5] + ("" if family == 4 else "6")
        name = f"{service}-{suffix}"
        endpoints: list[Object] = []
        for k in range(self.endpoints):
            number = i * self.endpoints + k
            pod = f"{service}-{hash_of(service) % 10**9:09d}-{k:05d}"
            endpoints.append(
                {
                    "addresses": [self._pod_ip(i, k, family)],
                    "conditions": {"ready": True, "serving": True, "terminating": False},
                    "nodeName": self._node_of(number),
                    "targetRef": {
                        "kind": "Pod",
                        "name": pod,
                        "namespace": namespace,
                        "uid": _uid("Pod", namespace, pod),
                    },
                    "zone": f"zone-{number % self.nodes % 3}",
                }
            )
        metadata = _metadata(
            "EndpointSlice",
            name,
            namespace,
            {
                "app": service,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": service,
            },
        )
        metadata["generateName"] = f"{service}-"
        metadata["generation"] = 4
        metadata["ownerReferences"] = [
            {
                "apiVersion": "v1",
                "blockOwnerDeletion": True,
                "controller": True,
                "kind": "Service",
                "name": service,
                "uid": _uid("Service", namespace, service),
            }
        ]
        return {
            "addressType": f"IPv{family}",
            "apiVersion": "discovery.k8s.io/v1",
            "endpoints": endpoints,
            "kind": "EndpointSlice",
            "metadata": dict(sorted(metadata.items())),
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }

    def node(self, i: int) -> Object:
        """Node `i`."""
        name = f"worker-{i:03d}"
        room = max(256, 1 << (self.services * self.endpoints // self.nodes).bit_length())
        cidrs = [f"{IPv4Address(POD_BASE + i * room)}/{32 - (room.bit_length() - 1)}"]
        addresses = [{"address": str(IPv4Address(NODE_BASE + i)), "type": "InternalIP"}]
        if self.dual_stack:
            cidrs.append(f"{IPv6Address(POD_BASE_V6 + i * room)}/{128 - (room.bit_length() - 1)}")
            addresses.append({"address": str(IPv6Address(NODE_BASE_V6 + i)), "type": "InternalIP"})
        addresses.append({"address": name, "type": "Hostname"})
        labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"zone-{i % 3}"}
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": _metadata("Node", name, "", labels),
            "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
            "status": {"addresses": addresses},
        }

    def pod(self, i: int, k: int) -> Object:
        """Pod `k` behind service `i`."""
        namespace, service = self._names(i)
        number = i * self.endpoints + k
        ips = [{"ip": self._pod_ip(i, k)}]
        if self.dual_stack:
            ips.append({"ip": self._pod_ip(i, k, 6)})
        name = f"{service}-{hash_of(service) % 10**9:09d}-{k:05d}"
        port = {"containerPort": 8080, "name": "http", "protocol": "TCP"}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": _metadata("Pod", name, namespace, {"app": service}),
            "spec": {
                "containers": [{"image": "registry.example/app:1", "name": "app", "ports": [port]}],
                "nodeName": self._node_of(number),
            },
            "status": {
                "conditions": [{"status": "True", "type": "Ready"}],
                "phase": "Running",
                "podIP": ips[0]["ip"],
                "podIPs": ips,
            },
        }


def write(objects: Iterator[Object], out: TextIO, form: str) -> None:
    """One List, as kubectl prints it in JSON (indented by 4) or YAML."""
    if form == "json":
        out.write('{\n    "apiVersion": "v1",\n    "items": [\n')
        for i, value in enumerate(objects):
            text = json.dumps(value, indent=4, ensure_ascii=False)
            out.write((",\n" if i else "") + "        " + text.replace("\n", "\n        "))
        out.write(
            '\n    ],\n    "kind": "List",\n    "metadata": {\n        "resourceVersion": ""\n    }\n}\n'
        )
        return
    out.write("apiVersion: v1\nitems:\n")
    for value in objects:
        text = yaml.dump(
            value,
            Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper),
            default_flow_style=False,
            width=1 << 30,
        )
        out.write("- " + text.rstrip("\n").replace("\n", "\n  ") + "\n")
    out.write('kind: List\nmetadata:\n  resourceVersion: ""\n')


def main() -> None:
    """Print a cluster."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", type=int, default=10000, help="number of services (default 10000)")
    parser.add_argument("--endpoints", type=int, default=10, help="endpoints of each service (default 10)")
    parser.add_argument("--nodes", type=int, default=10, help="number of nodes (default 10)")
    parser.add_argument(
        "--node-ports", type=int, default=0, help="how many services have a NodePort (default 0)"
    )
    parser.add_argument(
        "--dual-stack", action="store_true", help="give services, endpoints and nodes both families"
    )
    parser.add_argument("--pods", action="store_true", help="print the Pod objects too")
    parser.add_argument("--format", choices=("json", "yaml"), default="json")
    args = parser.parse_args()
    cluster = Cluster(
        args.services,
        args.endpoints,
        nodes=args.nodes,
        node_ports=args.node_ports,
        dual_stack=args.dual_stack,
    )
    write(cluster.objects(pods=args.pods), sys.stdout, args.format)


if __name__ == "__main__":
    main()
