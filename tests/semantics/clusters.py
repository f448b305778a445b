"""Generated clusters and policies, as manifests: small universes in which everything meets everything.

Knows how objects look (the same shapes `kubectl get -o json` gives). Must not know what they mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

Document = dict[str, Any]

# The names, addresses and ports are those of `policy_cluster`, so that policies made here fit there, too.
NAMESPACES = ("x", "y", "z")
NODES = ("w1", "w2")
PROTOCOLS = ("TCP", "UDP", "SCTP")
NODE_ADDRESSES = {"w1": ["172.18.0.1", "fd18::1"], "w2": ["172.18.0.2", "fd18::2"]}
OUTSIDE = ["203.0.113.9", "198.51.100.9", "2001:db8::9", "2001:db8:1::9"]
PORTS = (79, 80, 81, 65535)
BLOCKS = {
    4: [
        "0.0.0.0/0", "10.0.0.0/8", "10.244.1.0/24", "10.244.1.8/29", "10.244.1.20/31", "10.244.1.77/24",
        "10.244.2.13/32", "10.244.2.0/27", "172.18.0.0/24", "172.18.0.1/32", "203.0.113.0/24", "203.0.113.77/28",
        "198.51.100.0/25", "192.0.2.0/24",
    ],
    6: [
        "::/0", "fd00::/8", "fd44:1::/64", "fd44:1::12/127", "fd44:2::20/124", "fd44:2::9/64", "2001:db8::/32",
        "2001:db8::/48", "fd18::1/128",
    ],
}  # fmt: skip
KEYS = ("pod", "tier", "x.io/odd")
LABELS = {"pod": ("a", "b", "c", "d"), "tier": ("", "front"), "x.io/odd": ("", "b"), "team": ("blue", "red")}
PORT_NAMES = {"web": "TCP", "dns": "UDP", "sig": "SCTP"}  # with the protocol that they mostly have

labels = st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in LABELS.items()})
names = st.sampled_from(NAMESPACES)


@st.composite
def port_names(draw: st.DrawFn) -> tuple[str, str]:
    """A name and a protocol, mostly its usual one."""
    name = draw(st.sampled_from(sorted(PORT_NAMES)))
    usual = draw(st.sampled_from([True, True, True, False]))
    return name, PORT_NAMES[name] if usual else draw(st.sampled_from(PROTOCOLS))


@st.composite
def expressions(draw: st.DrawFn, keys: Sequence[str]) -> Document:
    """One entry of matchExpressions."""
    operator = draw(st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]))
    key = draw(st.sampled_from(keys))
    if operator in {"Exists", "DoesNotExist"}:
        return {"key": key, "operator": operator}
    chosen = draw(st.lists(st.sampled_from(_values(key)), min_size=1, max_size=2, unique=True))
    return {"key": key, "operator": operator, "values": chosen}


def _values(key: str) -> tuple[str, ...]:
    return NAMESPACES if key == "kubernetes.io/metadata.name" else LABELS[key]


@st.composite
def selectors(draw: st.DrawFn, *, of_namespaces: bool = False) -> Document:
    """A LabelSelector; often empty."""
    keys = ("team", "tier", "kubernetes.io/metadata.name") if of_namespaces else KEYS
    selector: Document = {}
    match draw(st.sampled_from([0, 0, 0, 1, 1, 3, 4])):
        case 0:
            pass
        case 1:
            key = draw(st.sampled_from(keys))
            selector["matchLabels"] = {key: draw(st.sampled_from(_values(key)))}
        case 3:
            selector["matchExpressions"] = [draw(expressions(keys))]
        case _:
            selector["matchLabels"] = {keys[0]: draw(st.sampled_from(_values(keys[0])))}
            selector["matchExpressions"] = draw(st.lists(expressions(keys), min_size=1, max_size=2))
    return selector


# --- the cluster ----------------------------------------------------------------------------------------------


@st.composite
def pods(draw: st.DrawFn, at: int) -> Document:
    """Pod number `at`, from 1; its addresses are its own, unless it has finished (then any pod's)."""
    node = draw(st.sampled_from(NODES))
    # A node's number is in its pods' addresses, as a podCIDR would have it.
    place = NODES.index(node) + 1
    phase = draw(
        st.sampled_from(["Running"] * 6 + ["Pending", "", "Unknown", "Succeeded", "Failed", "Failed"])
    )
    number = 9 + (draw(st.integers(1, 6)) if phase in {"Succeeded", "Failed"} else at)
    addresses = [f"10.244.{place}.{number}", f"fd44:{place}::{number}"]
    families = draw(st.sampled_from([(0, 1)] * 5 + [(1, 0), (0,), (1,), ()]))
    containers = []
    used: set[tuple[str, str]] = set()
    for index in range(draw(st.sampled_from([1, 2, 2, 0]))):
        ports: list[Document] = []
        for _ in range(draw(st.sampled_from([2, 3, 3, 1]))):
            name, protocol = draw(port_names())
            if (name, protocol) not in used and name not in {p["name"] for p in ports}:
                used.add((name, protocol))
                ports.append(
                    {"name": name, "protocol": protocol, "containerPort": draw(st.sampled_from(PORTS))}
                )
        containers.append({"name": f"c{index}", "image": "x", "ports": ports})
    host = draw(st.sampled_from([False] * 7 + [True]))
    if host:
        addresses, families = NODE_ADDRESSES[node], (0, 1)
    chosen = [addresses[i] for i in families]
    status: Document = {"phase": phase}
    if chosen:
        status |= {"podIP": chosen[0], "podIPs": [{"ip": a} for a in chosen]}
    metadata = {"name": f"pod-{at}", "namespace": draw(names), "labels": draw(labels)}
    spec = {"nodeName": node, "hostNetwork": host, "containers": containers or [{"name": "c", "image": "x"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


@st.composite
def surroundings(draw: st.DrawFn) -> list[Document]:
    """Nodes, namespaces (not all are declared) and pods."""
    out: list[Document] = []
    for name, addresses in NODE_ADDRESSES.items():
        listed = [{"type": "InternalIP", "address": a} for a in addresses]
        listed.append({"type": "Hostname", "address": name})
        metadata = {"name": name, "labels": draw(labels)}
        out.append(
            {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": {"addresses": listed}}
        )
    for name in draw(st.lists(names, unique=True)):
        mine = draw(labels)
        if draw(st.booleans()):
            mine["kubernetes.io/metadata.name"] = draw(names)  # the API server would not leave it so
        out.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": mine}})
    out.extend(draw(pods(at)) for at in range(1, draw(st.integers(4, 6)) + 1))
    return out


# --- networking.k8s.io/v1 -------------------------------------------------------------------------------------


@st.composite
def blocks(draw: st.DrawFn) -> Document:
    """An ipBlock; its excepts may nest, overlap, lie outside or leave nothing."""
    family = draw(st.sampled_from([4, 4, 6]))
    block: Document = {"cidr": draw(st.sampled_from(BLOCKS[family]))}
    if draw(st.booleans()):
        block["except"] = draw(st.lists(st.sampled_from(BLOCKS[family]), min_size=1, max_size=3))
    return {"ipBlock": block}


@st.composite
def network_peers(draw: st.DrawFn) -> Document:
    """A peer of every shape; a null selector is an absent one."""
    match draw(st.integers(0, 4)):
        case 0:
            return {"podSelector": draw(selectors())}
        case 1:
            return {"namespaceSelector": draw(selectors(of_namespaces=True))}
        case 2:
            both = {
                "podSelector": draw(selectors()),
                "namespaceSelector": draw(selectors(of_namespaces=True)),
            }
            return both if draw(st.booleans()) else {**both, "podSelector": None}
        case _:
            return draw(blocks())


@st.composite
def network_ports(draw: st.DrawFn) -> Document:
    """A port by number, range or name, or only a protocol, or nothing (which is TCP)."""
    port: Document = {}
    if draw(st.integers(0, 3)):
        port["protocol"] = draw(st.sampled_from(PROTOCOLS))
    match draw(st.integers(0, 4)):
        case 0:
            pass
        case 1 | 2:
            port["port"], port["protocol"] = draw(port_names())
        case 3:
            port["port"] = draw(st.sampled_from(PORTS))
        case _:
            first, last = sorted((draw(st.sampled_from(PORTS)), draw(st.sampled_from(PORTS))))
            port |= {"port": first, "endPort": last}
    return port


@st.composite
def network_rules(draw: st.DrawFn, side: str) -> Document:
    """A rule; `from`, `to` and `ports` may be absent, null or empty, which all mean everything."""
    rule: Document = {}
    for key, items in ((side, network_peers()), ("ports", network_ports())):
        match draw(st.integers(0, 5)):
            case 0:
                pass
            case 1:
                rule[key] = draw(st.sampled_from([None, []]))
            case _:
                rule[key] = draw(st.lists(items, min_size=1, max_size=2))
    return rule


@st.composite
def network_policies(draw: st.DrawFn, at: int) -> Document:
    """A NetworkPolicy. Names differ in their last character only."""
    spec: Document = {"podSelector": draw(selectors())}
    types = draw(st.sampled_from([None, None, [], ["Ingress"], ["Egress"], ["Egress", "Ingress"]]))
    if types is not None:
        spec["policyTypes"] = types
    for side, peers in (("ingress", "from"), ("egress", "to")):
        match draw(st.integers(0, 4)):
            case 0:
                pass
            case 1:
                spec[side] = draw(st.sampled_from([None, []]))
            case _:
                spec[side] = draw(st.lists(network_rules(peers), min_size=1, max_size=2))
    metadata = {"name": f"{'long-and.dotted-' * 4}{at}", "namespace": draw(names)}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


# --- policy.networking.k8s.io ---------------------------------------------------------------------------------


@st.composite
def selections(draw: st.DrawFn) -> Document:
    """A subject, or a peer of pods."""
    if draw(st.booleans()):
        return {"namespaces": draw(selectors(of_namespaces=True))}
    return {
        "pods": {"namespaceSelector": draw(selectors(of_namespaces=True)), "podSelector": draw(selectors())}
    }


@st.composite
def tier_peers(draw: st.DrawFn, side: str) -> list[Document]:
    """The peers of a rule; networks and nodes only on egress."""
    out: list[Document] = []
    for _ in range(draw(st.integers(1, 2))):
        match draw(st.integers(0, 5)) if side == "to" else 5:
            case 0:
                out.append({"nodes": draw(selectors())})
            case 1:
                family = draw(st.sampled_from([4, 6]))
                chosen = draw(st.lists(st.sampled_from(BLOCKS[family]), min_size=1, max_size=2, unique=True))
                out.append({"networks": chosen})
            case _:
                out.append(draw(selections()))
    return out


@st.composite
def spans(draw: st.DrawFn) -> tuple[int, int]:
    """Two different ports in order."""
    first, last = sorted(draw(st.lists(st.sampled_from(PORTS), min_size=2, max_size=2, unique=True)))
    return first, last


@st.composite
def new_ports(draw: st.DrawFn, *, named: bool) -> Document:
    """One of `protocols` (v1alpha2)."""
    if named and draw(st.booleans()):
        return {"destinationNamedPort": draw(st.sampled_from(sorted(PORT_NAMES)))}
    if draw(st.booleans()):
        port: Document = {"number": draw(st.sampled_from(PORTS))}
    else:
        first, last = draw(spans())
        port = {"range": {"start": first, "end": last}}
    return {draw(st.sampled_from(PROTOCOLS)).lower(): {"destinationPort": port}}


@st.composite
def old_ports(draw: st.DrawFn, *, named: bool) -> Document:
    """One of `ports` (v1alpha1)."""
    if named and draw(st.booleans()):
        return {"namedPort": draw(st.sampled_from(sorted(PORT_NAMES)))}
    protocol = draw(st.sampled_from(PROTOCOLS))
    if draw(st.booleans()):
        return {"portNumber": {"protocol": protocol, "port": draw(st.sampled_from(PORTS))}}
    first, last = draw(spans())
    return {"portRange": {"protocol": protocol, "start": first, "end": last}}


@st.composite
def tier_rules(draw: st.DrawFn, kind: str, side: str) -> Document:
    """A rule of a cluster-wide policy."""
    new = kind == "ClusterNetworkPolicy"
    actions = ["Accept" if new else "Allow", "Deny", "Deny"]
    if kind != "BaselineAdminNetworkPolicy":
        actions.append("Pass")
    peers = draw(tier_peers(side))
    rule: Document = {"action": draw(st.sampled_from(actions)), side: peers}
    if draw(st.booleans()):
        named = not any("nodes" in p or "networks" in p for p in peers)
        items = new_ports(named=named) if new else old_ports(named=named)
        rule["protocols" if new else "ports"] = draw(st.lists(items, min_size=1, max_size=2))
    return rule


@st.composite
def tier_policies(draw: st.DrawFn, kind: str, at: int) -> Document:
    """A cluster-wide policy. Priorities collide now and then: the name decides then."""
    spec: Document = {"subject": draw(selections())}
    if kind != "BaselineAdminNetworkPolicy":
        spec["priority"] = draw(st.sampled_from([0, 1, 1000]))
    if kind == "ClusterNetworkPolicy":
        spec["tier"] = draw(st.sampled_from(["Admin", "Baseline"]))
    for side, peers in (("ingress", "from"), ("egress", "to")):
        spec[side] = draw(st.lists(tier_rules(kind, peers), min_size=at % 2, max_size=3))
    version = "v1alpha2" if kind == "ClusterNetworkPolicy" else "v1alpha1"
    name = "default" if kind == "BaselineAdminNetworkPolicy" else f"p{at}"
    return {
        "apiVersion": f"policy.networking.k8s.io/{version}",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


@st.composite
def clusters(draw: st.DrawFn) -> list[Document]:
    """A whole cluster with its policies."""
    return draw(surroundings()) + draw(policies())


@st.composite
def policies(draw: st.DrawFn) -> list[Document]:
    """A few policies of all kinds."""
    documents: list[Document] = []
    documents.extend(draw(network_policies(at)) for at in range(draw(st.sampled_from([5, 3, 4, 7, 2]))))
    documents.extend(
        draw(tier_policies("ClusterNetworkPolicy", at))
        for at in range(draw(st.sampled_from([0, 0, 1, 2, 3])))
    )
    documents.extend(
        draw(tier_policies("AdminNetworkPolicy", at)) for at in range(draw(st.sampled_from([1, 0, 2])))
    )
    if draw(st.integers(0, 2)) == 0:
        documents.append(draw(tier_policies("BaselineAdminNetworkPolicy", 0)))
    return documents


def addresses_of(documents: Sequence[Document]) -> list[str]:
    """Every address that means something in the cluster, and some that don't."""
    found = [a for addresses in NODE_ADDRESSES.values() for a in addresses] + OUTSIDE
    for one in documents:
        if one["kind"] == "Pod":
            found.extend(p["ip"] for p in one["status"].get("podIPs") or ())
    return list(dict.fromkeys(found))
