"""What Services and Pods ask for by annotation, beyond the Kubernetes API.

Knows: the annotations' names and forms. Must not know: which back end can do what they ask for (it refuses the rest).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from k8snetc.compiler.diagnostics import Diagnostic
from k8snetc.compiler.manifests import Manifests
from k8snetc.compiler.manifests_service import Service
from k8snetc.ir.types import Address, Origin

SCHEDULER = "k8snetc.io/ipvs-scheduler"
"""On a Service: how an endpoint is chosen, by the name of an IPVS scheduler (`lc`, `sh`, `mh`...)."""
SCHEDULER_FLAGS = "k8snetc.io/ipvs-scheduler-flags"
"""On a Service that names a scheduler: its flags, with commas between (`sh-port,sh-fallback`)."""
FORWARDING = "k8snetc.io/ipvs-forwarding"
"""On a Service: how packets to its external and load-balancer IPs get to an endpoint: `masq`, `direct`, `tunnel`."""
WEIGHT = "k8snetc.io/weight"
"""On a Pod: its share of connections, relative to the other endpoints of a service; a number from 1, 1 if unset."""

WEIGHT_MAX = 65535


def scheduler_of(service: Service) -> str:
    """`name` or `name:flag,flag`; "" where the service doesn't say."""
    annotations = service.metadata.annotations
    name = annotations.get(SCHEDULER, "").strip()
    flags = annotations.get(SCHEDULER_FLAGS, "").replace(" ", "")
    return f"{name}:{flags}" if name and flags else name


def forwarding_of(service: Service) -> str:
    """The name of a forwarding method; "" where the service doesn't say."""
    return service.metadata.annotations.get(FORWARDING, "").strip()


def weights(manifests: Manifests) -> Mapping[tuple[str, Address], int]:
    """The weights that pods ask for, by namespace and address. Call `problems` first: what is no number counts as 1."""
    return {
        (pod.metadata.namespace, address): _weight(pod.metadata.annotations[WEIGHT]) or 1
        for pod in manifests.pods
        if WEIGHT in pod.metadata.annotations and not pod.finished
        for address in pod.addresses
    }


def problems(manifests: Manifests) -> Iterator[Diagnostic]:
    """Annotations of ours that say nothing."""
    for service in manifests.services:
        annotations = service.metadata.annotations
        if annotations.get(SCHEDULER_FLAGS) and not annotations.get(SCHEDULER):
            yield _problem(
                service.origin, SCHEDULER_FLAGS, f"is given without {SCHEDULER}", "name the scheduler too"
            )
    for pod in manifests.pods:
        text = pod.metadata.annotations.get(WEIGHT)
        if text is not None and _weight(text) is None:
            yield _problem(pod.origin, WEIGHT, f"is {text!r}", f"give a whole number from 1 to {WEIGHT_MAX}")


def _weight(text: str) -> int | None:
    if not text.isascii() or not text.isdigit() or len(text) > 5:
        return None
    return int(text) if 1 <= int(text) <= WEIGHT_MAX else None


def _problem(origin: Origin, name: str, what: str, fix: str) -> Diagnostic:
    owner = f"{origin.kind} {origin.namespace}/{origin.name}"
    return Diagnostic(origin.file, origin.line, f"annotation {name} of {owner} {what}", fix)
