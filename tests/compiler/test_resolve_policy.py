"""Policies from manifests to enforcements: what is refused, whose pods are covered, and what keeps its name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import pytest

from k8snetc.compiler.diagnostics import InputError
from k8snetc.compiler.facts import Facts, NodeContext
from k8snetc.compiler.lower import lower
from k8snetc.compiler.lower_policy import lower_policies
from k8snetc.compiler.manifests import Manifests, read
from k8snetc.compiler.resolve_policy import resolve_policy
from k8snetc.ir.addresses import prefix_text
from k8snetc.ir.passes import run_passes
from k8snetc.ir.types import Direction, Enforcement, Family, Program

Document = dict[str, Any]


def manifests(documents: Sequence[Document]) -> Manifests:
    return read(["-"], BytesIO(json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}).encode()))


def pod(
    name: str, address: str | None, *, node: str = "n1", namespace: str = "shop", **more: Any
) -> Document:
    spec = {"nodeName": node, "containers": more.pop("containers", [{"name": "c"}]), **more.pop("spec", {})}
    status = {"phase": more.pop("phase", "Running"), **({"podIP": address} if address else {})}
    metadata = {"name": name, "namespace": namespace, "labels": more.pop("labels", {"app": name})}
    assert not more
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def policy(name: str, namespace: str = "shop", **spec: Any) -> Document:
    spec.setdefault("podSelector", {})
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def program(documents: Sequence[Document], node: str | None = None) -> Program:
    context = NodeContext(name=node)
    return lower(Facts(context, policies=resolve_policy(manifests(documents), context)))


def by_direction(program: Program, direction: Direction) -> list[Enforcement]:
    return [e for e in program.enforcements if e.direction is direction]


def test_two_running_pods_with_one_address_are_an_error() -> None:
    with pytest.raises(InputError, match=r"Pod shop/b .* has the same address as Pod shop/a"):
        program([pod("a", "10.0.0.1"), pod("b", "10.0.0.1")])
    gone = pod("b", "10.0.0.1", phase="Succeeded")
    on_host = pod("c", "10.0.0.1", spec={"hostNetwork": True})
    program([pod("a", "10.0.0.1"), gone, on_host, pod("d", None)])


def test_domain_names_are_refused_by_name() -> None:
    spec = {
        "tier": "Admin",
        "priority": 1,
        "subject": {"namespaces": {}},
        "egress": [{"action": "Accept", "to": [{"domainNames": ["example.com"]}]}],
    }
    version = "policy.networking.k8s.io/v1alpha2"
    document = {
        "apiVersion": version,
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "p"},
        "spec": spec,
    }
    with pytest.raises(InputError, match="domainNames"):
        manifests([document])


def test_a_program_covers_exactly_the_pods_of_its_node() -> None:
    documents = [
        pod("a", "10.0.1.1"),
        pod("b", "10.0.2.1", node="n2"),
        pod("c", "10.0.3.1", node=""),
        policy("p"),
    ]
    all_pods = {"n1": ["10.0.1.1"], "n2": ["10.0.2.1"], "n3": [], None: ["10.0.1.1", "10.0.2.1", "10.0.3.1"]}
    for node, expected in all_pods.items():
        pods = [str(p) for e in program(documents, node).enforcements for p in e.pods]
        assert sorted(pods) == expected


def test_pods_that_policy_treats_alike_share_an_enforcement_and_peers_a_set() -> None:
    rule = {"from": [{"podSelector": {"matchLabels": {"app": "a"}}}], "ports": [{"port": 80}]}
    documents = [*(pod(f"p{i}", f"10.0.0.{i}", labels={"app": "ab"[i % 2]}) for i in range(1, 21))]
    documents += [policy("one", ingress=[rule]), policy("two", ingress=[{**rule, "ports": [{"port": 81}]}])]
    done = run_passes(program(documents))
    (enforcement,) = done.enforcements
    assert len(enforcement.pods) == 20
    assert [[tuple(p) for p in r.ports] for r in enforcement.rules] == [[(80, 81)]]
    assert len(done.sets) == 1
    assert [o.name for o in enforcement.origins] == ["one", "two"]


def test_names_stay_when_pods_come_and_go() -> None:
    rule = {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}
    web = [pod(f"w{i}", f"10.0.0.{i}", labels={"app": "web"}) for i in range(1, 5)]
    db = pod("db", "10.0.9.1")
    about_db = policy("p", podSelector={"matchLabels": {"app": "db"}}, ingress=[rule])
    before, after = (lower_policies_of([*web[:n], db, about_db]) for n in (2, 4))
    assert [s.name for s in before.sets] == [s.name for s in after.sets]
    assert [e.name for e in before.enforcements] == [e.name for e in after.enforcements]
    assert before.sets != after.sets


def lower_policies_of(documents: Sequence[Document]) -> Program:
    context = NodeContext()
    parts = lower_policies(Facts(context, policies=resolve_policy(manifests(documents), context)))
    return Program(sets=parts.sets, enforcements=parts.enforcements)


def test_nothing_depends_on_the_order_of_documents() -> None:
    documents = [
        pod("a", "10.0.0.1"),
        pod("b", "10.0.0.2"),
        policy("p", ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]),
        policy("q", egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]),
    ]
    assert program(documents) == program(documents[::-1])


def test_a_policy_that_selects_no_pod_of_the_node_costs_nothing() -> None:
    documents = [pod("a", "10.0.0.1"), pod("b", "10.0.0.2", node="n2", namespace="other")]
    done = program([*documents, policy("p", "other", ingress=[{"from": [{"podSelector": {}}]}])], "n1")
    assert (done.sets, done.enforcements) == ((), ())


def test_ports_of_sidecars_have_names_too_and_a_name_given_twice_is_the_first() -> None:
    containers = [
        {"name": "one", "ports": [{"name": "web", "containerPort": 80}]},
        {"name": "two", "ports": [{"name": "web", "containerPort": 81}]},
    ]
    sidecar = {"name": "s", "restartPolicy": "Always", "ports": [{"name": "proxy", "containerPort": 15001}]}
    init = {"name": "i", "ports": [{"name": "setup", "containerPort": 99}]}
    one = pod("a", "10.0.0.1", containers=containers, spec={"initContainers": [sidecar, init]})
    ports = [{"port": "web"}, {"port": "proxy"}, {"port": "setup"}]
    (enforcement,) = program([one, policy("p", ingress=[{"ports": ports}])]).enforcements
    assert [[tuple(p) for p in r.ports] for r in enforcement.rules] == [[(80, 80), (15001, 15001)]]


def test_peers_are_the_fewest_prefixes_with_excepts_cut_out() -> None:
    block = {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/9", "10.128.0.0/10", "10.192.0.3/32"]}
    pods = [pod(f"p{i}", f"10.1.0.{i}") for i in range(8)]
    peers = [{"ipBlock": block}, {"podSelector": {}}]
    (one,) = program([*pods, policy("p", ingress=[{"from": peers}])]).sets
    texts = [prefix_text(Family.IPV4, p) for p in one.prefixes]
    assert texts[:4] == ["10.1.0.0/29", "10.192.0.0/31", "10.192.0.2", "10.192.0.4/30"]
    assert texts[-1] == "10.224.0.0/11"


@pytest.mark.parametrize("peer", [{}, {"podSelector": None}])
def test_an_empty_peer_is_refused(peer: Document) -> None:
    with pytest.raises(InputError, match="empty peer"):
        manifests([policy("p", ingress=[{"from": [peer]}])])


def test_a_family_that_is_left_out_leaves_no_protected_pod_open() -> None:
    one = pod("a", "10.0.0.1")
    one["status"]["podIPs"] = [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]
    only_ipv4 = NodeContext(families=(Family.IPV4,))
    with pytest.raises(InputError, match=r"protects fd00::1, and IPv6 is left out.*ipv6 to --ip-families"):
        resolve_policy(manifests([one, policy("p")]), only_ipv4)
    assert resolve_policy(manifests([one, policy("p", "elsewhere")]), only_ipv4) == ()
