"""`--assume-addresses`: complete, stable, independent of order, and true to what the manifests say."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from k8snetc.compiler import assume as module
from k8snetc.compiler.assume import assume
from k8snetc.compiler.diagnostics import InputError
from k8snetc.compiler.load import documents
from k8snetc.compiler.manifests import Manifests, read, validate

CORPUS = Path(__file__).parent.parent / "corpus"

Raw = dict[str, object]


def manifests(*objects: Raw) -> Manifests:
    """The manifests of these objects."""
    return validate(documents([("a.yaml", yaml.safe_dump_all(objects).encode())]))


def assumed(*objects: Raw) -> Manifests:
    """The same with assumed addresses."""
    return assume(manifests(*objects))


def deployment(name: str, replicas: int = 1, kind: str = "Deployment", **pod: object) -> Raw:
    labels = {"app": name}
    port = {"name": "http", "containerPort": 8080}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"ports": [port]}], **pod}},
        },
    }


def service(name: str, **spec: object) -> Raw:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}], **spec},
    }


def node(name: str, **rest: object) -> Raw:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, **rest}


def addresses(m: Manifests) -> dict[str, tuple[str, ...]]:
    """All addresses and NodePorts, by object."""
    found = {f"pod {p.metadata.name}": tuple(map(str, p.addresses)) for p in m.pods}
    found |= {f"node {n.metadata.name}": tuple(map(str, (*n.ips, *n.pod_networks))) for n in m.nodes}
    for s in m.services:
        ports = tuple(str(p.node_port) for p in s.spec.ports)
        ingress = tuple(str(i.ip) for i in s.status.load_balancer.ingress)
        found[f"service {s.metadata.name}"] = (*map(str, s.spec.cluster_ips), *ports, *ingress)
    return found


def test_the_corpus() -> None:
    m = assume(read([str(CORPUS)]))
    assert m.assumed
    assert len(m.pods) == 39
    assert all(p.addresses and p.spec.node_name == "assumed-node" for p in m.pods)
    assert all(
        s.spec.cluster_ips for s in m.services if not s.spec.headless and s.spec.type != "ExternalName"
    )
    backed = {(s.metadata.namespace, s.service) for s in m.endpoint_slices if s.endpoints}
    # A metrics service whose pods another tool makes has no endpoints; all others have.
    assert {s.metadata.name for s in m.services if (s.metadata.namespace, s.metadata.name) not in backed} == {
        "alertmanager-main",
        "prometheus-k8s",
    }
    (frontend,) = (s for s in m.services if s.metadata.name == "frontend-external")
    assert frontend.spec.ports[0].node_port in range(30000, 32768)
    assert frontend.status.load_balancer.ingress[0].ip in ip_network("198.19.0.0/16")


def test_a_web_shop() -> None:
    m = assumed(deployment("web", 3), service("web", type="LoadBalancer", externalTrafficPolicy="Local"))
    assert [p.metadata.name for p in m.pods] == ["web-0", "web-1", "web-2"]
    assert {p.metadata.labels["app"] for p in m.pods} == {"web"}
    (web,) = m.services
    (port,) = web.spec.ports
    health = web.spec.health_check_node_port
    assert web.spec.cluster_ips[0] in module.SERVICES[0]
    assert web.spec.cluster_ip == str(web.spec.cluster_ips[0])
    assert port.node_port in range(30000, 32768)
    assert health in range(30000, 32768)
    assert health != port.node_port
    (part,) = m.endpoint_slices
    assert part.service == "web"
    assert [p.port for p in part.ports] == [8080]
    assert {e.addresses for e in part.endpoints} == {p.addresses for p in m.pods}
    assert all(e.conditions.settled[0] and e.node_name == "assumed-node" for e in part.endpoints)
    (host,) = m.nodes
    assert all(ip in host.pod_networks[0] for p in m.pods for ip in p.addresses)
    assert m.pods[0].origin.file == "a.yaml"
    assert m.pods[0].origin.kind == "Pod"


NAMES = [f"app-{i}" for i in range(12)]


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.sets(st.sampled_from(NAMES)))
def test_order_does_not_matter_and_others_keep_their_addresses(rng: random.Random, gone: set[str]) -> None:
    objects = [o for name in NAMES for o in (deployment(name, 2), service(name, type="NodePort"))]
    objects += [node(f"n{i}") for i in range(3)]
    before = addresses(assumed(*objects))
    rng.shuffle(objects)
    assert addresses(assumed(*objects)) == before
    kept = [o for o in objects if o["metadata"] != {"name": next(iter(gone), "")}]
    after = addresses(assumed(*kept))
    # No two of these identities want the same address, so nothing moves at all.
    assert after.items() <= before.items()


def test_a_new_node_moves_only_the_pods_that_it_gets() -> None:
    objects = [deployment(name, 4) for name in NAMES]
    before = assumed(*objects, node("n0"), node("n1"), node("n2"))
    after = assumed(*objects, node("n0"), node("n1"), node("n2"), node("n3"))
    old = {p.metadata.name: (p.spec.node_name, p.addresses) for p in before.pods}
    new = {p.metadata.name: (p.spec.node_name, p.addresses) for p in after.pods}
    moved = {name for name in old if old[name] != new[name]}
    assert moved
    assert {new[name][0] for name in moved} == {"n3"}


def test_what_is_given_is_kept() -> None:
    pod: Raw = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-0", "labels": {"app": "web"}},
        "spec": {"nodeName": "n9"},
        "status": {"podIP": "172.16.0.9", "phase": "Running"},
    }
    given_slice: Raw = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "db-x", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["172.16.0.7"]}],
        "ports": [{"port": 5432}],
    }
    spec = {"type": "NodePort", "clusterIP": "172.20.0.1", "ports": [{"port": 80, "nodePort": 31000}]}
    m = assumed(
        pod,
        given_slice,
        deployment("web", 3),
        service("web", **spec),
        service("db"),
        node("n9", status={"addresses": [{"type": "InternalIP", "address": "10.1.1.1"}]}),
    )
    assert [(p.metadata.name, p.addresses) for p in m.pods] == [("web-0", (ip_address("172.16.0.9"),))]
    web = m.services[0]
    assert web.spec.cluster_ips == (ip_address("172.20.0.1"),)
    assert web.spec.ports[0].node_port == 31000
    assert [s.metadata.name for s in m.endpoint_slices] == ["db-x", "web-ipv4-0"]
    assert m.nodes[0].ips == (ip_address("10.1.1.1"),)
    assert len(m.nodes[0].pod_networks) == 1
    assert m.nodes[0].pod_networks[0].subnet_of(module.PODS[0])  # type: ignore[arg-type]  # both are IPv4


def test_dual_stack() -> None:
    m = assumed(deployment("web"), service("web", ipFamilyPolicy="RequireDualStack"), service("old"))
    web, old = m.services
    assert [ip.version for ip in web.spec.cluster_ips] == [4, 6]
    assert web.spec.cluster_ips[1] in module.SERVICES[1]
    assert [ip.version for ip in old.spec.cluster_ips] == [4]
    assert [ip.version for ip in m.pods[0].addresses] == [4, 6]
    assert {s.address_type for s in m.endpoint_slices if s.service == "web"} == {"IPv4", "IPv6"}


def test_host_network_pods_have_their_nodes_address() -> None:
    m = assumed(deployment("agent", kind="DaemonSet", hostNetwork=True), node("n0"), node("n1"))
    assert {p.metadata.name: p.addresses for p in m.pods} == {
        "agent-n0": m.nodes[0].ips,
        "agent-n1": m.nodes[1].ips,
    }


def test_a_named_port_with_other_numbers_in_other_pods() -> None:
    other = deployment("web-b")
    template = other["spec"]["template"]  # type: ignore[index]  # it is the dict made above
    template["metadata"]["labels"] = {"app": "web"}
    template["spec"]["containers"][0]["ports"][0]["containerPort"] = 9090
    m = assumed(deployment("web"), other, service("web"))
    assert [(s.metadata.name, s.ports[0].port, len(s.endpoints)) for s in m.endpoint_slices] == [
        ("web-ipv4-0", 8080, 1),
        ("web-ipv4-1", 9090, 1),
    ]


def test_owned_workloads_make_no_pods_of_their_own() -> None:
    owned = deployment("web-5d8f", 2, kind="ReplicaSet")
    owned["metadata"] = {"name": "web-5d8f", "ownerReferences": [{"kind": "Deployment", "name": "web"}]}
    m = assumed(deployment("web", 2), owned)
    assert [p.metadata.name for p in m.pods] == ["web-0", "web-1"]


def test_jobs() -> None:
    template = {"metadata": {"labels": {"app": "j"}}, "spec": {"containers": [{}]}}
    job: Raw = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": "once-"},
        "spec": {"parallelism": 3, "completions": 2, "template": template},
    }
    cron: Raw = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "daily"},
        "spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": template}}},
    }
    assert [p.metadata.name for p in assumed(job, cron).pods] == ["daily-0", "once-0", "once-1"]


def test_services_that_need_no_address() -> None:
    m = assumed(
        service("headless", clusterIP="None"),
        {**service("out"), "spec": {"type": "ExternalName", "externalName": "example.org"}},
    )
    assert [s.spec.cluster_ips for s in m.services] == [(), ()]


def test_a_pool_that_is_full_says_so() -> None:
    cidr = {"podCIDR": "10.0.0.0/29"}
    full = assumed(node("n0", spec=cidr), deployment("web", 6))
    assert len({ip for p in full.pods for ip in p.addresses}) == 6
    with pytest.raises(InputError, match="more than the 6 pod addresses of n0"):
        assumed(node("n0", spec=cidr), deployment("web", 7))
