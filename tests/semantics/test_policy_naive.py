"""The compiled policy against the naive evaluator, on generated clusters: equal for every packet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from io import BytesIO
from ipaddress import ip_address
from itertools import product

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from k8snetc.compiler.facts import Facts, NodeContext
from k8snetc.compiler.lower import lower
from k8snetc.compiler.manifests import read
from k8snetc.compiler.resolve_policy import resolve_policy
from k8snetc.ir.interpret import Interpreter, Packet, Sender
from k8snetc.ir.passes import stages
from k8snetc.ir.types import Program, Protocol
from tests.semantics import naive_policy
from tests.semantics.clusters import NODE_ADDRESSES, NODES, PORTS, Document, addresses_of, clusters

ENDS = {"TCP": Protocol.TCP, "UDP": Protocol.UDP, "SCTP": Protocol.SCTP, None: None}


def programs(documents: Sequence[Document], node: str | None) -> list[tuple[str, Program]]:
    """The program as lowered and as the passes leave it."""
    manifests = read(
        ["-"], BytesIO(json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}).encode())
    )
    addresses = tuple(map(ip_address, NODE_ADDRESSES[node])) if node else ()
    context = NodeContext(name=node, addresses=addresses)
    done = list(stages(lower(Facts(context, policies=resolve_policy(manifests, context)))))
    return [done[0], done[-1]]


def packets(documents: Sequence[Document]) -> Iterator[tuple[str, str, str | None, int]]:
    """Every packet between two addresses that mean something."""
    known = addresses_of(documents)
    pods = {a for d in documents if d["kind"] == "Pod" for a in naive_policy.pod_addresses(d)}
    for source, destination in product(known, known):
        if (":" in source) != (":" in destination) or not {source, destination} & pods:
            continue
        for protocol in ENDS:
            for port in PORTS if protocol else (0,):
                yield source, destination, protocol, port


def check(documents: Sequence[Document], node: str | None) -> None:
    """Compare every verdict."""
    naive = naive_policy.Cluster(documents, node)
    own = set(NODE_ADDRESSES[node]) if node else set()
    interpreters = [(name, Interpreter(p)) for name, p in programs(documents, node)]
    for source, destination, protocol, port in packets(documents):
        expected = naive.allows(source, destination, protocol, port)
        sender = Sender.NODE if source in own else Sender.POD
        packet = Packet(sender, naive_policy.ip(source), naive_policy.ip(destination), ENDS[protocol], port)
        for name, interpreter in interpreters:
            result = interpreter.run(packet)
            assert bool(result.arrivals) is expected, (
                f"after {name}: {source} -> {destination} {protocol}/{port} on {node}: "
                f"the manifests {'allow' if expected else 'deny'} it; {result}"
            )


QUICK = settings(deadline=None, suppress_health_check=list(HealthCheck))


@settings(QUICK, max_examples=20)
@given(clusters())
def test_one_program_for_all_pods(documents: list[Document]) -> None:
    check(documents, None)


@settings(QUICK, max_examples=10)
@given(clusters())
def test_each_node_protects_its_own_pods(documents: list[Document]) -> None:
    for node in NODES:
        check(documents, node)


@pytest.mark.slow
@settings(QUICK, max_examples=150, phases=[Phase.generate, Phase.shrink])
@given(clusters())
def test_many_clusters(documents: list[Document]) -> None:
    check(documents, None)
    check(documents, NODES[0])
