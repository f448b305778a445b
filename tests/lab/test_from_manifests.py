"""Topologies from manifests: everything is where its address says, and what is left out is filled in."""

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from k8snetc.compiler.manifests import read
from k8snetc.ir.types import Protocol
from k8snetc.lab.from_manifests import topology_of
from k8snetc.lab.topology import Client, Node, Pod, Port, Topology, TopologyError

TCP, UDP = Protocol.TCP, Protocol.UDP
Make = Callable[[str], Topology]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(text: str) -> Topology:
        (tmp_path / "all.yaml").write_text(text)
        return topology_of(read([str(tmp_path)]))

    return make


NODES = """
{apiVersion: v1, kind: Node, metadata: {name: w2}, spec: {podCIDRs: [10.244.2.0/24, "fd44:2::/64"]},
 status: {addresses: [{type: InternalIP, address: 172.18.0.2}, {type: Hostname, address: w2}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: w1}, spec: {podCIDR: 10.244.1.0/24},
 status: {addresses: [{type: InternalIP, address: 172.18.0.1}, {type: ExternalIP, address: 198.18.0.1}]}}
---
"""
PODS = """
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop}
spec:
  nodeName: w2
  containers: [{name: c, ports: [{containerPort: 8080}, {containerPort: 53, protocol: UDP}]}]
status: {phase: Running, podIPs: [{ip: 10.244.2.5}, {ip: "fd44:2::5"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: done, namespace: shop}
spec: {nodeName: w2, containers: [{name: c}]}
status: {phase: Succeeded, podIP: 10.244.2.5}
---
apiVersion: v1
kind: Pod
metadata: {name: starting, namespace: shop}
spec: {nodeName: w2, containers: [{name: c}]}
status: {phase: Pending}
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: kube-system}
spec: {nodeName: w1, hostNetwork: true, containers: [{name: c, ports: [{containerPort: 9100}]}]}
status: {phase: Running, podIP: 172.18.0.1}
---
"""
SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- {addresses: [10.244.2.5], nodeName: w2}
- {addresses: [10.244.1.7]}
- {addresses: [172.18.0.2]}
- {addresses: [192.168.77.7]}
ports: [{name: http, port: 8080}, {name: m, port: 9090}]
---
"""


def test_everything_is_where_its_address_says(make: Make) -> None:
    topology = make(NODES + PODS + SLICE)
    http, metrics = Port(TCP, 8080), Port(TCP, 9090)
    assert [n.name for n in topology.nodes] == ["w1", "w2"]
    assert topology.node_by_name["w1"].addresses == (ip_address("172.18.0.1"), ip_address("198.18.0.1"))
    assert topology.places["pod/shop/web-0"] == Pod(
        "shop",
        "web-0",
        "w2",
        (ip_address("10.244.2.5"), ip_address("fd44:2::5")),
        (http, metrics, Port(UDP, 53)),
    )
    assert topology.places["pod/shop/10-244-1-7"] == Pod(
        "shop", "10-244-1-7", "w1", (ip_address("10.244.1.7"),), (http, metrics)
    )
    assert topology.node_by_name["w2"].ports == (http, metrics), "an endpoint that is a node's address"
    assert topology.places["client/192-168-77-7"] == Client(
        "192-168-77-7", (ip_address("192.168.77.7"),), ports=(http, metrics)
    )
    assert topology.home("pod/kube-system/host") == "node/w1"
    assert "pod/shop/done" not in topology.places
    assert "pod/shop/starting" not in topology.places


def test_without_nodes_one_hosts_every_pod(make: Make) -> None:
    topology = make(PODS + SLICE)
    (node,) = topology.nodes
    assert node.place == "node/lab"
    assert {a.version for a in node.addresses} == {4, 6}
    assert {p.node for p in topology.pods} == {"lab"}
    assert "pod/shop/192-168-77-7" in topology.places


def test_the_outside_client_has_an_address_in_every_source_range(make: Make) -> None:
    service = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 192.0.2.100
  ports: [{port: 80}]
  loadBalancerSourceRanges: [198.51.100.128/25, 192.0.2.0/24, 0.0.0.0/0, 203.0.113.7/32, "2001:db8:7::/48"]
"""
    client = make(NODES + service).places["client/outside"]
    assert [str(a) for a in client.addresses] == [
        "192.0.2.101",
        "2001:db8:1ab::64",
        "198.51.100.129",
        "2001:db8:7::1",
    ]


def test_host_network_pods_of_one_node_share_its_ports(make: Make) -> None:
    twin = PODS.split("---")[3].replace("name: host", "name: twin")
    topology = make(PODS + twin)
    assert topology.places["pod/kube-system/host"].ports == (Port(TCP, 9100),)
    assert topology.places["pod/kube-system/twin"].ports == ()


def test_contradictions_are_told(make: Make) -> None:
    with pytest.raises(TopologyError, match=r"pod/shop/web-0: there is no node 'w2'"):
        make(NODES.split("---")[1] + "---" + PODS)


def test_no_manifest_is_a_lab_of_one_node(make: Make) -> None:
    topology = make("{apiVersion: v1, kind: Namespace, metadata: {name: x}}")
    assert [type(p) for p in topology.all] == [Node, Client]
