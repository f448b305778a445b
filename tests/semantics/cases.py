"""The rules of Services as cases: manifests, and flows with what must become of them.

Knows: what Kubernetes means. Must not know: the compiler, a back end, or the kernel. Each case is tried with real
packets on every back end and with the interpreter (test_services.py); docs/semantics.md names it by `name`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from tests.semantics.world import Manifest, hints, port, service, slice_port, slices


class Fate(Enum):
    """What becomes of a flow that reaches no endpoint."""

    REFUSED = "refused"  # an answer that says no, at once
    DROPPED = "dropped"  # no answer
    FAILED = "failed"  # either: it reaches nobody, and who says so is not this rule's matter


class Source(Enum):
    """Whose address the endpoint sees."""

    CLIENT = "client"
    NODE = "node"  # of the node that translated


@dataclass(frozen=True, slots=True)
class Reaches:
    """All of these endpoints (pods or nodes by short name), on a port, with this source.

    `hairpin`: how the client's own endpoint sees the source, where the client is one of the endpoints.
    """

    endpoints: tuple[str, ...]
    source: Source = Source.CLIENT
    port: int = 8080


@dataclass(frozen=True, slots=True)
class Flow:
    """Connections from `client` (short name) to `to` on `port`: a pair `v4,v6` or a short name."""

    client: str
    to: str
    port: int
    expect: Reaches | Fate
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class Case:
    """A rule. `options` are those of the configuration file, the same on both nodes."""

    name: str
    manifests: tuple[Manifest, ...]
    flows: tuple[Flow, ...]
    options: dict[str, object] = field(default_factory=dict)


CIP = "10.96.0.{n},fd00:96::{n}"
EXTERNAL = "198.51.100.7,2001:db8:51::7"
BALANCER = "203.0.113.7,2001:db8:113::7"
LB_INGRESS = ({"ip": "203.0.113.7"}, {"ip": "2001:db8:113::7"})
EXTERNALS = ["198.51.100.7", "2001:db8:51::7"]
EVERYBODY = ("client-1", "client-2", "outside", "n1", "n2")


def cip(number: int) -> str:
    """The ClusterIPs of the service with that number."""
    return CIP.format(n=number)


def flows(
    clients: Sequence[str], to: str, number: int, expect: Reaches | Fate, protocol: str = "tcp"
) -> tuple[Flow, ...]:
    """The same flow from several clients."""
    return tuple(Flow(c, to, number, expect, protocol) for c in clients)


def _ports_and_protocols() -> Case:
    ports = (
        port(80, name="http"),
        port(53, name="dns", protocol="UDP", target=8081),
        port(36412, name="s1", protocol="SCTP", target="sig"),
    )
    slice_ports = (
        slice_port(8080, name="http"),
        slice_port(8081, name="dns", protocol="UDP"),
        slice_port(9090, name="s1", protocol="SCTP"),
    )
    return Case(
        "cluster-ip-ports",
        (service("web", 10, ports=ports), *slices("web", "web-1", "web-2", ports=slice_ports)),
        (
            *flows(("client-1", "client-2"), cip(10), 80, Reaches(("web-1", "web-2"))),
            *flows(("client-1", "client-2"), cip(10), 53, Reaches(("web-1", "web-2"), port=8081), "udp"),
            *flows(("client-1", "client-2"), cip(10), 36412, Reaches(("web-1", "web-2"), port=9090), "sctp"),
            *flows(("n1",), cip(10), 80, Reaches(("web-1", "web-2"), Source.NODE)),
        ),
    )


def _named_ports_differ() -> Case:
    """A port name is resolved per slice: the same name, another number."""
    return Case(
        "named-ports-differ",
        (
            service("web", 10, ports=(port(80, name="http", target="http"),)),
            *slices("web", "web-1", ports=(slice_port(8080, name="http"),), suffix="a"),
            *slices("web", "web-2", ports=(slice_port(9090, name="http"),), suffix="b"),
            service("one", 11, ports=(port(80, name="http", target="http"),)),
            *slices("one", "web-2", ports=(slice_port(9090, name="http"),)),
        ),
        (
            Flow("client-1", cip(10), 80, Reaches(("web-1", "web-2"), port=0)),
            Flow("client-1", cip(11), 80, Reaches(("web-2",), port=9090)),
        ),
    )


def _not_for_the_node() -> Case:
    """Headless, ExternalName, another proxy's, spec.loadBalancerIP and host names mean nothing to the node."""
    headless = service("headless", 0, clusterIP="None", clusterIPs=["None"], externalIPs=EXTERNALS)
    name = service(
        "name",
        0,
        type="ExternalName",
        externalName="example.org",
        externalIPs=["198.51.100.8"],
        clusterIP=None,
        clusterIPs=None,
        ipFamilies=None,
        ipFamilyPolicy=None,
    )
    other = service("other", 12, labels={"service.kubernetes.io/service-proxy-name": "mine"})
    wish = service(
        "wish",
        13,
        type="LoadBalancer",
        loadBalancerIP="203.0.113.9",
        ingress=({"hostname": "lb.example.org"},),
    )
    ends = [s for n in ("headless", "name", "other", "wish") for s in slices(n, "web-1")]
    return Case(
        "not-for-the-node",
        (headless, name, other, wish, *ends),
        (
            Flow("client-1", EXTERNAL, 80, Fate.FAILED),
            Flow("client-1", "198.51.100.8,2001:db8:51::8", 80, Fate.FAILED),
            Flow("client-1", cip(12), 80, Fate.FAILED),
            Flow("client-1", "203.0.113.9,2001:db8:113::9", 80, Fate.FAILED),
            Flow("client-1", cip(13), 80, Reaches(("web-1",))),
        ),
    )


