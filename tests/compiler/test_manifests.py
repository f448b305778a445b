"""What validation makes of manifests: defaults, and errors with their place."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from k8snetc.compiler.diagnostics import InputError
from k8snetc.compiler.manifests import LabelSelector, Manifests, Skipped, read
from k8snetc.compiler.manifests_policy import NetworkPolicySpec
from k8snetc.compiler.manifests_service import ServiceSpec


def manifests(tmp_path: Path, text: str, name: str = "a.yaml") -> Manifests:
    """The manifests of one file."""
    path = tmp_path / name
    path.write_text(text)
    return read([str(path)])


def test_service_defaults(tmp_path: Path) -> None:
    m = manifests(
        tmp_path,
        """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.7
  ports: [{port: 80}]
""",
    )
    (service,) = m.services
    assert service.metadata.namespace == "default"
    assert service.origin.line == 2
    assert service.spec.type == "ClusterIP"
    assert service.spec.cluster_ips == (ip_address("10.96.0.7"),)
    assert service.spec.ip_families == ("IPv4",)
    (port,) = service.spec.ports
    assert (port.protocol, port.target_port, port.node_port) == ("TCP", 80, 0)


def test_every_error_is_reported_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        manifests(
            tmp_path,
            """apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.0.0.300
  ports:
  - port: 80000
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p}
spec:
  ingress:
  - from:
    - {}
""",
        )
    assert [(d.line, d.what.split(":")[0]) for d in caught.value.diagnostics] == [
        (5, "spec.clusterIP"),
        (7, "spec.ports[0].port"),
        (15, "spec.ingress[0].from[0]"),
    ]


SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n"
POLICY = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n"


def spec(tmp_path: Path, text: str) -> ServiceSpec:
    """The spec of one service."""
    (service,) = manifests(tmp_path, SERVICE + text).services
    return service.spec


def policy(tmp_path: Path, text: str) -> NetworkPolicySpec:
    """The spec of one policy."""
    (found,) = manifests(tmp_path, POLICY + text).network_policies
    return found.spec


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("  {}", ("Ingress",)),
        ("  {egress: []}", ("Ingress",)),
        ("  {egress: [{}]}", ("Ingress", "Egress")),
        ("  {policyTypes: null}", ("Ingress",)),
        ("  {policyTypes: [Egress], ingress: [{}]}", ("Egress",)),
    ],
)
def test_policy_types(tmp_path: Path, text: str, types: tuple[str, ...]) -> None:
    assert policy(tmp_path, text).policy_types == types


def test_nil_selectors_differ_from_empty_ones(tmp_path: Path) -> None:
    found = policy(
        tmp_path,
        """
  podSelector: null
  ingress:
  - from:
    - podSelector: null
      namespaceSelector: {}
    - podSelector: {}
  - from: null
    ports: [{}, {port: 443}, {protocol: UDP}]
