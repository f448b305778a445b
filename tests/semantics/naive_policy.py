"""What policies allow, worked out a second time and as plainly as possible: straight from the manifests.

Knows the API documentation of NetworkPolicy, ClusterNetworkPolicy and (Baseline)AdminNetworkPolicy. Shares nothing with
the compiler: no IR, no models, no index, no range arithmetic. Every question looks at every policy's rules again; which
pod has an address, and which policies a pod has, is worked out once for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

Document = Mapping[str, Any]


class Question(NamedTuple):
    """One side's question: may this pass between the pod and `peer`? `holder` is the destination, if it is a pod."""

    direction: str
    peer: str
    holder: Document | None
    protocol: str | None
    port: int


class Cluster:
    """The manifests of a cluster, as parsed YAML. `node` names the node whose pods are protected, None: all."""

    def __init__(self, documents: Sequence[Document], node: str | None = None) -> None:
        self.documents = documents
        self.node = node
        self.kind = cache(self._kind)
        self.pod_at = cache(self._pod_at)
        self.own_addresses = cache(self._own_addresses)
        self.isolating = cache(self._isolating)
        self.tier_rules = cache(self._tier_rules)

    def _kind(self, kind: str) -> list[Document]:
        """All objects of a kind."""
        return [d for d in self.documents if d["kind"] == kind]

    def _pod_at(self, address: str) -> Document | None:
        """The pod that has the address, as far as policies see pods."""
        for pod in self.kind("Pod"):
            status = pod.get("status") or {}
            if (pod.get("spec") or {}).get("hostNetwork") or status.get("phase") in {"Succeeded", "Failed"}:
                continue
            if ip(address) in [ip(a) for a in pod_addresses(pod)]:
                return pod
        return None

    def namespace_labels(self, name: str) -> dict[str, str]:
        """The labels of a namespace, which exists whether it is declared or not."""
        labels: dict[str, str] = {}
        for namespace in self.kind("Namespace"):
            if namespace["metadata"]["name"] == name:
                labels = dict(namespace["metadata"].get("labels") or {})
        labels["kubernetes.io/metadata.name"] = name
        return labels

    def node_addresses(self, node: Document) -> list[str]:
        """The IP addresses of a node."""
        listed = (node.get("status") or {}).get("addresses") or []
        return [a["address"] for a in listed if a["type"] in {"InternalIP", "ExternalIP"}]

    def _own_addresses(self) -> list[str]:
        """The addresses of the node that the program is for."""
        return [
            a
            for n in self.kind("Node")
            if self.node is not None and n["metadata"]["name"] == self.node
            for a in self.node_addresses(n)
        ]

    # --- the question ---

    def allows(self, source: str, destination: str, protocol: str | None, port: int) -> bool:
        """Whether a new packet may pass. `protocol` is TCP, UDP, SCTP, or None for any other."""
        if ip(source) == ip(destination):
            return True
        own = [ip(a) for a in self.own_addresses()]
        if ip(source) in own:
            return True
        if ip(destination) not in own and not self.judges("egress", source, destination, protocol, port):
            return False
        return self.judges("ingress", destination, source, protocol, port)

    def judges(self, direction: str, address: str, peer: str, protocol: str | None, port: int) -> bool:
        """Whether one side's policies allow it. The port is the destination's in both directions."""
        pod = self.pod_at(address)
        if pod is None or (self.node is not None and (pod.get("spec") or {}).get("nodeName") != self.node):
            return True
        holder = pod if direction == "ingress" else self.pod_at(peer)
        asked = Question(direction, peer, holder, protocol, port)

        for rule in self.tier_rules("Admin", direction, address):
            if self.tier_rule_matches(rule, asked):
                if rule["action"] == "Pass":
                    break
                return bool(rule["action"] != "Deny")

        policies = self.isolating(direction, address)
        if policies:
            return any(
                self.network_rule_matches(policy, rule, asked)
                for policy in policies
                for rule in policy["spec"].get(direction) or []
            )

        for rule in self.tier_rules("Baseline", direction, address):
            if self.tier_rule_matches(rule, asked):
                return bool(rule["action"] != "Deny")
        return True

    # --- networking.k8s.io/v1 ---

    def _isolating(self, direction: str, address: str) -> list[Document]:
        """The NetworkPolicies that select the pod at the address."""
        pod = self.pod_at(address)
        assert pod is not None
        return [p for p in self.kind("NetworkPolicy") if self.isolates(p, direction, pod)]

    def isolates(self, policy: Document, direction: str, pod: Document) -> bool:
        """Whether a NetworkPolicy selects the pod and is about the direction."""
        if namespace_of(policy) != namespace_of(pod):
            return False
        spec = policy["spec"]
        if not labels_match(spec.get("podSelector") or {}, labels_of(pod)):
            return False
        types = spec.get("policyTypes")
        if not types:
            types = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
        return direction.capitalize() in types

    def network_rule_matches(self, policy: Document, rule: Document, asked: Question) -> bool:
        """Whether one rule of a NetworkPolicy allows the packet."""
        peers = rule.get("from" if asked.direction == "ingress" else "to")
        if peers and not any(self.network_peer_matches(policy, p, asked.peer) for p in peers):
            return False
        ports = rule.get("ports")
        return not ports or any(network_port_matches(p, asked) for p in ports)

    def network_peer_matches(self, policy: Document, peer: Document, address: str) -> bool:
        """Whether the address is one of a NetworkPolicy peer's."""
        block = peer.get("ipBlock")
        if block is not None:
            return in_block(address, block["cidr"]) and not any(
                in_block(address, e) for e in block.get("except") or []
            )
        pod = self.pod_at(address)
        if pod is None:
            return False
        if peer.get("namespaceSelector") is None:
            if namespace_of(pod) != namespace_of(policy):
                return False
        elif not labels_match(peer["namespaceSelector"], self.namespace_labels(namespace_of(pod))):
            return False
        return peer.get("podSelector") is None or labels_match(peer["podSelector"], labels_of(pod))

    # --- policy.networking.k8s.io ---

    def _tier_rules(self, tier: str, direction: str, address: str) -> list[Document]:
        """The rules of a tier for the pod at the address, in the order in which they decide."""
        pod = self.pod_at(address)
        assert pod is not None
        found: list[tuple[int, str, str, Document]] = []
        for policy in self.documents:
            spec = policy.get("spec") or {}
            match policy["kind"]:
                case "ClusterNetworkPolicy":
                    mine, priority = spec["tier"] == tier, spec["priority"]
                case "AdminNetworkPolicy":
                    mine, priority = tier == "Admin", spec["priority"]
                case "BaselineAdminNetworkPolicy":
                    mine, priority = tier == "Baseline", 1001
                case _:
                    continue
            if mine and self.selection_matches(spec["subject"], pod):
                found.append((priority, policy["metadata"]["name"], policy["kind"], policy))
        found.sort(key=lambda f: f[:3])
        return [rule for *_, policy in found for rule in policy["spec"].get(direction) or []]

    def selection_matches(self, selection: Document, pod: Document) -> bool:
        """Whether `namespaces` or `pods` of a subject or peer selects the pod."""
        if selection.get("namespaces") is not None:
            namespaces, pods = selection["namespaces"], {}
        else:
            namespaces, pods = selection["pods"]["namespaceSelector"], selection["pods"]["podSelector"]
        inside = labels_match(namespaces, self.namespace_labels(namespace_of(pod)))
        return inside and labels_match(pods, labels_of(pod))

    def tier_rule_matches(self, rule: Document, asked: Question) -> bool:
        """Whether one rule of a cluster-wide policy is about the packet."""
        peers = rule["from" if asked.direction == "ingress" else "to"]
        if not any(self.tier_peer_matches(p, asked.peer) for p in peers):
            return False
        matches = rule.get("protocols") or rule.get("ports")
        return not matches or any(tier_port_matches(m, asked) for m in matches)

    def tier_peer_matches(self, peer: Document, address: str) -> bool:
        """Whether the address is one of a cluster-wide policy's peer."""
        if peer.get("networks") is not None:
            return any(in_block(address, n) for n in peer["networks"])
        if peer.get("nodes") is not None:
            return any(
                ip(address) == ip(a)
                for node in self.kind("Node")
                if labels_match(peer["nodes"], node["metadata"].get("labels") or {})
                for a in self.node_addresses(node)
            )
        pod = self.pod_at(address)
        return pod is not None and self.selection_matches(peer, pod)