def _undefined() -> Case:
    """Another port or protocol of a ClusterIP, and a ping, are rejected at once."""
    return Case(
        "cluster-ip-undefined",
        (service("web", 10), *slices("web", "web-1")),
        (
            *flows(("client-1", "client-2", "outside", "n1"), cip(10), 81, Fate.REFUSED),
            *flows(("client-1", "n1"), cip(10), 80, Fate.REFUSED, "udp"),
            *flows(("client-1",), cip(10), 80, Fate.REFUSED, "sctp"),
            *flows(("client-1", "n1"), cip(10), 0, Fate.REFUSED, "icmp"),
            Flow("client-1", cip(10), 80, Reaches(("web-1",))),
        ),
    )


def _unallocated() -> Case:
    """With the service CIDR known, an address in it that no Service has is dropped, whoever asks."""
    other = service("other", 12, labels={"service.kubernetes.io/service-proxy-name": "mine"})
    return Case(
        "unallocated-service-addresses",
        (service("web", 10), *slices("web", "web-1"), other, *slices("other", "web-1")),
        (
            *flows(("client-1", "client-2", "n1"), cip(99), 80, Fate.DROPPED),
            *flows(("client-1", "n1"), cip(99), 80, Fate.DROPPED, "udp"),
            Flow("client-1", cip(99), 0, Fate.DROPPED, "icmp"),
            Flow("outside", cip(99), 80, Fate.DROPPED),
            Flow("client-1", cip(10), 80, Reaches(("web-1",))),
            Flow("client-1", cip(10), 81, Fate.REFUSED),
            Flow("client-1", cip(12), 80, Fate.FAILED),
        ),
        {"service-cidr": "10.96.0.0/24,fd00:96::/120"},
    )


def _slices() -> Case:
    """All slices of the service in its namespace, each place once; headless-labelled ones are ignored."""
    headless = {"service.kubernetes.io/headless": ""}
    fqdn = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "fq", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "FQDN",
        "endpoints": [{"addresses": ["example.org"]}],
        "ports": [slice_port()],
    }
    return Case(
        "endpoint-slices",
        (
            service("web", 10),
            *slices("web", "web-1", suffix="a"),
            *slices("web", "web-1", "web-2", suffix="b"),
            *slices("web", "web-3", suffix="c", labels=headless),
            *slices("web", "api-1", suffix="d", namespace="other"),
            fqdn,
        ),
        (Flow("client-1", cip(10), 80, Reaches(("web-1", "web-2"))),),
    )


