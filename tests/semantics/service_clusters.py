"""Generated services in the world of `world.py`: every feature of a Service in any company of the others.

Knows: valid manifests and options. Must not know: what they mean. Services share addresses (never a port of one), have
one family or both, endpoints in any condition, on the host network, in several slices, or in legacy Endpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.semantics.world import (
    CLUSTER_CIDRS,
    NODES,
    Manifest,
    address,
    endpoint,
    hints,
    port,
    service,
    slice_port,
)

SERVERS = ("web-1", "web-2", "web-3", "api-1", "n1", "n2")
EXTERNAL = (("198.51.100.7", "2001:db8:51::7"), ("198.51.100.8", "2001:db8:51::8"))
BALANCER = (("203.0.113.7", "2001:db8:113::7"), ("203.0.113.8", "2001:db8:113::8"))
OWN = NODES["n1"][:2]
RANGES = (
    "192.0.2.100/32",
    "10.244.1.0/24",
    "192.0.2.0/24",
    "2001:db8::100/128",
    "fd00:244:2::/64",
    "2001:db8::/64",
)
FAMILIES = (("IPv4",), ("IPv6",), ("IPv4", "IPv6"), ("IPv4", "IPv6"), ("IPv6", "IPv4"))
PROTOCOLS = ("TCP", "TCP", "UDP", "SCTP")
CONDITIONS: tuple[dict[str, bool], ...] = (
    {},
    {"ready": True, "serving": True, "terminating": False},
    {"ready": True, "serving": True, "terminating": False},
    {"ready": False, "serving": False, "terminating": False},
    {"ready": False, "serving": True, "terminating": True},
    {"ready": False, "serving": False, "terminating": True},
    {"ready": False},
    {"ready": False, "terminating": True},
)
DETECTION: tuple[dict[str, object], ...] = (
    {},
    {"cluster-cidr": ",".join(CLUSTER_CIDRS)},
    {"cluster-cidr": "none"},
    {
        "cluster-cidr": CLUSTER_CIDRS[0]
    },  # pods of one family can be told from others, those of the other can't
    {"detect-local-mode": "NodeCIDR"},
)
NODE_PORT_ADDRESSES: tuple[dict[str, object], ...] = (
    {},
    {},
    {"nodeport-addresses": ["192.0.2.11/32"]},
    {"nodeport-addresses": ["192.0.2.0/24", "2001:db8::12/128"]},
    {"nodeport-addresses": "primary"},
)


@dataclass(frozen=True, slots=True)
class Generated:
    """Services with their endpoints, and the options of both nodes as in a configuration file."""

    documents: list[Manifest]
    options: dict[str, object]


def _some(draw: st.DrawFn, *of: str | tuple[str, str], most: int = 2) -> list[str]:
    """A few addresses of these pairs, of either family, each once."""
    flat = [a for pair in of for a in ((pair,) if isinstance(pair, str) else pair)]
    return draw(st.lists(st.sampled_from(flat), max_size=most, unique=True))


def _spec(draw: st.DrawFn, number: int, families: tuple[str, ...]) -> Manifest:
    ips = [f"10.96.0.{number}" if f == "IPv4" else f"fd00:96::{number}" for f in families]
    kind = draw(st.sampled_from(("ClusterIP", "NodePort", "NodePort", "LoadBalancer", "LoadBalancer")))
    externals = _some(draw, *EXTERNAL, *BALANCER, OWN)
    spec: Manifest = {
        "type": kind,
        "clusterIP": ips[0],
        "clusterIPs": ips,
        "ipFamilies": list(families),
        "ipFamilyPolicy": "SingleStack" if len(families) == 1 else "RequireDualStack",
        "externalIPs": externals,
        "internalTrafficPolicy": draw(st.sampled_from(("Cluster", "Cluster", "Local"))),
    }
    if kind != "ClusterIP" or externals:
        spec["externalTrafficPolicy"] = draw(st.sampled_from(("Cluster", "Local")))
    if draw(st.integers(0, 2)) == 0:
        spec["sessionAffinity"] = "ClientIP"
    if kind == "LoadBalancer":
        spec["ingress"] = [
            {"ip": ip, **draw(st.sampled_from(({}, {"ipMode": "VIP"}, {"ipMode": "Proxy"})))}
            for ip in _some(draw, *BALANCER, EXTERNAL[0], OWN)
        ]
        spec["loadBalancerSourceRanges"] = _some(draw, *RANGES, most=3)
    return spec


def _ends(draw: st.DrawFn) -> list[tuple[str, Manifest]]:
    """Endpoints with their conditions and hints."""
    size = draw(st.sampled_from((2, 3, 3, 1, 4, 0)))
    names = draw(st.lists(st.sampled_from(SERVERS), min_size=size, max_size=size, unique=True))
    hinted = draw(st.sampled_from(("no", "no", "zones", "nodes", "some")))
    ends = []
    for name in names:
        more: Manifest = {"conditions": draw(st.sampled_from(CONDITIONS))}
        if hinted != "no" and not (hinted == "some" and draw(st.booleans())):
            zones = draw(
                st.lists(st.sampled_from("abc"), min_size=hinted != "nodes", max_size=2, unique=True)
            )
            nodes = draw(st.lists(st.sampled_from(sorted(NODES)), min_size=1, max_size=2, unique=True))
            more["hints"] = hints(*zones, nodes=nodes if hinted == "nodes" else ())
        ends.append((name, more))
    return ends


def _slices(owner: str, groups: list[tuple[list[tuple[str, Manifest]], list[Manifest]]]) -> list[Manifest]:
    """A slice of each family for each group of endpoints, with the group's ports."""
    return [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{owner}-{at}-{family}",
                "namespace": "shop",
                "labels": {"kubernetes.io/service-name": owner},
            },
            "addressType": f"IPv{family}",
            "endpoints": [endpoint(name, family, **more) for name, more in ends],
            "ports": ports,
        }
        for at, (ends, ports) in enumerate(groups)
        for family in (4, 6)
    ]


