"""Cluster facts: what `resolve` found out and `lower` turns into a program.

Knows: services, endpoints and policies with every selector, name and port name already resolved to
addresses and numbers. Must not know: manifests, pydantic, or any back end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from k8snetc.ir.types import (
    Address,
    Detector,
    Direction,
    Family,
    Network,
    Origin,
    PortRange,
    Prefix,
    Protocol,
    Verdict,
)

DEFAULT_NODEPORT_RANGE = PortRange(30000, 32767)


@dataclass(frozen=True, slots=True)
class NodeContext:
    """What the program's node is, from its Node object, flags and the configuration file.

    `name` None: the node hosts every pod. `zone` is the label `topology.kubernetes.io/zone`, "" if none.
    """

    name: str | None = None
    families: tuple[Family, ...] = (Family.IPV4, Family.IPV6)
    addresses: tuple[Address, ...] = ()
    pod_networks: tuple[Network, ...] = ()
    zone: str = ""
    detector: Detector = None
    service_networks: tuple[Network, ...] = ()
    nodeport_networks: tuple[Network, ...] = ()
    nodeport_range: PortRange = DEFAULT_NODEPORT_RANGE
    masquerade_all: bool = False
    localhost_nodeports: bool = False
    drop_invalid: bool = True


class EndpointFact(NamedTuple):
    """One endpoint address with its numeric port. Conditions have the API's defaults applied.

    `node` is "" when unknown. `zone_hints` and `node_hints` are the topology hints (KEP-2433, KEP-4444). A named tuple,
    made in a quarter of a dataclass's time: there are 100,000 of them in a large cluster.
    """

    address: Address
    port: int
    node: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zone_hints: frozenset[str] = frozenset()
    node_hints: frozenset[str] = frozenset()
    weight: int = 1
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class ServicePortFact:
    """One port of one service in one family, with all its addresses and all its endpoints.

    `endpoints` are sorted by address and port, each place once. `external_local` / `internal_local`: the traffic
    policies. `affinity` in seconds, None for none.
    `source_ranges` are those of this family, None where none is given.
    """

    namespace: str
    service: str
    port_name: str
    family: Family
    protocol: Protocol
    port: int
    node_port: int | None
    cluster_ips: tuple[Address, ...]
    external_ips: tuple[Address, ...]
    balancer_ips: tuple[Address, ...]
    endpoints: tuple[EndpointFact, ...]
    origin: Origin
    external_local: bool = False
    internal_local: bool = False
    affinity: int | None = None
    source_ranges: tuple[Network, ...] | None = None
    health_check_node_port: int | None = None
    scheduler: str = ""
    forwarding: str = ""


@dataclass(frozen=True, slots=True)
class RuleFact:
    """One policy rule in one family: `peers` None is everyone; prefixes are sorted and disjoint.

    `peers_key` is the identity of the peers, as far as the manifests give one: what they select, not whom. It stays
    when pods come and go, so that the set keeps its name and only its elements change.
    """

    verdict: Verdict
    peers: tuple[Prefix, ...] | None
    protocol: Protocol | None
    ports: tuple[PortRange, ...]
    origin: Origin | None = field(default=None, compare=False, repr=False)
    peers_key: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class PodPolicyFact:
    """What policy says of one pod of this node, in one family and direction (see `ir.types.Enforcement`)."""

    pods: tuple[Address, ...]
    family: Family
    direction: Direction
    isolated: bool
    rules: tuple[RuleFact, ...]
    admin: tuple[RuleFact, ...] = ()
    baseline: tuple[RuleFact, ...] = ()
    origins: tuple[Origin, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that lowering needs. `foreign_ips`: ClusterIPs that another proxy looks after."""

    node: NodeContext
    service_ports: tuple[ServicePortFact, ...] = ()
    policies: tuple[PodPolicyFact, ...] = ()
    foreign_ips: tuple[Address, ...] = ()
    assumed: bool = False
