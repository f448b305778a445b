"""Services that reach nothing, and fields that do nothing."""

from __future__ import annotations

from collections.abc import Iterator

from k8snetc.compiler.lint.finding import Finding, Place
from k8snetc.compiler.lint.population import Population
from k8snetc.compiler.manifests import Manifests
from k8snetc.compiler.manifests_service import Service
from k8snetc.compiler.manifests_workload import PodSpec
from k8snetc.compiler.policy.model import PodPeer
from k8snetc.compiler.selectors import Operator, Requirement, selector
from k8snetc.ir.types import Origin, Protocol

SERVICE_NAME = "kubernetes.io/service-name"


def check_services(
    manifests: Manifests, population: Population, *, backend: str | None, localhost_nodeports: bool
) -> Iterator[Finding]:
    """All Services, and the ports of all pods and workloads."""
    served = {
        (s.metadata.namespace, s.metadata.labels.get(SERVICE_NAME))
        for s in manifests.endpoint_slices
        if s.endpoints
    }
    served |= {(e.metadata.namespace, e.metadata.name) for e in manifests.endpoints if e.subsets}
    for service in manifests.services:
        if population.known and (service.metadata.namespace, service.metadata.name) not in served:
            yield from _selection(service, population)
        yield from _ignored(service)
        ports = [i for i, p in enumerate(service.spec.ports) if p.node_port]
        if localhost_nodeports and backend == "ipvs" and ports:
            yield Finding(
                service.origin,
                ("spec", "ports", ports[0], "nodePort"),
                "localhost-node-port",
                "IPVS can't serve NodePorts on 127.0.0.1",
                "use another address of the node, or another back end",
            )
    for pod in manifests.pods:
        yield from _host_ports(pod.origin, pod.spec, ("spec",))
    for workload in manifests.workloads:
        owner = ("spec", "jobTemplate") if workload.origin.kind == "CronJob" else ()
        place = (*owner, "spec", "template", "spec")
        yield from _host_ports(workload.origin, workload.template.spec, place)


def _selection(service: Service, population: Population) -> Iterator[Finding]:
    spec = service.spec
    if not spec.selector or spec.type == "ExternalName":
        return
    wanted = selector(Requirement(k, Operator.IN, (v,)) for k, v in spec.selector.items())
    pods = population.all.select(PodPeer(wanted, namespace=service.metadata.namespace))
    if not pods:
        yield Finding(
            service.origin,
            ("spec", "selector"),
            "selects-nothing",
            f"{{{wanted}}} selects no pod in namespace {service.metadata.namespace!r}: "
            "connections are refused",
            "compare the selector with the labels in the manifests",
        )
        return
    for i, port in enumerate(spec.ports):
        name = port.target_port
        if isinstance(name, str) and not any(
            pods & holders for holders in population.all.port_holders(name, Protocol[port.protocol]).values()
        ):
            yield Finding(
                service.origin,
                ("spec", "ports", i),
                "unknown-port-name",
                f"no selected pod has a {port.protocol} port named {name!r}: connections are refused",
                "correct targetPort, or name the port in the pods' containers",
            )


def _ignored(service: Service) -> Iterator[Finding]:
    spec = service.spec
    unused: list[tuple[str, str]] = []
    if spec.external_ips and (spec.headless or spec.type == "ExternalName"):
        what = "headless" if spec.headless else "ExternalName"
        unused.append(("externalIPs", f"means nothing for a {what} Service"))
    if spec.load_balancer_ip:
        unused.append(
            ("loadBalancerIP", "is for a cloud's controller; the node heeds status.loadBalancer only")
        )
    for field, why in unused:
        yield Finding(service.origin, ("spec", field), "ignored-field", f"{field} {why}", "delete the field")


def _host_ports(origin: Origin, spec: PodSpec, place: Place) -> Iterator[Finding]:
    if spec.host_network:
        return  # there hostPort is only another word for containerPort
    for i, container in enumerate(spec.containers):
        for j, port in enumerate(container.ports):
            if port.host_port:
                yield Finding(
                    origin,
                    (*place, "containers", i, "ports", j),
                    "host-port",
                    f"hostPort {port.host_port} is for the network plugin; k8snetc does not serve it",
                    "use a NodePort Service, or leave it to the plugin",
                )
