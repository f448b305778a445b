"""Manifests to the shapes that `resolve` works on.

Knows: the three policy APIs as validated models, and which pods, namespaces and nodes count. Must not know: how
selectors are answered. The only module of the package that sees manifests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from k8snetc.compiler import fields
from k8snetc.compiler.diagnostics import Diagnostic, InputError
from k8snetc.compiler.manifests import Manifests
from k8snetc.compiler.manifests_admin import (
    AdminEgressRule,
    AdminIngressRule,
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterEgressRule,
    ClusterIngressRule,
    ClusterNetworkPolicy,
    DestinationPort,
    EgressPeer,
    IngressPeer,
    NamespacedPod,
    OldPort,
    ProtocolSelector,
)
from k8snetc.compiler.manifests_policy import IPBlock, NetworkPolicy, PolicyPort
from k8snetc.compiler.manifests_policy import Peer as NetworkPeer
from k8snetc.compiler.manifests_workload import Pod, PodSpec
from k8snetc.compiler.policy.cluster import Cluster, NodeEntry, PodEntry
from k8snetc.compiler.policy.model import (
    BlockPeer,
    NodePeer,
    Peer,
    PodPeer,
    Policy,
    PolicyRule,
    PortMatch,
    Tier,
)
from k8snetc.compiler.selectors import EVERYTHING, Operator, Requirement, Selector, requirement, selector
from k8snetc.ir.addresses import family_of, prefix_of, range_of, subtract
from k8snetc.ir.types import Address, Direction, Family, Network, Origin, PortRange, Protocol, Verdict

FINISHED = frozenset({"Succeeded", "Failed"})
# BaselineAdminNetworkPolicy has no priority; there is one, and it comes after every Baseline ClusterNetworkPolicy.
AFTER_ALL = 1001

_VERDICTS = {"Accept": Verdict.ALLOW, "Allow": Verdict.ALLOW, "Deny": Verdict.DENY, "Pass": Verdict.PASS}


# --- the cluster ----------------------------------------------------------------------------------------------


def counts(pod: Pod) -> bool:
    """Whether policies see the pod: it has an address of its own and has not finished.

    A finished pod's address may be a running pod's by now; a terminating one still has its own.
    """
    return bool(pod.addresses) and not pod.spec.host_network and pod.status.phase not in FINISHED


def cluster_of(manifests: Manifests, node: str | None) -> Cluster:
    """The cluster, with the pods of `node` (None: all) as the local ones.

    Raises `InputError` where two pods that count have one address: their policies can't be told apart.
    """
    entries = [_pod(p, node) for p in manifests.pods if counts(p)]
    entries.sort(key=lambda p: (p.namespace, p.name))
    _refuse_shared_addresses(entries)
    return Cluster(
        entries,
        {n.metadata.name: n.metadata.labels for n in manifests.namespaces},
        [NodeEntry(n.metadata.labels, _by_family(n.ips)) for n in manifests.nodes],
    )


def port_numbers(spec: PodSpec) -> dict[tuple[str, Protocol], int]:
    """The numbers of a pod's named ports; a name that is given twice is the first one."""
    ports: dict[tuple[str, Protocol], int] = {}
    for port in spec.ports:
        if port.name:
            ports.setdefault((port.name, Protocol[port.protocol]), port.container_port)
    return ports


def _pod(pod: Pod, node: str | None) -> PodEntry:
    return PodEntry(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        labels=pod.metadata.labels,
        local=node is None or pod.spec.node_name == node,
        addresses=_by_family(pod.addresses),
        ports=port_numbers(pod.spec),
        origin=pod.origin,
    )


def _by_family(addresses: Iterable[Address]) -> dict[Family, tuple[int, ...]]:
    out: dict[Family, tuple[int, ...]] = {}
    for address in addresses:
        family = family_of(address)
        out[family] = (*out.get(family, ()), int(address))
    return out