""",
    )
    first, second = found.ingress[0].from_
    assert found.pod_selector == LabelSelector()
    assert (first.pod_selector, first.namespace_selector) == (None, LabelSelector())
    assert (second.pod_selector, second.namespace_selector) == (LabelSelector(), None)
    assert found.ingress[1].from_ == ()
    assert [(p.protocol, p.port) for p in found.ingress[1].ports] == [
        ("TCP", None),
        ("TCP", 443),
        ("UDP", None),
    ]


def test_null_is_absent_and_in_text_maps_empty(tmp_path: Path) -> None:
    found = spec(
        tmp_path, "  {selector: {app: null}, clusterIP: null, type: null, ports: [{port: 80, name: null}]}"
    )
    assert found.selector == {"app": ""}
    assert (found.cluster_ip, found.type, found.ports[0].name) == ("", "ClusterIP", "")


def test_families_and_addresses(tmp_path: Path) -> None:
    both = spec(tmp_path, '  {clusterIPs: [10.96.0.1, "fd00::1"], ports: [{port: 80}]}')
    assert (both.cluster_ip, both.ip_families, both.ip_family_policy) == (
        "10.96.0.1",
        ("IPv4", "IPv6"),
        "RequireDualStack",
    )
    six = spec(tmp_path, '  {clusterIP: "fd00::1", ports: [{port: 80}]}')
    assert (six.ip_families, six.ip_family_policy) == (("IPv6",), "SingleStack")
    headless = spec(tmp_path, "  {clusterIP: None, clusterIPs: [None]}")
    assert (headless.headless, headless.cluster_ips) == (True, ())


def test_affinity_and_target_ports(tmp_path: Path) -> None:
    found = spec(
        tmp_path,
        "  {sessionAffinity: ClientIP, ports: [{port: 80, targetPort: http, name: a}, {port: 0x51, name: b}]}",
    )
    assert found.session_affinity_config.client_ip.timeout_seconds == 10800
    assert [p.target_port for p in found.ports] == ["http", 81]


def test_conditions_of_endpoints(tmp_path: Path) -> None:
    m = manifests(
        tmp_path,
        """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- addresses: [10.0.0.1]
- addresses: [10.0.0.2]
  conditions: {ready: true, serving: true, terminating: false}
- addresses: [10.0.0.3]
  conditions: {ready: false}
- addresses: [10.0.0.4]
  conditions: {ready: false, serving: true, terminating: true}
  hints: {forZones: [{name: z}], forNodes: [{name: node-1}]}
ports: [{port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: f, labels: {kubernetes.io/service-name: web}}
addressType: FQDN
endpoints: [{addresses: [example.org]}]
ports: [{port: 80}]
""",
    )
    ips, names = m.endpoint_slices
    assert ips.service == "web"
    assert names.endpoints == ()
    assert [e.conditions.settled for e in ips.endpoints] == [
        (True, True, False),
        (True, True, False),
        (False, False, False),
        (False, True, True),
    ]
    hints = ips.endpoints[3].hints
    assert hints is not None
    assert [z.name for z in hints.for_zones] + [n.name for n in hints.for_nodes] == ["z", "node-1"]


def test_namespaces_carry_their_name(tmp_path: Path) -> None:
    m = manifests(
        tmp_path,
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {kubernetes.io/metadata.name: b, c: d}}\n",
    )
    assert m.namespaces[0].metadata.labels == {"kubernetes.io/metadata.name": "a", "c": "d"}


def test_other_kinds_are_counted(tmp_path: Path) -> None:
    m = manifests(
        tmp_path,
        "{apiVersion: v1, kind: ConfigMap}\n---\n{apiVersion: v1, kind: ConfigMap}\n---\n"
        "{apiVersion: crd.projectcalico.org/v1, kind: NetworkPolicy}\n",
    )
    assert m.skipped == (
        Skipped("crd.projectcalico.org/v1", "NetworkPolicy", 1),
        Skipped("v1", "ConfigMap", 2),
    )
    assert m.network_policies == ()


def test_the_same_object_twice_counts_once(tmp_path: Path) -> None:
    text = SERVICE + "  ports: [{port: 80}]\n"
    m = manifests(tmp_path, f"{text}---\n{text}  selector: {{}}\n")
    assert len(m.services) == 1


def test_doubts_are_warnings(tmp_path: Path) -> None:
    m = manifests(
        tmp_path,
        f"{SERVICE}  ports:\n  - port: 80\n    targetport: 8080\n  selectr: {{}}\n",
    )
    assert [(d.line, d.what.split(":")[0], d.fix) for d in m.warnings] == [
        (7, "a Service has no field 'targetport' there", "did you mean targetPort?"),
        (8, "a Service has no field 'selectr' there", "did you mean selector?"),
    ]


def test_the_namespace_of_objects_that_name_none(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(SERVICE + "  ports: [{port: 80}]\n")
    assert read([str(path)], namespace="shop").services[0].metadata.namespace == "shop"