def _legacy() -> Case:
    """Endpoints count only where the service has no slice."""

    def legacy(name: str, number: int) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": name, "namespace": "shop"},
            "subsets": [
                {
                    "addresses": [{"ip": f"10.244.2.{number}"}, {"ip": f"fd00:244:2::{number}"}],
                    "notReadyAddresses": [{"ip": "10.244.1.31"}, {"ip": "fd00:244:1::31"}],
                    "ports": [{"port": 8080}],
                }
            ],
        }

    return Case(
        "legacy-endpoints",
        (
            service("old", 10),
            legacy("old", 22),
            service("new", 11),
            legacy("new", 22),
            *slices("new", "web-1"),
        ),
        (
            Flow("client-1", cip(10), 80, Reaches(("web-2",))),
            Flow("client-1", cip(11), 80, Reaches(("web-1",))),
        ),
    )


def _conditions(ready: bool | None, serving: bool | None, terminating: bool | None) -> Manifest:
    return {
        "conditions": {
            k: v
            for k, v in (("ready", ready), ("serving", serving), ("terminating", terminating))
            if v is not None
        }
    }


TERMINATING = _conditions(ready=False, serving=True, terminating=True)
NOT_READY = _conditions(ready=False, serving=False, terminating=False)


def _readiness() -> Case:
    return Case(
        "endpoint-conditions",
        (
            service("unset", 10),
            *slices("unset", ("web-1", _conditions(None, None, None)), ("web-2", NOT_READY)),
            service("going", 11),
            *slices("going", ("web-1", TERMINATING), ("web-2", NOT_READY)),
            service("both", 12),
            *slices("both", ("web-1", TERMINATING), "web-2"),
        ),
        (
            *flows(("client-1", "client-2"), cip(10), 80, Reaches(("web-1",))),
            *flows(("client-1", "client-2"), cip(11), 80, Reaches(("web-1",))),
            *flows(("client-1", "client-2"), cip(12), 80, Reaches(("web-2",))),
        ),
    )


