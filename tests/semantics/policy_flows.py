"""The flows of a policy case, as probes, and what the naive evaluator says of them.

Knows the little language of `policy_cases` and the addresses of `policy_cluster`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import product

from k8snetc.ir.types import Protocol
from k8snetc.lab.probe import Probe
from tests.semantics import policy_cluster as cluster
from tests.semantics.naive_policy import Cluster

FAMILIES = {"v4": 0, "v6": 1}
CLIENTS = {"out": (0, 2), "out2": (1, 3)}


@dataclass(frozen=True, slots=True)
class Flow:
    """One packet's ends: a probe, and who really gets it (after a service's translation)."""

    text: str
    probe: Probe
    source: str
    arrival: tuple[str, int]  # address and port


def flows(text: str) -> Iterator[Flow]:
    """The flows of some lines."""
    for line in filter(None, map(str.strip, text.splitlines())):
        left, right = line.split(" -> ")
        words = right.split()
        families = [FAMILIES[w] for w in words if w in FAMILIES] or [0, 1]
        ports = [w for w in words if w == "ping" or w.partition("/")[2] in {"tcp", "udp", "sctp"}]
        places = [w for w in words if w not in FAMILIES and w not in ports]
        if not (ports and places):
            raise ValueError(f"{line!r} names no destination or no port")
        for source, place, port, family in product(left.split(), places, ports, families):
            yield _flow(source, place, port, family)


def _flow(source: str, place: str, port: str, family: int) -> Flow:
    number, _, name = port.partition("/")
    protocol = None if port == "ping" else Protocol(name)
    wanted = 0 if protocol is None else int(number)
    target, arrival = _destination(place, wanted, family)
    client, own = _source(source, family)
    text = f"{source} -> {place} {port} v{'46'[family]}"
    probe = Probe(client, ip_address(target), protocol, wanted, ip_address(own) if source == "out2" else None)
    return Flow(text, probe, own, arrival)


def _source(name: str, family: int) -> tuple[str, str]:
    """The place, and the address that its packets carry."""
    if name in CLIENTS:
        return "client/out", cluster.OUTSIDE[CLIENTS[name][family]]
    if name in cluster.PODS:
        return f"node/{name}", cluster.node_addresses(name)[family]
    namespace, pod = name.split("/")
    if pod == "host":
        return "pod/x/host", cluster.node_addresses("w2")[family]
    return f"pod/{name}", cluster.pod_addresses(namespace, pod, _node(pod))[family]


def _destination(place: str, port: int, family: int) -> tuple[str, tuple[str, int]]:
    """The address that is probed, and where that leads."""
    endpoint = cluster.pod_addresses("y", "a", "w1")[family], 80
    if place == "svc":
        return (cluster.WEB, cluster.WEB_V6)[family], endpoint
    if place.endswith(":np"):
        return cluster.node_addresses(place.removesuffix(":np"))[family], endpoint
    _, address = _source(place, family)
    return address, (address, port)


def _node(pod: str) -> str:
    return next(w for w, names in cluster.PODS.items() if pod in names)


def naive_allows(documents: list[cluster.Document], flow: Flow) -> bool:
    """What the naive evaluator says, asked for both nodes: each protects its own pods.

    A NodePort on another node than the endpoint's translates the source, so there the node asks.
    """
    source = flow.source
    asked = str(flow.probe.destination)
    if flow.probe.port == cluster.SERVICES["web"][1] and asked in cluster.node_addresses("w2"):
        source = asked
    protocol = flow.probe.protocol.name if flow.probe.protocol else None
    return all(
        Cluster(documents, node).allows(source, flow.arrival[0], protocol, flow.arrival[1])
        for node in cluster.PODS
    )
