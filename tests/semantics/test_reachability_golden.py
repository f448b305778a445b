"""What the policies of real manifests leave open between their own workloads: a table a folder, byte for byte.

Each port of each workload, and who reaches it: the other workloads, a pod of another namespace, somebody outside, and
another node. Replicas must agree, or they are told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path

import pytest

from k8snetc.compiler.assume import assume
from k8snetc.compiler.context import node_context
from k8snetc.compiler.lower import lower
from k8snetc.compiler.manifests import Manifests, read
from k8snetc.compiler.manifests_workload import Pod
from k8snetc.compiler.options import ContextOptions
from k8snetc.compiler.resolve import resolve
from k8snetc.ir.interpret import Interpreter, Sender
from k8snetc.ir.passes import run_passes
from k8snetc.ir.types import Address, Protocol
from tests.support.golden import check_file

CORPUS = Path(__file__).parents[1] / "corpus"
GOLDEN = Path(__file__).parents[1] / "golden" / "reachability"
FOLDERS = sorted(p.name for p in CORPUS.iterdir() if p.is_dir())
VISITOR = b"""{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "visitor", "namespace": "elsewhere"},
 "spec": {"nodeName": "assumed-node"}, "status": {"podIP": "100.64.0.1"}}"""
# What a custom resource of the folder becomes in a cluster, and the policies of its neighbours are about.
PROMETHEUS = b"""
---
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "prometheus-k8s-0", "namespace": "monitoring", "labels":
 {"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/instance": "k8s", "app.kubernetes.io/component":
 "prometheus", "app.kubernetes.io/part-of": "kube-prometheus"}}, "spec": {"containers": [{"ports": [{"name": "web",
 "containerPort": 9090}, {"name": "reloader-web", "containerPort": 8080}]}]}}
---
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alertmanager-main-0", "namespace": "monitoring", "labels":
 {"app.kubernetes.io/name": "alertmanager", "app.kubernetes.io/instance": "main", "app.kubernetes.io/component":
 "alert-router", "app.kubernetes.io/part-of": "kube-prometheus"}}, "spec": {"containers": [{"ports": [{"name": "web",
 "containerPort": 9093}, {"name": "mesh", "containerPort": 9094}]}]}}"""
# Whose policy is about pods on the host network, which policies leave alone: the table says so of their workload.
ON_THE_HOST = {("monitoring", "node-exporter")}
STRANGERS: dict[str, Address] = {
    "(outside)": ip_address("203.0.113.9"),
    "(another node)": ip_address("100.65.0.1"),
}
UNDECLARED = (Protocol.TCP, 1)


def table(manifests: Manifests) -> Iterator[str]:
    """The lines of the table."""
    context = node_context(manifests, ContextOptions())
    interpreter = Interpreter(run_passes(lower(resolve(manifests, context, assumed=True))))
    groups: dict[str, list[Pod]] = {}
    for pod in manifests.pods:
        groups.setdefault(_workload(pod, manifests), []).append(pod)
    for name, pods in sorted(groups.items()):
        if pods[0].spec.host_network:
            yield f"{name}: on the host network, not covered by policies"
            continue
        declared = {(Protocol[p.protocol], p.container_port): p.name for p in pods[0].spec.ports}
        yield name
        for (protocol, port), label in [*sorted(declared.items()), (UNDECLARED, "any other port")]:
            reached = [
                source
                for source, addresses in _sources(groups)
                if source != name and _all_reach(interpreter, addresses, pods, protocol, port)
            ]
            shown = f"{port}/{protocol.value}" + (f" ({label})" if label else "")
            yield f"  {shown if label != 'any other port' else label} <- {_words(reached, len(groups) + 1)}"


def _sources(groups: dict[str, list[Pod]]) -> Iterator[tuple[str, list[Address]]]:
    for name, pods in sorted(groups.items()):
        if not pods[0].spec.host_network:
            yield name, [p.addresses[0] for p in pods]
    yield from ((name, [address]) for name, address in STRANGERS.items())


def _all_reach(
    interpreter: Interpreter, sources: list[Address], pods: list[Pod], protocol: Protocol, port: int
) -> bool:
    """Whether every source reaches every pod; replicas that differ are a defect of the corpus or of the compiler."""
    answers = {
        interpreter.judge(Sender.POD, source, pod.addresses[0], protocol, port).denial is None
        for source in sources
        for pod in pods
    }
    assert len(answers) == 1, f"replicas differ: {sources} -> {[p.metadata.name for p in pods]} {port}"
    return answers == {True}


def _workload(pod: Pod, manifests: Manifests) -> str:
    """The workload that makes the pod: its origin is there."""
    for workload in manifests.workloads:
        origin = workload.origin
        if (origin.file, origin.line) == (pod.origin.file, pod.origin.line):
            return f"{origin.namespace}/{origin.name}"
    return f"{pod.metadata.namespace}/{pod.metadata.name}"


def _words(reached: list[str], everybody: int) -> str:
    if not reached:
        return "nobody"
    return "everybody" if len(reached) >= everybody else ", ".join(reached)


def assumed(folder: str) -> Manifests:
    """The manifests of a folder with everything that its table is about."""
    more = VISITOR + (PROMETHEUS if folder == "kube-prometheus" else b"")
    return assume(read([str(CORPUS / folder), "-"], BytesIO(more)))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_policy_of_the_corpus_has_its_part_in_the_table(folder: str) -> None:
    """None selects nothing, and so is told by nothing."""
    manifests = assumed(folder)
    facts = resolve(manifests, node_context(manifests, ContextOptions()), assumed=True)
    at_work = {(o.namespace, o.name) for p in facts.policies for o in p.origins}
    named = {(p.metadata.namespace, p.metadata.name) for p in manifests.network_policies}
    assert at_work == named - ON_THE_HOST


def test_the_corpus_has_policies() -> None:
    assert sum(len(assumed(folder).network_policies) for folder in FOLDERS) >= 25


@pytest.mark.parametrize("folder", FOLDERS)
def test_reachability_of_the_corpus_is_golden(folder: str) -> None:
    manifests = assumed(folder)
    lines = [f"# {folder}: who reaches which port, as its NetworkPolicies leave it", "", *table(manifests)]
    check_file(GOLDEN / f"{folder}.txt", "\n".join(lines) + "\n")
