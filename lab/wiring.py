"""From a topology to what `ip` and the sysctls must be told. Pure: text out, nothing done.

Every node and client hangs on one bridge (the underlay, in a namespace of its own) by its `eth0`. Every pod
hangs on its node by a veth pair without a bridge: `eth0` in the pod, `pod0`, `pod1`... on the node, which routes
to it. Nodes route each other's pod networks. Whatever nobody has a route for reaches the underlay's
gateway, which drops it silently: a packet that no rule caught is a time-out, never an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from k8snetc.ir.types import Address, Family
from k8snetc.lab.topology import Client, Node, Pod, Topology

UNDERLAY = "underlay"
POD_GATEWAY = {Family.IPV4: "169.254.1.1", Family.IPV6: "fe80::1"}
UNDERLAY_GATEWAY = {Family.IPV4: "169.254.0.1", Family.IPV6: "fe80::fffe"}

# No waiting for duplicate address detection, no router to ask, no limit on ICMP errors (a thousand refused probes
# are no attack), and answers for whoever asks from wherever.
_EVERYWHERE = (
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
)
_ROUTER = (
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
)
# Not in every kernel a sysctl of the network namespace. The last one: connection tracking forgets an INIT after 3
# seconds, and a busy machine may answer later.
OPTIONAL_SYSCTLS = (
    ("net/ipv4/icmp_msgs_per_sec", "1000000"),
    ("net/ipv4/icmp_msgs_burst", "1000000"),
    ("net/netfilter/nf_conntrack_sctp_timeout_cookie_wait", "60"),
)


@dataclass(frozen=True, slots=True)
class Wiring:
    """`links`: lines for one `ip -batch` that makes all links. `inside`: per space, lines for `ip -n SPACE -batch`."""

    links: tuple[str, ...]
    inside: Mapping[str, tuple[str, ...]]
    sysctls: Mapping[str, tuple[tuple[str, str], ...]]


def spaces(topology: Topology) -> tuple[str, ...]:
    """The places that have a network namespace, and the underlay."""
    return (UNDERLAY, *(p.place for p in topology.all if topology.home(p.place) == p.place))


def pods_on(topology: Topology, node: str) -> list[Pod]:
    """The pods with a namespace of their own on a node."""
    return [p for p in topology.pods if p.node == node and not p.host_network]


def interface(topology: Topology, pod: Pod) -> str:
    """The node's end of a pod's link."""
    return f"pod{pods_on(topology, pod.node).index(pod)}"


def wire(topology: Topology, names: Mapping[str, str]) -> Wiring:
    """Everything to be done for a topology; `names` gives each space's network namespace."""
    links = [f"link add br0 netns {names[UNDERLAY]} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"]
    inside: dict[str, tuple[str, ...]] = {}
    sysctls: dict[str, tuple[tuple[str, str], ...]] = {UNDERLAY: _EVERYWHERE}
    ports = ["link set br0 up", *_gateway("br0", UNDERLAY_GATEWAY)]
    ports += ["route add blackhole 0.0.0.0/0", "route add blackhole ::/0"]
    machines: tuple[Node | Client, ...] = (*topology.nodes, *topology.clients)
    for number, machine in enumerate(machines):
        links.append(_veth(f"port{number}", names[UNDERLAY], names[machine.place]))
        ports.append(f"link set port{number} master br0 addrgenmode none up")
    inside[UNDERLAY] = tuple(ports)
    for node in topology.nodes:
        inside[node.place] = tuple(_node(topology, node))
        sysctls[node.place] = _EVERYWHERE + _ROUTER + node.sysctls
        for number, pod in enumerate(pods_on(topology, node.name)):
            links.append(_veth(f"pod{number}", names[node.place], names[pod.place]))
            inside[pod.place] = tuple(_pod(pod))
            sysctls[pod.place] = _EVERYWHERE
    for client in topology.clients:
        inside[client.place] = tuple(_client(topology, client))
        sysctls[client.place] = _EVERYWHERE
    return Wiring(tuple(links), inside, sysctls)


def _veth(name: str, here: str, there: str) -> str:
    return f"link add {name} netns {here} type veth peer name eth0 netns {there}"


def _gateway(device: str, addresses: Mapping[Family, str]) -> list[str]:
    # Scope link: never chosen as the source of what leaves the node, so masquerading takes the node's address.
    return [
        f"address add {addresses[Family.IPV4]}/32 dev {device} scope link",
        f"address add {addresses[Family.IPV6]}/64 dev {device} nodad",
    ]


def _own(addresses: Iterable[Address]) -> list[str]:
    lines = ["link set lo up"]
    for address in addresses:
        nodad = " nodad" if address.version == 6 else ""
        lines.append(f"address add {address}/{address.max_prefixlen} dev eth0{nodad}")
    lines.append("link set eth0 up")
    return lines


def _first(addresses: Iterable[Address], family: Family) -> Address | None:
    return next((a for a in addresses if a.version == family), None)


def _default(family: Family, via: str, source: Address) -> str:
    everything = "0.0.0.0/0" if family is Family.IPV4 else "::/0"
    return f"route add {everything} via {via} dev eth0 onlink src {source}"


def _pod(pod: Pod) -> list[str]:
    lines = _own(pod.addresses)
    for address in pod.addresses:
        family = Family(address.version)
        lines.append(_default(family, POD_GATEWAY[family], address))
    return lines


def _node(topology: Topology, node: Node) -> list[str]:
    lines = _own(node.addresses)
    for family in Family:
        own = _first(node.addresses, family)
        if own is not None:
            lines += _neighbours(topology, node, family, own)
            lines.append(_default(family, UNDERLAY_GATEWAY[family], own))
    for number, pod in enumerate(pods_on(topology, node.name)):
        device = f"pod{number}"
        lines += [
            f"link set {device} addrgenmode none",
            *_gateway(device, POD_GATEWAY),
            f"link set {device} up",
        ]
        for address in pod.addresses:
            source = _first(node.addresses, Family(address.version))
            hint = f" src {source}" if source else ""
            lines.append(f"route add {address} dev {device}{hint}")
    return lines


def _client(topology: Topology, client: Client) -> list[str]:
    lines = _own(client.addresses)
    for family in Family:
        own = _first(client.addresses, family)
        if own is None:
            continue
        lines += _neighbours(topology, client, family, own)
        gateway = topology.gateway(client)
        via = _first(gateway.addresses, family) if gateway else None
        if via is not None:
            lines.append(_default(family, str(via), own))
    return lines


def _neighbours(topology: Topology, me: Node | Client, family: Family, own: Address) -> list[str]:
    """Routes to the other machines on the underlay, and to the nodes' pods."""
    lines = []
    machines: tuple[Node | Client, ...] = (*topology.nodes, *topology.clients)
    for other in machines:
        if other is me:
            continue
        lines += [f"route add {a} dev eth0 src {own}" for a in other.addresses if a.version == family]
    for node in topology.nodes:
        via = _first(node.addresses, family)
        if node is me or via is None:
            continue
        networks = [n for n in node.pod_networks if n.version == family]
        strays = [
            a
            for p in pods_on(topology, node.name)
            for a in p.addresses
            if a.version == family and not any(a in n for n in networks)
        ]
        lines += [f"route add {n} via {via} dev eth0 onlink src {own}" for n in (*networks, *strays)]
    return lines
