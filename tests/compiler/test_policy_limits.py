"""Cluster-wide policies beyond what their CRDs admit, and fields of other versions: refused, by name."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest

from k8snetc.compiler.diagnostics import InputError
from k8snetc.compiler.manifests import Manifests, read

Document = dict[str, Any]
PEER: Document = {"namespaces": {}}
ONE = {"tcp": {"destinationPort": {"number": 80}}}


def policy(kind: str, **spec: object) -> Document:
    """A policy in the version of its kind, of which only some of the spec matters."""
    new = kind == "ClusterNetworkPolicy"
    common: Document = {"subject": {"namespaces": {}}}
    if kind != "BaselineAdminNetworkPolicy":
        common["priority"] = 1
    if new:
        common["tier"] = "Admin"
    return {
        "apiVersion": f"policy.networking.k8s.io/v1alpha{2 if new else 1}",
        "kind": kind,
        "metadata": {"name": "default"},
        "spec": {**common, **spec},
    }


def load(document: Document) -> Manifests:
    return read(["-"], BytesIO(json.dumps(document).encode()))


def rule(**more: object) -> Document:
    return {"action": "Deny", "from": [PEER], **more}


def block(n: int) -> str:
    return f"10.0.{n}.0/24"


NEW, OLD, BASE = "ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy"
LIMITS = [
    *((kind, {"ingress": [rule()] * n}, f"{n} rules") for kind, n in ((NEW, 26), (OLD, 101), (BASE, 101))),
    *(
        (kind, {"ingress": [rule(**{"from": [PEER] * n})]}, f"{n} peers")
        for kind, n in ((NEW, 26), (OLD, 101))
    ),
    (
        NEW,
        {"egress": [{"action": "Deny", "to": [{"networks": [block(n) for n in range(26)]}]}]},
        "26 networks",
    ),
    (NEW, {"ingress": [rule(protocols=[ONE] * 26)]}, "26 protocols"),
    (NEW, {"ingress": [rule(protocols=[])]}, "empty list of protocols"),
    (OLD, {"ingress": [rule(ports=[{"portNumber": {"port": 80}}] * 101)]}, "101 ports"),
    (NEW, {"ingress": [rule(name="n" * 101)]}, "rule name of 101 characters"),
    (NEW, {"priority": -1}, "priority -1 is out of range"),
    (OLD, {"priority": 1001}, "priority 1001 is out of range"),
    (OLD, {"subject": {"namespaces": {"sameLabels": ["team"]}}}, "sameLabels"),
    (OLD, {"ingress": [rule(**{"from": [{"namespaces": {"notSameLabels": ["team"]}}]})]}, "notSameLabels"),
    (NEW, {"ingress": [rule(**{"from": [{"networks": ["10.0.0.0/8"]}]})]}, "networks"),
    (NEW, {"ingress": [rule(**{"from": [{"nodes": {}}]})]}, "nodes"),
    (NEW, {"ingress": [rule(protocols=[{"icmp": {}}])]}, "icmp"),
]


@pytest.mark.parametrize(("kind", "spec", "problem"), LIMITS, ids=[f"{k}-{p}" for k, _, p in LIMITS])
def test_what_the_api_server_would_refuse_is_an_error(kind: str, spec: Document, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        load(policy(kind, **spec))


def test_the_limits_themselves_are_admitted() -> None:
    networks = [{"networks": [block(n) for n in range(25)]}]
    load(policy(NEW, ingress=[rule()] * 25, egress=[{"action": "Accept", "to": networks}], priority=1000))
    load(policy(OLD, ingress=[rule(**{"from": [PEER] * 100})] * 100, priority=0))
    load(policy(BASE, ingress=[rule(name="n" * 100, ports=[])] * 100))