def namespace_of(thing: Document) -> str:
    """The namespace, `default` where none is given."""
    return str(thing["metadata"].get("namespace") or "default")


def labels_of(thing: Document) -> dict[str, str]:
    """The labels."""
    return dict(thing["metadata"].get("labels") or {})


def pod_addresses(pod: Document) -> list[str]:
    """The addresses in the status."""
    status = pod.get("status") or {}
    listed = [p["ip"] for p in status.get("podIPs") or []]
    return listed or ([status["podIP"]] if status.get("podIP") else [])


def labels_match(selector: Document, labels: Mapping[str, str]) -> bool:
    """A LabelSelector, one requirement after the other."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if key not in labels or labels[key] != value:
            return False
    for expression in selector.get("matchExpressions") or []:
        key, operator = expression["key"], expression["operator"]
        if operator == "In" and not (key in labels and labels[key] in expression["values"]):
            return False
        if operator == "NotIn" and key in labels and labels[key] in expression["values"]:
            return False
        if operator == "Exists" and key not in labels:
            return False
        if operator == "DoesNotExist" and key in labels:
            return False
    return True


def in_block(address: str, block: str) -> bool:
    """Whether an address is in a CIDR block, whose host bits don't matter."""
    return network(block).version == ip(address).version and ip(address) in network(block)


