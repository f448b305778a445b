"""The intermediate representation: what one node's dataplane shall do, in no back end's words.

Knows: addresses, frontends, balancers, address sets, enforcements, and where each came from.
Must not know: manifests, selectors, names of ports, iptables, nftables, IPVS or eBPF.

Every value is frozen and checks itself on construction; collections are tuples, sorted by the producer,
so that equal programs are equal values and print the same. Everything that has an address is of exactly
one family, so a program splits cleanly into its IPv4 and its IPv6 half. The meaning of a program is
`k8snetc.ir.interpret`; what must hold between its parts is checked by `k8snetc.ir.verify`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Family(IntEnum):
    """An IP family; the value is the version number of the IP header (RFC 791, RFC 8200)."""

    IPV4 = 4
    IPV6 = 6

    @property
    def bits(self) -> int:
        """Length of an address in bits."""
        return 32 if self is Family.IPV4 else 128


ADDRESS_TYPE: dict[Family, type[Address]] = {Family.IPV4: IPv4Address, Family.IPV6: IPv6Address}
"""The type of a family's addresses."""


class Protocol(StrEnum):
    """A transport protocol that a Service or NetworkPolicy can name (core/v1 Protocol)."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"

    @property
    def number(self) -> int:
        """The IANA protocol number."""
        return {"tcp": 6, "udp": 17, "sctp": 132}[self.value]


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """The manifest object that caused something: `file:line kind namespace/name`.

    `line` is 1-based. `namespace` is "" for cluster-scoped objects. `path` names the part of the object,
    as a field path (`spec.ingress[0]`), "" for the whole.
    """

    file: str
    line: int
    kind: str
    namespace: str
    name: str
    path: str = ""

    def __str__(self) -> str:
        owner = f"{self.namespace}/{self.name}" if self.namespace else self.name
        part = f" {self.path}" if self.path else ""
        return f"{self.kind} {owner}{part} ({self.file}:{self.line})"


class Prefix(NamedTuple):
    """A CIDR block as two integers (the family is its set's): cheap enough for a set of 50,000 pods.

    `value` is the address as an integer with all host bits zero, `length` the prefix length in bits.
    """

    value: int
    length: int


class PortRange(NamedTuple):
    """Ports `first` to `last`, both included, 0 to 65535."""

    first: int
    last: int


# --- the node ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceIn:
    """Traffic is a cluster pod's when its source address is in one of these networks.

    kube-proxy's `--detect-local-mode=ClusterCIDR` (the cluster's networks) and `NodeCIDR` (the node's).
    """

    networks: tuple[Network, ...]

    def __post_init__(self) -> None:
        if not self.networks:
            raise ValueError("SourceIn needs at least one network; use None where none is known")


@dataclass(frozen=True, slots=True)
class FromInterface:
    """Traffic is a cluster pod's when it arrives on such an interface.

    kube-proxy's `--detect-local-mode=BridgeInterface` (`prefix=False`: the exact name) and
    `InterfaceNamePrefix` (`prefix=True`).
    """

    name: str
    prefix: bool

    def __post_init__(self) -> None:
        if not 0 < len(self.name) < 16 or any(c.isspace() or c == "/" for c in self.name):
            raise ValueError(f"{self.name!r} is no interface name (1 to 15 characters, no space, no slash)")


Detector = SourceIn | FromInterface | None


@dataclass(frozen=True, slots=True)
class Node:
    """The node that the program is for.

    `name` is None for the program of a node that hosts every pod. `addresses` are the node's own, as far
    as known; back ends that can ask the kernel serve NodePorts on every local address. `nodeport_networks`
    restricts NodePorts to the node's addresses in them; empty means all (kube-proxy
    `--nodeport-addresses`). `localhost_nodeports` also serves 127.0.0.0/8 (kube-proxy
    `--iptables-localhost-nodeports`). `drop_invalid`: packets that conntrack calls INVALID are dropped
    when forwarded, because they would leave untranslated; False where the kernel is liberal
    (`net.netfilter.nf_conntrack_tcp_be_liberal`).
    """

    name: str | None = None
    families: tuple[Family, ...] = (Family.IPV4, Family.IPV6)
    addresses: tuple[Address, ...] = ()
    pod_networks: tuple[Network, ...] = ()
    detector: Detector = None
    nodeport_networks: tuple[Network, ...] = ()
    localhost_nodeports: bool = False
    drop_invalid: bool = True

    def __post_init__(self) -> None:
        if not self.families:
            raise ValueError("a node has at least one address family")

    def detects(self, family: Family) -> bool:
        """Whether pods of the cluster can be told from other clients in this family."""
        match self.detector:
            case None:
                return False
            case FromInterface():
                return True
            case SourceIn(networks):
                return any(n.version == family for n in networks)


# --- services ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place a connection can be sent to. `local`: it runs on this node. `weight` is relative, >= 1.

    `origin` is the slice that lists it; it does not take part in comparison.
    """

    address: Address
    port: int
    local: bool = False
    weight: int = 1
    origin: Origin | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ValueError(f"endpoint port {self.port} is not in 1 to 65535")
        if self.weight < 1:
            raise ValueError(f"endpoint weight {self.weight} is less than 1")


