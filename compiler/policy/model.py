"""Policies of all APIs in one shape: whom they are for, which peers and ports their rules match, what they decide.

Knows: the common meaning of networking.k8s.io/v1 NetworkPolicy, policy.networking.k8s.io/v1alpha2
ClusterNetworkPolicy and v1alpha1 (Baseline)AdminNetworkPolicy. Must not know: manifests, or which pods exist.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from k8snetc.compiler.selectors import EVERYTHING, Selector
from k8snetc.ir.addresses import Range, cover, prefix_text
from k8snetc.ir.types import Direction, Family, Origin, PortRange, Protocol, Verdict


class Tier(Enum):
    """When a policy is asked: ADMIN by priority, then NETWORK (its rules only allow), then BASELINE."""

    ADMIN = "admin"
    NETWORK = "network"
    BASELINE = "baseline"


@dataclass(frozen=True, slots=True)
class PodPeer:
    """Pods that `pods` selects, in the namespace called `namespace` or else in those that `namespaces` selects.

    Never a host-network pod, a node or an outside address.
    """

    pods: Selector = EVERYTHING
    namespace: str | None = None
    namespaces: Selector = EVERYTHING

    def __str__(self) -> str:
        where = (
            f"namespace {self.namespace}"
            if self.namespace is not None
            else f"namespaces {{{self.namespaces}}}"
        )
        return f"{where} pods {{{self.pods}}}"


@dataclass(frozen=True, slots=True)
class BlockPeer:
    """Addresses of one family, as disjoint ranges (a block without its excepts). Matches pods and nodes too."""

    family: Family
    ranges: tuple[Range, ...]

    def __str__(self) -> str:
        return "block " + ",".join(prefix_text(self.family, p) for p in cover(self.family, self.ranges))


@dataclass(frozen=True, slots=True)
class NodePeer:
    """The addresses (Node status) of the nodes that `nodes` selects."""

    nodes: Selector

    def __str__(self) -> str:
        return f"nodes {{{self.nodes}}}"


Peer = PodPeer | BlockPeer | NodePeer


@dataclass(frozen=True, slots=True)
class PortMatch:
    """A destination port: by range, by `name`, or every port of the protocol (neither).

    A name belongs to the destination pod. `protocol` None goes with a name only: whatever protocol the pod's port
    of that name has (the cluster-wide policies name ports so).
    """

    protocol: Protocol | None
    ports: PortRange | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.name and self.ports is not None:
            raise ValueError("a port is matched by name or by range")
        if self.protocol is None and not self.name:
            raise ValueError("only a named port can leave its protocol open")


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """`peers` None is everyone (an empty tuple nobody); `ports` None is every port of every protocol."""

    verdict: Verdict
    peers: tuple[Peer, ...] | None
    ports: tuple[PortMatch, ...] | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy object. A direction's rules are None where the policy says nothing about that direction.

    `order` sorts policies within their tier, first wins; for NETWORK it has no meaning beyond determinism.
    `silenced`: directions whose rules mean nothing, because policyTypes leaves them out.
    """

    origin: Origin
    tier: Tier
    subject: PodPeer
    ingress: tuple[PolicyRule, ...] | None
    egress: tuple[PolicyRule, ...] | None
    order: tuple[int, str, str] = (0, "", "")
    silenced: tuple[Direction, ...] = ()
    port_names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        names = {
            p.name
            for rules in (self.ingress, self.egress)
            for r in rules or ()
            for p in r.ports or ()
            if p.name
        }
        object.__setattr__(self, "port_names", frozenset(names))

    def rules(self, direction: Direction) -> tuple[PolicyRule, ...] | None:
        """The rules of one direction, None where the policy says nothing about it."""
        return self.ingress if direction is Direction.INGRESS else self.egress