def _refuse_shared_addresses(entries: Iterable[PodEntry]) -> None:
    owners: dict[tuple[Family, int], PodEntry] = {}
    found: list[Diagnostic] = []
    for entry in entries:
        for family, values in entry.addresses.items():
            for value in values:
                owner = owners.setdefault((family, value), entry)
                if owner is not entry:
                    what = f"{entry.origin} has the same address as {owner.origin}"
                    fix = "delete the one that no longer runs, or correct its status"
                    found.append(Diagnostic(entry.origin.file, entry.origin.line, what, fix))
    if found:
        raise InputError(found)


# --- policies -------------------------------------------------------------------------------------------------


def policies_of(manifests: Manifests) -> list[Policy]:
    """All policies of all APIs."""
    return [
        *map(_network_policy, manifests.network_policies),
        *map(_cluster_policy, manifests.cluster_network_policies),
        *map(_admin_policy, manifests.admin_network_policies),
        *map(_baseline_policy, manifests.baseline_admin_network_policies),
    ]


def selector_of(model: fields.LabelSelector) -> Selector:
    """A manifest's label selector; empty selects everything."""
    if not model.match_labels and not model.match_expressions:
        return EVERYTHING
    parts = [Requirement(k, Operator.IN, (v,)) for k, v in model.match_labels.items()]
    parts.extend(requirement(e.key, Operator(e.operator), e.values) for e in model.match_expressions)
    return selector(parts)


def _network_policy(policy: NetworkPolicy) -> Policy:
    spec, namespace = policy.spec, policy.metadata.namespace
    ingress = egress = None
    if "Ingress" in spec.policy_types:
        ingress = tuple(
            _network_rule(policy.origin, f"spec.ingress[{i}]", namespace, r.from_, r.ports)
            for i, r in enumerate(spec.ingress)
        )
    if "Egress" in spec.policy_types:
        egress = tuple(
            _network_rule(policy.origin, f"spec.egress[{i}]", namespace, r.to, r.ports)
            for i, r in enumerate(spec.egress)
        )
    subject = PodPeer(selector_of(spec.pod_selector), namespace=namespace)
    silenced = (
        *((Direction.INGRESS,) if ingress is None and spec.ingress else ()),
        *((Direction.EGRESS,) if egress is None and spec.egress else ()),
    )
    return Policy(policy.origin, Tier.NETWORK, subject, ingress, egress, silenced=silenced)


def _network_rule(
    origin: Origin, path: str, namespace: str, peers: Sequence[NetworkPeer], ports: Sequence[PolicyPort]
) -> PolicyRule:
    return PolicyRule(
        Verdict.ALLOW,
        tuple(_network_peer(p, namespace) for p in peers) if peers else None,
        tuple(map(_network_port, ports)) if ports else None,
        replace(origin, path=path),
    )


def _network_peer(peer: NetworkPeer, namespace: str) -> Peer:
    if peer.ip_block is not None:
        return block_peer(peer.ip_block)
    pods = selector_of(peer.pod_selector) if peer.pod_selector is not None else EVERYTHING
    if peer.namespace_selector is None:
        return PodPeer(pods, namespace=namespace)
    return PodPeer(pods, namespaces=selector_of(peer.namespace_selector))


def block_peer(block: IPBlock) -> BlockPeer:
    """The addresses of an ipBlock, without those it excepts."""
    family = family_of(block.cidr)
    holes = (range_of(family, prefix_of(n)) for n in block.except_)
    return BlockPeer(family, tuple(subtract([range_of(family, prefix_of(block.cidr))], holes)))


def _network_port(port: PolicyPort) -> PortMatch:
    protocol = Protocol[port.protocol]
    if port.port is None:
        return PortMatch(protocol)
    if isinstance(port.port, str):
        return PortMatch(protocol, name=port.port)
    return PortMatch(protocol, PortRange(port.port, port.end_port or port.port))


def _cluster_policy(policy: ClusterNetworkPolicy) -> Policy:
    spec = policy.spec
    return Policy(
        policy.origin,
        Tier.ADMIN if spec.tier == "Admin" else Tier.BASELINE,
        _pod_peer(spec.subject.namespaces, spec.subject.pods),
        tuple(_cluster_rule(policy.origin, f"spec.ingress[{i}]", r) for i, r in enumerate(spec.ingress))
        or None,
        tuple(_cluster_rule(policy.origin, f"spec.egress[{i}]", r) for i, r in enumerate(spec.egress))
        or None,
        (spec.priority, policy.metadata.name, policy.origin.kind),
    )


