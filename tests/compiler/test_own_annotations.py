"""What annotations of Services and Pods become."""

from __future__ import annotations

from io import BytesIO

import pytest

from k8snetc.compiler.context import node_context
from k8snetc.compiler.diagnostics import InputError
from k8snetc.compiler.lower import lower
from k8snetc.compiler.manifests import read
from k8snetc.compiler.options import ContextOptions
from k8snetc.compiler.resolve import resolve
from k8snetc.ir.types import Program

MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop, annotations: {{{service}}}}}
spec:
  clusterIP: 10.96.0.1
  ports: [{{port: 80}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{port: 8080, name: ""}}]
endpoints: [{{addresses: [10.244.1.1]}}, {{addresses: [10.244.1.2]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: big, namespace: shop, annotations: {{{pod}}}}}
spec: {{containers: [{{name: c}}]}}
status: {{podIP: 10.244.1.2}}
"""


def program(service: str = "", pod: str = "") -> Program:
    text = MANIFESTS.format(service=service, pod=pod).encode()
    manifests = read(["-"], BytesIO(text))
    return lower(resolve(manifests, node_context(manifests, ContextOptions())))


def test_without_annotations_nothing_is_asked_for() -> None:
    (balancer,) = program().balancers
    assert (balancer.scheduler, balancer.forwarding) == ("", "")
    assert [e.weight for e in balancer.endpoints] == [1, 1]


def test_scheduler_with_flags_and_forwarding() -> None:
    asked = (
        "k8snetc.io/ipvs-scheduler: sh, k8snetc.io/ipvs-scheduler-flags: 'sh-port, sh-fallback', "
        "k8snetc.io/ipvs-forwarding: direct"
    )
    (balancer,) = program(asked).balancers
    assert (balancer.scheduler, balancer.forwarding) == ("sh:sh-port,sh-fallback", "direct")


def test_weight_of_a_pod() -> None:
    (balancer,) = program(pod="k8snetc.io/weight: '3'").balancers
    assert [(str(e.address), e.weight) for e in balancer.endpoints] == [("10.244.1.1", 1), ("10.244.1.2", 3)]


@pytest.mark.parametrize("weight", ["0", "-1", "many", "65536", "1.5", "٣"])
def test_a_weight_that_is_none_is_an_error(weight: str) -> None:
    with pytest.raises(InputError) as error:
        program(pod=f"k8snetc.io/weight: '{weight}'")
    (one,) = error.value.diagnostics
    assert "k8snetc.io/weight of Pod shop/big" in str(one)
    assert "from 1 to 65535" in str(one)


def test_flags_without_a_scheduler_are_an_error() -> None:
    with pytest.raises(InputError) as error:
        program("k8snetc.io/ipvs-scheduler-flags: sh-port")
    assert "without k8snetc.io/ipvs-scheduler" in str(error.value.diagnostics[0])