def _terminating_local() -> Case:
    """Terminating endpoints are fallen back to for all endpoints and for local ones separately."""
    local: Manifest = {"type": "NodePort", "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}
    return Case(
        "terminating-local",
        (
            service("web", 10, ports=(port(80, node_port=30080),), **local),
            *slices("web", ("web-1", TERMINATING), "web-2"),
        ),
        (
            Flow("outside", "n1", 30080, Reaches(("web-1",))),
            Flow("client-1", cip(10), 80, Reaches(("web-1",))),
            Flow("client-1", "n1", 30080, Reaches(("web-2",))),
        ),
    )


def _no_endpoints() -> Case:
    """Refused at once on every address; a port beside it that has endpoints is untouched."""
    ports = (port(80, name="none", node_port=30080), port(81, name="some", node_port=30081))
    web = service("web", 10, type="LoadBalancer", ports=ports, externalIPs=EXTERNALS, ingress=LB_INGRESS)
    # The first port has endpoints that are not ready, the second has ready ones.
    none = slices("web", ("web-1", NOT_READY), ports=(slice_port(8080, name="none"),), suffix="a")
    some = slices("web", "web-1", ports=(slice_port(8081, name="some"),), suffix="b")
    refused = [
        f
        for to, number in ((cip(10), 80), ("n1", 30080), (EXTERNAL, 80), (BALANCER, 80))
        for f in flows(("client-1", "outside", "n1"), to, number, Fate.REFUSED)
    ]
    good = [
        f
        for to, number in (("n1", 30081), (EXTERNAL, 81), (BALANCER, 81))
        for f in flows(("client-1", "outside", "n1"), to, number, Reaches(("web-1",), Source.NODE, 8081))
    ]
    udp = (
        service("dns", 11, ports=(port(53, protocol="UDP"),)),
        *slices("dns", ("web-1", NOT_READY), ports=(slice_port(8080, protocol="UDP"),)),
    )
    return Case(
        "no-endpoints",
        (web, *none, *some, *udp),
        (
            *refused,
            *good,
            Flow("client-1", cip(10), 81, Reaches(("web-1",), port=8081)),
            *flows(("client-1", "outside", "n1"), cip(11), 53, Fate.REFUSED, "udp"),
        ),
    )


def _no_endpoints_at_all() -> Case:
    """Nobody has an endpoint: a program that only refuses."""
    web = service("web", 10, type="NodePort", ports=(port(node_port=30080),))
    return Case(
        "no-endpoints-at-all",
        (web, service("dns", 11, ports=(port(53, protocol="UDP"),))),
        (
            *flows(("client-1", "outside", "n1"), cip(10), 80, Fate.REFUSED),
            *flows(("client-1", "outside", "n1"), "n1", 30080, Fate.REFUSED),
            *flows(("client-1", "n1"), cip(11), 53, Fate.REFUSED, "udp"),
        ),
    )


def _node_port() -> Case:
    """On all of the node's addresses, from outside, the node itself, pods here and on other nodes; all protocols."""
    ports = (
        port(80, name="t", node_port=30080),
        port(80, name="u", protocol="UDP", node_port=30080),
        port(80, name="s", protocol="SCTP", node_port=30080),
    )
    ends = tuple(slice_port(8080, name=p["name"], protocol=p["protocol"]) for p in ports)
    seen = Reaches(("web-1", "web-2"), Source.NODE)
    return Case(
        "node-port",
        (service("web", 10, type="NodePort", ports=ports), *slices("web", "web-1", "web-2", ports=ends)),
        (
            *(f for node in ("n1", "n2") for f in flows(EVERYBODY, node, 30080, seen)),
            *flows(("client-1", "client-2", "outside"), "n1", 30080, seen, "udp"),
            *flows(("client-1", "client-2", "outside"), "n1", 30080, seen, "sctp"),
            Flow("outside", "n1", 30081, Fate.REFUSED),
        ),
    )


def _node_port_addresses() -> Case:
    return Case(
        "node-port-addresses",
        (service("web", 10, type="NodePort", ports=(port(node_port=30080),)), *slices("web", "web-1")),
        (
            Flow("outside", "n1", 30080, Fate.REFUSED),
            Flow("outside", "n2", 30080, Reaches(("web-1",), Source.NODE)),
        ),
        {"nodeport-addresses": ["192.0.2.12/32", "2001:db8::12/128"]},
    )


def _node_port_addresses_of_one_family() -> Case:
    """Blocks of IPv4 alone: in IPv6 no address is in one of them."""
    return Case(
        "node-port-addresses-of-one-family",
        (service("web", 10, type="NodePort", ports=(port(node_port=30080),)), *slices("web", "web-1")),
        (
            Flow("outside", "192.0.2.11,", 30080, Reaches(("web-1",), Source.NODE)),
            Flow("outside", ",2001:db8::11", 30080, Fate.REFUSED),
            Flow("client-1", ",2001:db8::11", 30080, Fate.REFUSED),
            Flow("client-1", cip(10), 80, Reaches(("web-1",))),
        ),
        {"nodeport-addresses": ["192.0.2.0/24"]},
    )


def _external_and_balancer_ips() -> Case:
    """External IPs and ingress IPs of mode VIP are served; mode Proxy is left alone."""
    proxy = ({"ip": "203.0.113.8", "ipMode": "Proxy"}, {"ip": "2001:db8:113::8", "ipMode": "Proxy"})
    web = service(
        "web",
        10,
        type="LoadBalancer",
        externalIPs=EXTERNALS,
        ingress=(*LB_INGRESS, *proxy),
        ports=(port(node_port=30080),),
    )
    seen = Reaches(("web-1", "web-2"), Source.NODE)
    return Case(
        "external-and-balancer-ips",
        (web, *slices("web", "web-1", "web-2")),
        (
            *flows(("client-1", "client-2", "outside", "n1"), EXTERNAL, 80, seen),
            *flows(("client-1", "client-2", "outside", "n1"), BALANCER, 80, seen),
            Flow("client-1", "203.0.113.8,2001:db8:113::8", 80, Fate.FAILED),
        ),
    )


def _source_ranges() -> Case:
    """They guard load-balancer IPs only, for pods and nodes too."""
    web = service(
        "web",
        10,
        type="LoadBalancer",
        ports=(port(node_port=30080),),
        externalIPs=EXTERNALS,
        ingress=LB_INGRESS,
        loadBalancerSourceRanges=["192.0.2.100/32", "2001:db8::100/128"],
    )
    seen = Reaches(("web-1",), Source.NODE)
    return Case(
        "source-ranges",
        (web, *slices("web", "web-1")),
        (
            Flow("outside", BALANCER, 80, seen),
            *flows(("second", "client-1", "client-2", "n1"), BALANCER, 80, Fate.DROPPED),
            *flows(("second", "client-1", "n1"), EXTERNAL, 80, seen),
            *flows(("second", "client-1", "n1"), "n1", 30080, seen),
        ),
    )


def _source_ranges_one_family() -> Case:
    """Ranges of one family leave the other open: said with an address pair whose IPv6 half is open."""
    web = service(
        "web", 10, type="LoadBalancer", ingress=LB_INGRESS, loadBalancerSourceRanges=["2001:db8::100/128"]
    )
    return Case(
        "source-ranges-one-family",
        (web, *slices("web", "web-1")),
        (
            Flow("outside", BALANCER, 80, Reaches(("web-1",), Source.NODE)),
            Flow("second", "203.0.113.7,", 80, Reaches(("web-1",), Source.NODE)),
            Flow("second", ",2001:db8:113::7", 80, Fate.DROPPED),
        ),
    )


def _external_local() -> Case:
    """Outside clients keep their address and reach local endpoints; pods and the node take the short cut."""
    web = service(
        "web",
        10,
        type="LoadBalancer",
        ports=(port(node_port=30080),),
        externalIPs=EXTERNALS,
        ingress=LB_INGRESS,
        externalTrafficPolicy="Local",
        internalTrafficPolicy="Local",
        healthCheckNodePort=32000,
    )
    return Case(
        "external-local",
        (web, *slices("web", "web-1", "web-2")),
        (
            Flow("outside", "n1", 30080, Reaches(("web-1",))),
            Flow("outside", "n2", 30080, Reaches(("web-2",))),
            *flows(("outside",), EXTERNAL, 80, Reaches(("web-1",))),
            *flows(("outside",), BALANCER, 80, Reaches(("web-1",))),
            Flow("client-1", "n1", 30080, Reaches(("web-1", "web-2"))),
            *flows(("client-1", "client-2"), EXTERNAL, 80, Reaches(("web-1", "web-2"))),
            *flows(("client-1", "client-2"), BALANCER, 80, Reaches(("web-1", "web-2"))),
            *flows(("n1",), "n1", 30080, Reaches(("web-1", "web-2"), Source.NODE)),
            *flows(("n1",), BALANCER, 80, Reaches(("web-1", "web-2"), Source.NODE)),
            Flow("client-1", cip(10), 80, Reaches(("web-1",))),
        ),
    )


def _external_local_elsewhere() -> Case:
    """Only remote endpoints: outside clients are dropped, the short cut still works."""
    web = service(
        "web",
        10,
        type="NodePort",
        ports=(port(node_port=30080),),
        externalIPs=EXTERNALS,
        externalTrafficPolicy="Local",
    )
    return Case(
        "external-local-elsewhere",
        (web, *slices("web", "web-2")),
        (
            Flow("outside", "n1", 30080, Fate.DROPPED),
            Flow("outside", EXTERNAL, 80, Fate.DROPPED),
            Flow("outside", "n2", 30080, Reaches(("web-2",))),
            Flow("client-1", "n1", 30080, Reaches(("web-2",))),
            Flow("n1", "n1", 30080, Reaches(("web-2",), Source.NODE)),
        ),
    )


def _short_cut_of_other_nodes_pods() -> Case:
    """A pod of another node takes the short cut too. Told by hints, which hold for all endpoints, not for local ones.

    All endpoints are on the node, because answers of others would not come back through it.
    """
    ends = [("web-1", {"hints": hints("b")}), ("api-1", {"hints": hints("a")})]
    web = service("web", 10, type="NodePort", ports=(port(node_port=30080),), externalTrafficPolicy="Local")
    return Case(
        "short-cut-of-other-nodes-pods",
        (web, *slices("web", *ends)),
        (
            Flow("outside", "n1", 30080, Reaches(("web-1", "api-1"))),
            *flows(("client-1", "client-2"), "n1", 30080, Reaches(("api-1",))),
        ),
    )


def _internal_local() -> Case:
    return Case(
        "internal-local",
        (
            service("web", 10, internalTrafficPolicy="Local"),
            *slices("web", "web-1", "web-2"),
            service("far", 11, internalTrafficPolicy="Local"),
            *slices("far", "web-2"),
        ),
        (
            Flow("client-1", cip(10), 80, Reaches(("web-1",))),
            Flow("client-2", cip(10), 80, Reaches(("web-2",))),
            Flow("client-1", cip(11), 80, Fate.DROPPED),
            Flow("client-2", cip(11), 80, Reaches(("web-2",))),
        ),
    )


def _zone_hints() -> Case:
    """The hint counts, not the endpoint's zone; for NodePorts too, never for Local policies."""
    local: Manifest = {"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}
    turned = [("web-1", {"hints": hints("b")}), ("web-2", {"hints": hints("a")})]
    return Case(
        "zone-hints",
        (
            service("web", 10, type="NodePort", ports=(port(node_port=30080),)),
            *slices("web", *turned),
            service("local", 11, type="NodePort", ports=(port(node_port=30081),), **local),
            *slices("local", *turned),
            service("some", 12),
            *slices("some", ("web-1", {"hints": hints("b")}), "web-2"),
            service("none", 13),
            *slices("none", ("web-1", {"hints": hints("c")}), ("web-2", {"hints": hints("c")})),
        ),
        (
            Flow("client-1", cip(10), 80, Reaches(("web-2",))),
            Flow("client-2", cip(10), 80, Reaches(("web-1",))),
            Flow("outside", "n1", 30080, Reaches(("web-2",), Source.NODE)),
            Flow("client-1", cip(11), 80, Reaches(("web-1",))),
            Flow("outside", "n1", 30081, Reaches(("web-1",))),
            Flow("client-1", cip(12), 80, Reaches(("web-1", "web-2"))),
            Flow("client-1", cip(13), 80, Reaches(("web-1", "web-2"))),
        ),
    )


def _node_hints() -> Case:
    ends = [("web-1", {"hints": hints("a", nodes=["n2"])}), ("web-2", {"hints": hints("a", nodes=["n1"])})]
    return Case(
        "node-hints",
        (service("web", 10), *slices("web", *ends)),
        (
            Flow("client-1", cip(10), 80, Reaches(("web-2",))),
            Flow("client-2", cip(10), 80, Reaches(("web-1",))),
        ),
    )


def _hairpin() -> Case:
    """An endpoint that reaches itself through its service is masqueraded; another endpoint sees the client."""
    return Case(
        "hairpin",
        (
            service("one", 10, ports=(port(80),)),
            *slices("one", "web-1"),
            service("np", 11, type="NodePort", ports=(port(node_port=30080),), externalTrafficPolicy="Local"),
            *slices("np", "web-1"),
        ),
        (
            Flow("web-1", cip(10), 80, Reaches(("web-1",), Source.NODE)),
            Flow("web-1", "n1", 30080, Reaches(("web-1",), Source.NODE)),
            Flow("web-2", cip(10), 80, Reaches(("web-1",), Source.CLIENT)),
        ),
    )


def _masquerade() -> Case:
    """Clients outside the cluster CIDRs reach a ClusterIP masqueraded, pods untranslated."""
    return Case(
        "masquerade-cluster-ip",
        (service("web", 10), *slices("web", "web-1", "web-2")),
        (
            Flow("outside", cip(10), 80, Reaches(("web-1", "web-2"), Source.NODE)),
            Flow("n1", cip(10), 80, Reaches(("web-1", "web-2"), Source.NODE)),
            *flows(("client-1", "client-2"), cip(10), 80, Reaches(("web-1", "web-2"))),
        ),
    )


def _masquerade_all() -> Case:
    web = service("web", 10, type="NodePort", ports=(port(node_port=30080),), externalTrafficPolicy="Local")
    return Case(
        "masquerade-all",
        (web, *slices("web", "web-1", "web-2")),
        (
            *flows(("client-1", "outside"), cip(10), 80, Reaches(("web-1", "web-2"), Source.NODE)),
            Flow("outside", "n1", 30080, Reaches(("web-1",))),
        ),
        {"masquerade-all": True},
    )


def _no_cluster_cidr() -> Case:
    """ClusterIP traffic keeps its source, pods get no short cut; the node's short cut and hairpin remain."""
    web = service("web", 10, type="NodePort", ports=(port(node_port=30080),), externalTrafficPolicy="Local")
    return Case(
        "no-cluster-cidr",
        (
            web,
            *slices("web", "web-1", "web-2"),
            service("one", 11, type="NodePort", ports=(port(node_port=30081),)),
            *slices("one", "web-1"),
        ),
        (
            Flow("client-1", cip(10), 80, Reaches(("web-1", "web-2"))),
            Flow("client-1", "n1", 30080, Reaches(("web-1",))),
            Flow("n1", "n1", 30080, Reaches(("web-1", "web-2"), Source.NODE)),
            Flow("web-1", cip(11), 80, Reaches(("web-1",), Source.NODE)),
            Flow("outside", "n1", 30081, Reaches(("web-1",), Source.NODE)),
        ),
        {"cluster-cidr": "none"},
    )


def _told_by_interface() -> Case:
    """Pods are told by the interface that they come in on: those of other nodes are strangers to this one."""
    web = service("web", 10, type="NodePort", ports=(port(node_port=30080),), externalTrafficPolicy="Local")
    return Case(
        "told-by-interface",
        (web, *slices("web", "web-1", "web-2")),
        (
            *flows(("client-1", "client-2"), cip(10), 80, Reaches(("web-1", "web-2"))),
            *flows(("outside", "n1"), cip(10), 80, Reaches(("web-1", "web-2"), Source.NODE)),
            Flow("client-1", "n1", 30080, Reaches(("web-1", "web-2"))),
            Flow("client-2", "n1", 30080, Reaches(("web-1",))),
            Flow("outside", "n1", 30080, Reaches(("web-1",))),
            Flow("n1", "n1", 30080, Reaches(("web-1", "web-2"), Source.NODE)),
        ),
        {"detect-local-mode": "InterfaceNamePrefix", "pod-interface-name-prefix": "pod"},
    )


def _host_network() -> Case:
    """Endpoints on the host network, here and elsewhere. What ends at the node itself is not masqueraded."""
    ports = (port(80, name="t", target=9100), port(80, name="u", protocol="UDP", target=9100))
    ends = (slice_port(9100, name="t"), slice_port(9100, name="u", protocol="UDP"))
    here = service("here", 11, type="NodePort", ports=(port(node_port=30081),))
    there = service("there", 12, type="NodePort", ports=(port(node_port=30082),))
    return Case(
        "host-network-endpoints",
        (
            service("web", 10, ports=ports),
            *slices("web", "n1", "n2", ports=ends),
            here,
            *slices("here", "n1", ports=(slice_port(9100),)),
            there,
            *slices("there", "n2", ports=(slice_port(9100),)),
        ),
        (
            *flows(("client-1", "client-2"), cip(10), 80, Reaches(("n1", "n2"), port=9100)),
            *flows(("client-1",), cip(10), 80, Reaches(("n1", "n2"), port=9100), "udp"),
            Flow("outside", "n1", 30081, Reaches(("n1",), Source.CLIENT, 9100)),
            Flow("outside", "n1", 30082, Reaches(("n2",), Source.NODE, 9100)),
        ),
    )


CASES: tuple[Case, ...] = (
    _ports_and_protocols(),
    _named_ports_differ(),
    _not_for_the_node(),
    _undefined(),
    _unallocated(),
    _slices(),
    _legacy(),
    _readiness(),
    _terminating_local(),
    _no_endpoints(),
    _no_endpoints_at_all(),
    _node_port(),
    _node_port_addresses(),
    _node_port_addresses_of_one_family(),
    _external_and_balancer_ips(),
    _source_ranges(),
    _source_ranges_one_family(),
    _external_local(),
    _external_local_elsewhere(),
    _short_cut_of_other_nodes_pods(),
    _internal_local(),
    _zone_hints(),
    _node_hints(),
    _hairpin(),
    _masquerade(),
    _masquerade_all(),
    _no_cluster_cidr(),
    _told_by_interface(),
    _host_network(),
)
