"""What the API server would refuse because two objects want the same thing.

Knows: allocations that are unique in a cluster. Must not know: the fields of one object (`manifests_service`), files.
That two services share an external IP and port is no allocation: `lower` finds it, where both are the node's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from k8snetc.compiler.diagnostics import Diagnostic, Severity
from k8snetc.compiler.manifests_service import Service
from k8snetc.compiler.manifests_workload import Pod
from k8snetc.ir.types import Origin


def clashes(services: Iterable[Service], pods: Iterable[Pod]) -> Iterator[Diagnostic]:
    """Errors and warnings about what is there twice. Each stands at the later object and names the earlier."""
    yield from _services(services)
    yield from _pods(pods)


def _services(services: Iterable[Service]) -> Iterator[Diagnostic]:
    cluster_ips: dict[str, Origin] = {}
    node_ports: dict[tuple[str, int], Origin] = {}
    for service in services:
        origin = service.origin
        for ip in service.spec.cluster_ips:
            before = cluster_ips.setdefault(str(ip), origin)
            if before is not origin:
                yield _error(
                    origin, f"ClusterIP {ip} is that of Service {_named(before)}", "give each its own"
                )
        ports = [(p.protocol, p.node_port) for p in service.spec.ports if p.node_port]
        if service.spec.health_check_node_port:
            ports.append(("TCP", service.spec.health_check_node_port))
        for protocol, port in ports:
            before = node_ports.setdefault((protocol, port), origin)
            if before is not origin:
                what = f"NodePort {port}/{protocol} is that of Service {_named(before)}"
                yield _error(origin, what, "give each its own")


def _pods(pods: Iterable[Pod]) -> Iterator[Diagnostic]:
    owners: dict[str, Origin] = {}
    for pod in pods:
        if pod.spec.host_network or pod.finished:
            continue
        for ip in pod.addresses:
            before = owners.setdefault(str(ip), pod.origin)
            if before is not pod.origin:
                yield Diagnostic(
                    pod.origin.file,
                    pod.origin.line,
                    f"pod address {ip} is that of Pod {_named(before)} too",
                    "take the manifests from one moment of the cluster",
                    Severity.WARNING,
                )


def _named(origin: Origin) -> str:
    return f"{origin.namespace}/{origin.name} ({origin.file}:{origin.line})"


def _error(origin: Origin, what: str, fix: str) -> Diagnostic:
    return Diagnostic(origin.file, origin.line, what, fix)
