"""What policy costs follows the policies that differ, on every back end: not how many there are, hardly the pods."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest

from k8snetc.backends.base import EmitOptions
from k8snetc.backends.registry import load
from k8snetc.compiler.context import node_context
from k8snetc.compiler.lower import lower
from k8snetc.compiler.manifests import read
from k8snetc.compiler.options import ContextOptions
from k8snetc.compiler.resolve import resolve
from k8snetc.ir.passes import run_passes

Document = dict[str, Any]
BACKENDS = ("iptables", "nftables", "ebpf", "ipvs")


def pod(at: int) -> Document:
    """Scattered, so that no prefix holds two of them."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"pod-{at}", "namespace": "x", "labels": {"pod": f"p{at}", "all": "yes"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "x"}]},
        "status": {"phase": "Running", "podIP": f"10.{at // 100}.{at % 100}.7"},
    }


def policy(at: int, selector: Document, port: int) -> Document:
    rule = {
        "from": [{"ipBlock": {"cidr": "192.168.0.0/16", "except": ["192.168.9.0/24"]}}],
        "ports": [{"port": port}],
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"policy-{at}", "namespace": "x"},
        "spec": {"podSelector": {"matchLabels": selector}, "ingress": [rule]},
    }


def texts(backend: str, documents: list[Document]) -> list[str]:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}).encode()
    manifests = read(["-"], BytesIO(text))
    program = run_passes(lower(resolve(manifests, node_context(manifests, ContextOptions(node="n")))))
    return [a.text for a in load(backend).compile(program, EmitOptions(comments=False))]


def lines(found: list[str]) -> int:
    return sum(text.count("\n") for text in found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_policies_that_say_the_same_cost_what_one_costs(backend: str) -> None:
    pods = [pod(at) for at in range(60)]
    one = texts(backend, [*pods, policy(0, {"all": "yes"}, 80)])
    equal = texts(backend, [*pods, *(policy(at, {"pod": f"p{at}"}, 80) for at in range(60))])
    different = texts(backend, [*pods, *(policy(at, {"pod": f"p{at}"}, 80 + at) for at in range(60))])
    assert equal == one
    assert lines(different) > lines(one) + 60


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pod_more_costs_a_line_or_few(backend: str) -> None:
    few, many = (
        lines(texts(backend, [*(pod(at) for at in range(count)), policy(0, {"all": "yes"}, 80)]))
        for count in (50, 500)
    )
    # A line to find its rules by, one in each set of protected pods, and its share of the tree.
    assert 450 <= many - few < 450 * 5