@dataclass(frozen=True, slots=True)
class Affinity:
    """Connections of one source address stay with one endpoint (sessionAffinity ClientIP).

    `timeout` in seconds since the last new connection. `key` says which balancers share their memory: one
    key per service port and family, so that ClusterIP and NodePort of a service port agree.
    """

    key: str
    timeout: int

    def __post_init__(self) -> None:
        if not 0 < self.timeout <= 86400:
            raise ValueError(f"affinity timeout {self.timeout} is not in 1 to 86400 seconds")


@dataclass(frozen=True, slots=True)
class Balancer:
    """Endpoints that share connections in proportion to their weight. At least one endpoint, no duplicates.

    `name` is derived from the identity of the service port that first needed it. `scheduler` and
    `forwarding` carry what the service asks for by annotation and only some back ends can do ("": default).
    """

    name: str
    family: Family
    protocol: Protocol
    endpoints: tuple[Endpoint, ...]
    affinity: Affinity | None = None
    scheduler: str = ""
    forwarding: str = ""
    origin: Origin | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ValueError(f"balancer {self.name} has no endpoints; the frontend should reject or drop")
        if {type(e.address) for e in self.endpoints} != {ADDRESS_TYPE[self.family]}:
            raise ValueError(f"balancer {self.name} is of IPv{self.family} but an endpoint is not")
        if len({(int(e.address), e.port) for e in self.endpoints}) != len(self.endpoints):
            raise ValueError(f"balancer {self.name} lists an endpoint twice")


class Who(Enum):
    """Who sends, as far as a frontend cares. Tested in the order of a frontend's routes."""

    CLUSTER = "cluster"  # a pod of the cluster, as Node.detector tells; never true without a detector
    NODE = "node"  # a process of this node (also a host-network pod)
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Balance:
    """Send to an endpoint of the balancer of that name; `masquerade`: with the node's address as source.

    Whatever `masquerade` says, an endpoint that reaches itself is masqueraded (hairpin), or it would
    answer itself directly.
    """

    balancer: str
    masquerade: bool = False


class Refusal(Enum):
    """What happens to a packet that is not delivered."""

    REJECT = "reject"  # answered at once with an ICMP port unreachable, which is ECONNREFUSED for the client
    DROP = "drop"  # no answer


Action = Balance | Refusal


@dataclass(frozen=True, slots=True)
class Route:
    """For clients that are `who`, do `action`."""

    who: Who
    action: Action


class Exposure(Enum):
    """Which kind of service address a frontend is."""

    CLUSTER_IP = "cluster-ip"
    EXTERNAL_IP = "external-ip"
    LOAD_BALANCER = "load-balancer"
    NODE_PORT = "node-port"


@dataclass(frozen=True, slots=True)
class Frontend:
    """An address (None: the node's own, for NodePorts), protocol and port that clients connect to.

    The first route whose `who` fits decides; the last one is for `Who.ANY`. `sources` names the address
    set of the clients that may use it at all (loadBalancerSourceRanges); everybody else is dropped.
    """

    exposure: Exposure
    family: Family
    address: Address | None
    protocol: Protocol
    port: int
    routes: tuple[Route, ...]
    sources: str | None = None
    service: str = ""  # namespace/name:port-name, for people
    origin: Origin | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ValueError(f"frontend port {self.port} is not in 1 to 65535")
        if (self.address is None) != (self.exposure is Exposure.NODE_PORT):
            raise ValueError("exactly the NodePort frontends have no address of their own")
        if self.address is not None and self.address.version != self.family:
            raise ValueError(f"frontend {self.address} is not of IPv{self.family}")
        whos = [r.who for r in self.routes]
        if not whos or whos[-1] is not Who.ANY or len(set(whos)) != len(whos):
            raise ValueError("a frontend's routes are for distinct clients and end with the one for any")