def _admin_policy(policy: AdminNetworkPolicy) -> Policy:
    return _old_policy(policy, Tier.ADMIN, policy.spec.priority)


def _baseline_policy(policy: BaselineAdminNetworkPolicy) -> Policy:
    return _old_policy(policy, Tier.BASELINE, AFTER_ALL)


def _old_policy(policy: AdminNetworkPolicy | BaselineAdminNetworkPolicy, tier: Tier, priority: int) -> Policy:
    spec = policy.spec
    return Policy(
        policy.origin,
        tier,
        _pod_peer(spec.subject.namespaces, spec.subject.pods),
        tuple(_old_rule(policy.origin, f"spec.ingress[{i}]", r) for i, r in enumerate(spec.ingress)) or None,
        tuple(_old_rule(policy.origin, f"spec.egress[{i}]", r) for i, r in enumerate(spec.egress)) or None,
        (priority, policy.metadata.name, policy.origin.kind),
    )


def _pod_peer(namespaces: fields.LabelSelector | None, pods: NamespacedPod | None) -> PodPeer:
    if pods is not None:
        return PodPeer(selector_of(pods.pod_selector), namespaces=selector_of(pods.namespace_selector))
    if namespaces is None:
        raise AssertionError("a subject or peer without selection passed validation")
    return PodPeer(namespaces=selector_of(namespaces))


def _cluster_rule(origin: Origin, path: str, rule: ClusterIngressRule | ClusterEgressRule) -> PolicyRule:
    return PolicyRule(
        _VERDICTS[rule.action],
        tuple(_tier_peers(rule.from_ if isinstance(rule, ClusterIngressRule) else rule.to)),
        tuple(p for s in rule.protocols for p in _protocol(s)) if rule.protocols else None,
        replace(origin, path=path),
    )


def _old_rule(origin: Origin, path: str, rule: AdminIngressRule | AdminEgressRule) -> PolicyRule:
    return PolicyRule(
        _VERDICTS[rule.action],
        tuple(_tier_peers(rule.from_ if isinstance(rule, AdminIngressRule) else rule.to)),
        tuple(map(_old_port, rule.ports)) if rule.ports else None,
        replace(origin, path=path),
    )


def _tier_peers(peers: Sequence[IngressPeer | EgressPeer]) -> Iterator[Peer]:
    for peer in peers:
        if isinstance(peer, EgressPeer) and peer.networks is not None:
            yield from map(_network, peer.networks)
        elif isinstance(peer, EgressPeer) and peer.nodes is not None:
            yield NodePeer(selector_of(peer.nodes))
        else:
            yield _pod_peer(peer.namespaces, peer.pods)


def _network(network: Network) -> BlockPeer:
    family = family_of(network)
    return BlockPeer(family, (range_of(family, prefix_of(network)),))


def _protocol(match: ProtocolSelector) -> Iterator[PortMatch]:
    sides: tuple[tuple[Literal["TCP", "UDP", "SCTP"], DestinationPort | None], ...] = (
        ("TCP", match.tcp.destination_port if match.tcp else None),
        ("UDP", match.udp.destination_port if match.udp else None),
        ("SCTP", match.sctp.destination_port if match.sctp else None),
    )
    for name, port in sides:
        if port is not None and port.number is not None:
            yield PortMatch(Protocol[name], PortRange(port.number, port.number))
        elif port is not None and port.range is not None:
            yield PortMatch(Protocol[name], PortRange(port.range.start, port.range.end))
    if match.destination_named_port:
        yield PortMatch(None, name=match.destination_named_port)


def _old_port(port: OldPort) -> PortMatch:
    if port.port_number is not None:
        number = port.port_number
        return PortMatch(Protocol[number.protocol], PortRange(number.port, number.port))
    if port.port_range is not None:
        span = port.port_range
        return PortMatch(Protocol[span.protocol], PortRange(span.start, span.end))
    return PortMatch(None, name=port.named_port or "")