@cache
def ip(text: str) -> IPv4Address | IPv6Address:
    """An address, parsed once."""
    return ip_address(text)


@cache
def network(text: str) -> IPv4Network | IPv6Network:
    """A block, parsed once."""
    return ip_network(text, strict=False)


def named_port(pod: Document | None, name: str, protocol: str | None) -> int | None:
    """The number that a port name has on the pod, for this protocol."""
    if pod is None:
        return None
    for container in (pod.get("spec") or {}).get("containers") or []:
        for port in container.get("ports") or []:
            if port.get("name") == name and (port.get("protocol") or "TCP") == protocol:
                return int(port["containerPort"])
    return None


def network_port_matches(match: Document, asked: Question) -> bool:
    """One entry of a NetworkPolicy rule's ports."""
    if (match.get("protocol") or "TCP") != asked.protocol:
        return False
    wanted = match.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return named_port(asked.holder, wanted, asked.protocol) == asked.port
    return bool(wanted <= asked.port <= (match.get("endPort") or wanted))


def tier_port_matches(match: Document, asked: Question) -> bool:
    """One entry of a cluster-wide rule's `protocols` (v1alpha2) or `ports` (v1alpha1)."""
    name = match.get("destinationNamedPort") or match.get("namedPort")
    if name:
        return named_port(asked.holder, name, asked.protocol) == asked.port
    if "portNumber" in match:
        one = match["portNumber"]
        return (one.get("protocol") or "TCP") == asked.protocol and bool(one["port"] == asked.port)
    if "portRange" in match:
        span = match["portRange"]
        inside = span["start"] <= asked.port <= span["end"]
        return (span.get("protocol") or "TCP") == asked.protocol and bool(inside)
    for key in ("tcp", "udp", "sctp"):
        if key in match:
            if key.upper() != asked.protocol:
                return False
            destination = match[key]["destinationPort"]
            if "number" in destination:
                return bool(destination["number"] == asked.port)
            return bool(destination["range"]["start"] <= asked.port <= destination["range"]["end"])
    raise AssertionError(match)
