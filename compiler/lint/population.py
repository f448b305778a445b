"""The pods that manifests have or will make, indexed as policies see them.

Knows: pods, what workloads make (also one scaled to nothing), and which of both are on the host network. Addresses are
made up where there are none, and never looked at. Must not know: what is worth a warning.
"""

from __future__ import annotations

from collections.abc import Mapping

from k8snetc.compiler.assume import assume
from k8snetc.compiler.manifests import Manifests
from k8snetc.compiler.manifests_workload import Pod, PodSpec
from k8snetc.compiler.policy.cluster import Cluster, NodeEntry, PodEntry
from k8snetc.compiler.policy.read import FINISHED, port_numbers
from k8snetc.ir.types import Origin


class Population:
    """`inside`: what policies select. `hosts`: host-network pods. `all`: both, which Services select."""

    def __init__(self, manifests: Manifests) -> None:
        pods: list[Pod] = [p for p in manifests.pods if p.status.phase not in FINISHED]
        entries = [_entry(p.metadata.namespace, p.metadata.labels, p.spec, p.origin) for p in pods]
        if manifests.workloads:
            given = {(p.metadata.namespace, p.metadata.name) for p in manifests.pods}
            made = [p for p in assume(manifests).pods if (p.metadata.namespace, p.metadata.name) not in given]
            entries += [_entry(p.metadata.namespace, p.metadata.labels, p.spec, p.origin) for p in made]
            entries += [
                _entry(w.origin.namespace, w.template.metadata.labels, w.template.spec, w.origin)
                for w in manifests.workloads
            ]
        namespaces = {n.metadata.name: n.metadata.labels for n in manifests.namespaces}
        nodes = [NodeEntry(n.metadata.labels, {}) for n in manifests.nodes]
        self.known = bool(entries)
        self.has_nodes = bool(nodes)
        self.inside = Cluster([e for e, host in entries if not host], namespaces, nodes)
        self.hosts = Cluster([e for e, host in entries if host], namespaces, nodes)
        self.all = Cluster([e for e, _ in entries], namespaces, nodes)


def _entry(namespace: str, labels: Mapping[str, str], spec: PodSpec, origin: Origin) -> tuple[PodEntry, bool]:
    return PodEntry(namespace, "", labels, True, {}, port_numbers(spec), origin), spec.host_network