@dataclass(frozen=True, slots=True)
class AddressSet:
    """A named set of addresses of one family, as sorted, disjoint prefixes."""

    name: str
    family: Family
    prefixes: tuple[Prefix, ...]
    origin: Origin | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Admission:
    """A port of the node's own that must be let in (healthCheckNodePort)."""

    protocol: Protocol
    port: int
    origin: Origin | None = field(default=None, compare=False, repr=False)


# --- policy -----------------------------------------------------------------------------------------------


class Direction(Enum):
    """As seen from the pod that the enforcement protects."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Verdict(Enum):
    """What a rule decides. PASS (tiers only) hands the packet on to the next tier."""

    ALLOW = "allow"
    DENY = "deny"
    PASS = "pass"  # noqa: S105 - the API's word, not a password


@dataclass(frozen=True, slots=True)
class Rule:
    """Packets from (ingress) or to (egress) `peers`, to those destination ports: `verdict`.

    `peers` names an address set of the enforcement's family; None is everyone. `protocol` None is every IP
    protocol, then `ports` is empty; `ports` empty is every port of the protocol. Ports are destination
    ports after service translation, as sorted, disjoint, non-adjacent ranges.
    """

    verdict: Verdict
    peers: str | None = None
    protocol: Protocol | None = None
    ports: tuple[PortRange, ...] = ()
    origin: Origin | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.ports and self.protocol is None:
            raise ValueError("a rule with ports names its protocol")
        last = -2
        for r in self.ports:
            if not 0 <= r.first <= r.last <= 65535:
                raise ValueError(f"{r.first}-{r.last} is no port range")
            if r.first <= last + 1:
                raise ValueError("port ranges must be sorted, disjoint and not adjacent")
            last = r.last


@dataclass(frozen=True, slots=True)
class Enforcement:
    """What may reach (ingress) or leave (egress) these pods of this node: one family, one direction.

    Decided in order: `admin` rules, first match wins (PASS ends the tier); then, if `isolated`, one
    matching `rules` entry (all ALLOW, order without meaning) allows and else the packet is denied; then
    `baseline` rules, first match wins; then allowed. (ClusterNetworkPolicy tiers; networking.k8s.io/v1.)
    A node's own traffic to its pods, a pod's traffic to itself and to its own node are never judged.
    """

    name: str
    family: Family
    direction: Direction
    pods: tuple[Address, ...]
    isolated: bool = True
    rules: tuple[Rule, ...] = ()
    admin: tuple[Rule, ...] = ()
    baseline: tuple[Rule, ...] = ()
    origins: tuple[Origin, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.pods:
            raise ValueError(f"enforcement {self.name} protects no pod")
        if any(p.version != self.family for p in self.pods):
            raise ValueError(f"enforcement {self.name} is of IPv{self.family} but a pod is not")
        if any(r.verdict is not Verdict.ALLOW for r in self.rules):
            raise ValueError(f"enforcement {self.name}: NetworkPolicy rules only allow")
        if self.rules and not self.isolated:
            raise ValueError(f"enforcement {self.name} has allow rules but does not isolate")


@dataclass(frozen=True, slots=True)
class Program:
    """Everything one node does.

    `rejects` names sets of service addresses (ClusterIPs) where whatever no frontend defines (another
    port, another protocol, a ping) is rejected; `drops` names sets (unallocated service addresses) where
    it is dropped. `assumed` is True when addresses were made up (`--assume-addresses`): such a
    program must not be installed.
    """

    node: Node = Node()
    balancers: tuple[Balancer, ...] = ()
    frontends: tuple[Frontend, ...] = ()
    sets: tuple[AddressSet, ...] = ()
    rejects: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    admissions: tuple[Admission, ...] = ()
    enforcements: tuple[Enforcement, ...] = ()
    assumed: bool = False