def _legacy(owner: str, ends: list[tuple[str, Manifest]], ports: list[Manifest]) -> Manifest:
    def places(good: bool) -> list[Manifest]:
        return [
            {"ip": str(address(name, family)), "nodeName": endpoint(name)["nodeName"]}
            for name, more in ends
            for family in (4, 6)
            if more["conditions"].get("ready", True) is good
        ]

    subset = {"addresses": places(True), "notReadyAddresses": places(False), "ports": ports}
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": owner, "namespace": "shop"},
        "subsets": [subset] if ends else [],
    }


@st.composite
def services(draw: st.DrawFn, *, least: int = 1, most: int = 4) -> Generated:
    """`least` to `most` services."""
    documents: list[Manifest] = []
    for at in range(draw(st.integers(least, most))):
        name, families = f"s{at}", draw(st.sampled_from(FAMILIES))
        spec = _spec(draw, 10 + at, families)
        ports, ends_of = [], []
        for second in range(draw(st.integers(1, 2))):
            protocol = draw(st.sampled_from(PROTOCOLS))
            node_port = 30080 + 2 * at + second if spec["type"] != "ClusterIP" else 0
            number = 80 + 2 * at + second
            ports.append(port(number, name=f"p{second}", protocol=protocol, target="t", node_port=node_port))
            ends_of.append((f"p{second}", protocol))
        groups = []
        for _ in range(draw(st.sampled_from((1, 1, 1, 2)))):
            # A named port may be another number in another slice; nothing listens on hosts but at 9100.
            number = draw(st.sampled_from((8080, 8081, 9090, 9100)))
            groups.append((_ends(draw), [slice_port(number, name=n, protocol=p) for n, p in ends_of]))
        documents.append(service(name, 10 + at, ports=ports, **spec))
        if draw(st.integers(0, 7)) == 0:
            documents.append(_legacy(name, *groups[0]))
        else:
            documents += _slices(name, groups)
    options = {
        **draw(st.sampled_from(DETECTION)),
        **draw(st.sampled_from(NODE_PORT_ADDRESSES)),
        **({"masquerade-all": True} if draw(st.integers(0, 4)) == 0 else {}),
    }
    return Generated(documents, options)
