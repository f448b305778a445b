"""The compiled services against the naive evaluator, on generated services: equal for every packet, on both nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from ipaddress import ip_address
from tempfile import NamedTemporaryFile

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from k8snetc.compiler.options import context_options
from k8snetc.compiler.pipeline import compile_manifests, read
from k8snetc.ir import interpret
from k8snetc.ir.interpret import Interpreter, Result, Sender
from k8snetc.ir.types import Program, Protocol, Refusal
from tests.semantics import naive_services as naive
from tests.semantics.service_clusters import Generated, services
from tests.semantics.world import NODES, PODS, address, cluster_manifests

QUICK = settings(deadline=None, suppress_health_check=list(HealthCheck))
SENDERS = ("client-1", "web-1", "client-2", "web-3", "outside")


def node_of(name: str, options: dict[str, object]) -> naive.Node:
    """A node for the naive evaluator, from the same options."""
    v4, v6, net4, net6, zone = NODES[name]
    cluster: tuple[str, ...] = tuple(n for node in NODES.values() for n in node[2:4])
    if options.get("cluster-cidr") == "none":
        cluster = ()
    elif "cluster-cidr" in options:
        cluster = tuple(str(options["cluster-cidr"]).split(","))
    elif options.get("detect-local-mode") == "NodeCIDR":
        cluster = (net4, net6)
    blocks = options.get("nodeport-addresses", ())
    if blocks == "primary":
        blocks = (f"{v4}/32", f"{v6}/128")
    assert isinstance(blocks, list | tuple)
    return naive.Node(name, (v4, v6), zone, cluster, tuple(blocks), bool(options.get("masquerade-all")))


def programs(generated: Generated, name: str) -> list[tuple[str, Program]]:
    """As lowered, and as the passes leave it."""
    items = [*cluster_manifests(), *generated.documents]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    with NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(generated.options, file)
        file.flush()
        options = context_options({"node": name}, file.name)
    manifests = read(["-"], options, stdin=BytesIO(text.encode()))
    seen: list[tuple[str, Program]] = []
    compile_manifests(manifests, options, watch=lambda stage, program: seen.append((stage, program)))
    return [seen[0], seen[-1]]


def packets(generated: Generated, node: naive.Node) -> Iterator[naive.Packet]:
    """From everybody to every address and port that means something, and to each ClusterIP's undefined port."""
    asked: dict[tuple[str, str, int], None] = {}
    for d in generated.documents:
        if d["kind"] != "Service":
            continue
        ingress = [i["ip"] for i in d["status"]["loadBalancer"]["ingress"]]
        for ip in (*d["spec"]["clusterIPs"], *d["spec"]["externalIPs"], *ingress):
            for p in d["spec"]["ports"]:
                asked[ip, p["protocol"], p["port"]] = None
                asked[ip, "UDP" if p["protocol"] == "TCP" else "TCP", p["port"]] = None
        for ip in node.addresses:
            for p in d["spec"]["ports"]:
                asked[ip, p["protocol"], p.get("nodePort", p["port"])] = None
    for ip, protocol, port in asked:
        at = 0 if "." in ip else 1
        yield naive.Packet(node.addresses[at], ip, protocol, port, own=True)
        if ip not in node.addresses:  # what the kernel chooses for an address that is bound to the node
            yield naive.Packet(ip, ip, protocol, port, own=True)
        for sender in SENDERS:
            source = address(sender, 4 if at == 0 else 6)
            yield naive.Packet(str(source), ip, protocol, port)


def said(result: Result) -> naive.Fate:
    """The interpreter's answer in the naive evaluator's words."""
    if result.refusal is not None:
        return naive.REJECT if result.refusal is Refusal.REJECT else naive.DROP
    if not any(d.translated for d in result.deliveries):
        return naive.PASS
    return frozenset(naive.Place(str(d.address), d.port, d.masqueraded) for d in result.deliveries)


def check(generated: Generated) -> int:
    """Compare every fate; how many packets were balanced."""
    balanced = 0
    for name in NODES:
        node = node_of(name, generated.options)
        interpreters = [(stage, Interpreter(p)) for stage, p in programs(generated, name)]
        for packet in packets(generated, node):
            expected = naive.fate(generated.documents, node, packet)
            balanced += isinstance(expected, frozenset)
            kind = Sender.NODE if packet.own else Sender.EXTERNAL
            if packet.source in {a for _, v4, v6, _ in PODS.values() for a in (v4, v6)}:
                kind = Sender.POD
            asked = interpret.Packet(
                kind,
                ip_address(packet.source),
                ip_address(packet.destination),
                Protocol(packet.protocol.lower()),
                packet.port,
            )
            for stage, interpreter in interpreters:
                result = interpreter.run(asked)
                assert said(result) == expected, f"{packet} on {name}, after {stage}: {expected}; {result}"
    return balanced


@settings(QUICK, max_examples=15)
@given(services())
def test_services_mean_what_the_manifests_say(generated: Generated) -> None:
    check(generated)


@pytest.mark.slow
def test_many_services() -> None:
    balanced = 0

    @settings(QUICK, max_examples=150, phases=[Phase.generate, Phase.shrink])
    @given(services())
    def compare(generated: Generated) -> None:
        nonlocal balanced
        balanced += check(generated)

    compare()
    assert balanced > 5_000, "a generator whose packets go nowhere would prove nothing"


def test_the_generator_reaches_what_it_is_for() -> None:
    """Every feature is there in some of the examples, and so are pairs of those that are seldom."""
    seen: set[str] = set()

    @settings(QUICK, max_examples=150, phases=[Phase.generate], derandomize=True, database=None)
    @given(services())
    def look(generated: Generated) -> None:
        seen.update(map(str, generated.options.items()))
        for d in generated.documents:
            seen.add(d["kind"])
            spec = d.get("spec", {})
            both = spec.get("externalTrafficPolicy"), spec.get("internalTrafficPolicy")
            if both == ("Local", "Local") and "sessionAffinity" in spec:
                seen.add("local, local, affinity")
            if spec.get("loadBalancerSourceRanges") and spec.get("externalTrafficPolicy") == "Local":
                seen.add("local, ranges")
            ingress = {i["ip"] for i in d.get("status", {}).get("loadBalancer", {}).get("ingress", ())}
            if ingress & set(spec.get("externalIPs", ())):
                seen.add("external and balancer IP")
            if {*NODES["n1"][:2]} & set(spec.get("externalIPs", ())):
                seen.add("the node's own address")
            ends = d.get("endpoints", ())
            if any("hints" in e for e in ends) and any(e["conditions"].get("terminating") for e in ends):
                seen.add("hints, terminating")

    look()
    assert seen >= {
        "local, local, affinity", "local, ranges", "external and balancer IP", "the node's own address",
        "hints, terminating", "Endpoints", "EndpointSlice", "('cluster-cidr', 'none')", "('masquerade-all', True)",
        "('nodeport-addresses', 'primary')", "('detect-local-mode', 'NodeCIDR')",
    }  # fmt: skip
