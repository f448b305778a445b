"""Flags and the configuration file, and the context they make with Node objects."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from k8snetc.compiler.context import node_context
from k8snetc.compiler.diagnostics import InputError
from k8snetc.compiler.manifests import Manifests, read
from k8snetc.compiler.options import (
    FLAGS,
    ContextOptions,
    DetectLocal,
    NodePortAddresses,
    node_options,
    read_config,
)
from k8snetc.ir.types import Family, FromInterface, PortRange, SourceIn

NODES = """
apiVersion: v1
kind: Node
metadata: {name: a, labels: {topology.kubernetes.io/zone: z1}}
spec: {podCIDR: 10.244.0.0/24, podCIDRs: [10.244.0.0/24, "fd00:1::/64"]}
status:
  addresses:
  - {type: Hostname, address: a}
  - {type: InternalIP, address: 192.0.2.1}
  - {type: InternalIP, address: "fd00::1"}
---
apiVersion: v1
kind: Node
metadata: {name: b}
spec: {podCIDR: 10.244.1.0/24}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
"""


@pytest.fixture(name="cluster")
def _cluster(tmp_path: Path) -> Manifests:
    path = tmp_path / "nodes.yaml"
    path.write_text(NODES)
    return read([str(path)])


def run(*args: str) -> tuple[int, ContextOptions | None, str]:
    """Exit code, options and output of a command with these arguments."""
    got: list[ContextOptions] = []

    @click.command()
    @node_options
    def command(options: ContextOptions) -> None:
        """Keep what came."""
        got.append(options)

    result = CliRunner().invoke(command, list(args))
    if isinstance(result.exception, InputError):
        raise result.exception
    return result.exit_code, got[0] if got else None, result.output


def test_nothing_given() -> None:
    assert run() == (0, ContextOptions(), "")


def test_every_flag() -> None:
    code, options, output = run(
        "--node=a",
        "--node-address=192.0.2.9,fd00::9",
        "--cluster-cidr=10.244.0.0/16",
        "--cluster-cidr=fd00:1::/48",
        "--service-cidr=10.96.0.0/12",
        "--nodeport-addresses=192.0.2.0/24",
        "--service-node-port-range=30000-30100",
        "--masquerade-all",
        "--detect-local-mode=NodeCIDR",
        "--pod-bridge-interface=cni0",
        "--pod-interface-name-prefix=veth",
        "--no-localhost-nodeports",
        "--conntrack-tcp-be-liberal",
        "--ip-families=ipv6,ipv4",
    )
    assert (code, output) == (0, "")
    assert options == ContextOptions(
        node="a",
        node_address=(ip_address("192.0.2.9"), ip_address("fd00::9")),
        cluster_cidr=(ip_network("10.244.0.0/16"), ip_network("fd00:1::/48")),
        service_cidr=(ip_network("10.96.0.0/12"),),
        nodeport_addresses=NodePortAddresses((ip_network("192.0.2.0/24"),)),
        service_node_port_range=PortRange(30000, 30100),
        masquerade_all=True,
        detect_local_mode=DetectLocal.NODE_CIDR,
        pod_bridge_interface="cni0",
        pod_interface_name_prefix="veth",
        localhost_nodeports=False,
        conntrack_tcp_be_liberal=True,
        ip_families=(Family.IPV4, Family.IPV6),
    )


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("--cluster-cidr=10.0.0.0", "'10.0.0.0' is no CIDR block"),
        ("--cluster-cidr=", "names no CIDR block"),
        ("--node-address=1.2.3", "'1.2.3' is no IP address"),
        ("--service-node-port-range=40000-30000", "lower end first"),
        ("--service-node-port-range=all", "is no range of ports"),
        ("--detect-local-mode=Guess", "is not one of ClusterCIDR"),
        ("--pod-bridge-interface=a-name-too-long-for-linux", "is no interface name"),
        ("--ip-families=ipv5", "'ipv5' is neither ipv4 nor ipv6"),
        ("--node=", "it is empty"),
    ],
)
def test_bad_flags_are_refused(argument: str, complaint: str) -> None:
    code, options, output = run(argument)
    assert (code, options) == (2, None)
    assert complaint in " ".join(output.split())


def test_every_flag_has_help() -> None:
    _, _, output = run("--help")
    text = " ".join(output.split())
    assert all(f"--{flag.name}" in text and flag.help[:20] in text for flag in FLAGS)


def test_config_file_takes_both_spellings_and_flags_win(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "clusterCIDR: 10.244.0.0/16,fd00:1::/48\nnodeport-addresses: [192.0.2.0/24]\nmasqueradeAll: true\nnode: a\n"
    )
    _, options, _ = run("--config", str(path), "--node=b", "--no-masquerade-all")
    assert options == ContextOptions(
        node="b",
        cluster_cidr=(ip_network("10.244.0.0/16"), ip_network("fd00:1::/48")),
        nodeport_addresses=NodePortAddresses((ip_network("192.0.2.0/24"),)),
        masquerade_all=False,
    )


def test_every_error_of_a_config_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "clusterCIRD: 10.0.0.0/8\nmasquerade-all: maybe\nservice-cidr: 10.0.0.300/8\nnode: a\nNODE: b\n"
    )
    with pytest.raises(InputError) as caught:
        read_config(str(path))
    assert [str(d).removeprefix(f"{path}:") for d in caught.value.diagnostics] == [
        "1: no option is named 'clusterCIRD'; did you mean cluster-cidr?",
        "2: masquerade-all: 'maybe' is neither true nor false; write masquerade-all: true or false",
        "3: service-cidr: '10.0.0.300/8' is no CIDR block, as 10.0.0.0/8; write service-cidr: CIDR[,CIDR]",
        "5: option node is there twice; keep one of the two",
    ]


def test_missing_config_file() -> None:
    with pytest.raises(InputError, match="no such file"):
        read_config("/nonexistent/config.yaml")


def test_named_node(cluster: Manifests) -> None:
    context = node_context(cluster, ContextOptions(node="a"))
    assert context.name == "a"
    assert context.zone == "z1"
    assert context.addresses == (ip_address("192.0.2.1"), ip_address("fd00::1"))
    assert context.pod_networks == (ip_network("10.244.0.0/24"), ip_network("fd00:1::/64"))
    assert context.detector == SourceIn((ip_network("10.244.0.0/23"), ip_network("fd00:1::/64")))
    assert context.families == (Family.IPV4, Family.IPV6)
    assert context.drop_invalid


def test_node_that_hosts_every_pod(cluster: Manifests) -> None:
    context = node_context(cluster)
    assert context.name is None
    assert not context.zone
    assert [str(a) for a in context.addresses] == ["192.0.2.1", "fd00::1", "192.0.2.2"]
    assert context.pod_networks == (ip_network("10.244.0.0/23"), ip_network("fd00:1::/64"))


def test_unknown_node_names_the_known_ones(cluster: Manifests) -> None:
    with pytest.raises(InputError, match="no node is named 'c'; the manifests have a, b"):
        node_context(cluster, ContextOptions(node="c"))


def test_a_name_alone_will_do_where_no_node_is_known() -> None:
    assert node_context(Manifests(), ContextOptions(node="c")).name == "c"
    assert node_context(Manifests()).families == (Family.IPV4,)


def test_cluster_cidr_none(cluster: Manifests) -> None:
    assert node_context(cluster, ContextOptions(cluster_cidr=())).detector is None
    assert node_context(Manifests()).detector is None


def test_ways_to_detect(cluster: Manifests) -> None:
    options = ContextOptions(node="b", detect_local_mode=DetectLocal.NODE_CIDR)
    assert node_context(cluster, options).detector == SourceIn((ip_network("10.244.1.0/24"),))
    options = ContextOptions(detect_local_mode=DetectLocal.BRIDGE_INTERFACE, pod_bridge_interface="cni0")
    assert node_context(cluster, options).detector == FromInterface("cni0", prefix=False)
    options = ContextOptions(
        detect_local_mode=DetectLocal.INTERFACE_NAME_PREFIX, pod_interface_name_prefix="veth"
    )
    assert node_context(cluster, options).detector == FromInterface("veth", prefix=True)
    for mode in (DetectLocal.NODE_CIDR, DetectLocal.BRIDGE_INTERFACE, DetectLocal.INTERFACE_NAME_PREFIX):
        with pytest.raises(InputError, match=f"{mode} needs"):
            node_context(Manifests(), ContextOptions(detect_local_mode=mode))


def test_primary_nodeport_addresses(cluster: Manifests) -> None:
    options = ContextOptions(node="a", nodeport_addresses=NodePortAddresses(primary=True))
    assert node_context(cluster, options).nodeport_networks == (
        ip_network("192.0.2.1/32"),
        ip_network("fd00::1/128"),
    )
    with pytest.raises(InputError, match="primary needs the node's addresses"):
        node_context(Manifests(), replace(options, node=None))


def test_node_ports_out_of_range(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n"
        "spec: {type: NodePort, ports: [{port: 80, nodePort: 8080}]}\n"
    )
    m = read([str(path)])
    with pytest.raises(
        InputError, match=r"a\.yaml:1: spec\.ports\[0\]\.nodePort: 8080 is not in 30000-32767"
    ):
        node_context(m)
    assert (
        node_context(m, ContextOptions(service_node_port_range=PortRange(8000, 9000))).nodeport_range.first
        == 8000
    )


def test_what_another_mode_needs_is_refused(cluster: Manifests) -> None:
    for options, flag in (
        (ContextOptions(pod_bridge_interface="cni0"), "--pod-bridge-interface"),
        (ContextOptions(pod_interface_name_prefix="veth"), "--pod-interface-name-prefix"),
    ):
        with pytest.raises(
            InputError, match=f"{flag}: '.*' means nothing with --detect-local-mode=ClusterCIDR"
        ):
            node_context(cluster, options)


KUBE_PROXY = """
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: 0.0.0.0
clientConnection: {kubeconfig: /var/lib/kube-proxy/kubeconfig.conf}
clusterCIDR: 10.244.0.0/16,fd00:1::/48
hostnameOverride: ""
mode: %s
nodePortAddresses: %s
detectLocalMode: InterfaceNamePrefix
detectLocal: {bridgeInterface: "", interfaceNamePrefix: veth}
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, syncPeriod: 0s}
ipvs: {scheduler: "", strictARP: false}
nftables: {masqueradeAll: true}
conntrack: {maxPerCore: null, tcpBeLiberal: true}
"""


def test_kube_proxys_own_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.conf"
    path.write_text(KUBE_PROXY % ('""', "null"))
    expected: dict[str, object] = {
        "cluster_cidr": (ip_network("10.244.0.0/16"), ip_network("fd00:1::/48")),
        "detect_local_mode": DetectLocal.INTERFACE_NAME_PREFIX,
        "pod_interface_name_prefix": "veth",
        "masquerade_all": False,
        "conntrack_tcp_be_liberal": True,
    }
    assert read_config(str(path)) == expected
    path.write_text(KUBE_PROXY % ("nftables", "[primary]"))
    addresses = NodePortAddresses(primary=True)
    assert read_config(str(path)) == {**expected, "masquerade_all": True, "nodeport_addresses": addresses}


def test_errors_in_kube_proxys_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.conf"
    path.write_text(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclusterCIDr: 10.0.0.0/8\n"
        "clusterCIDR: ten\niptables: yes-please\ndetectLocal:\n  bridge: cni0\nconntrack:\n  tcpBeLiberal: 7\n"
    )
    with pytest.raises(InputError) as caught:
        read_config(str(path))
    assert [(d.line, d.what) for d in caught.value.diagnostics] == [
        (3, "clusterCIDr is no field of KubeProxyConfiguration"),
        (4, "clusterCIDR: 'ten' is no CIDR block, as 10.0.0.0/8"),
        (5, "iptables: 'yes-please' is no mapping"),
        (7, "detectLocal.bridge is no field of KubeProxyConfiguration"),
        (9, "conntrack.tcpBeLiberal: 7 is neither true nor false"),
    ]
    path.write_text("apiVersion: kubeproxy.config.k8s.io/v1alpha2\nkind: KubeProxyConfiguration\n")
    with pytest.raises(InputError, match="v1alpha2 KubeProxyConfiguration is not known"):
        read_config(str(path))
