"""A protected pod whose interface has no programs is refused, by name; one that is not here (yet) is not in the way."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from k8snetc.backends.base import Gap, UnsupportedError
from k8snetc.backends.common.ways import ways
from k8snetc.backends.ebpf.install import target
from k8snetc.backends.ebpf.node import Device, Facts, Sites
from k8snetc.backends.ebpf.uncovered import gaps
from k8snetc.backends.target import InstallOptions
from k8snetc.ir.types import Address, Family, Program
from k8snetc.lab.cluster import Cluster
from tests.backends.ebpf import support

POD, OTHER = ip_address("10.244.1.2"), ip_address("fd44:1::2")
OPTIONS = InstallOptions(no_cgroup=True)


def device(index: int, name: str, kind: str = "", master: int = 0) -> Device:
    return Device(index, name, kind, bytes(6), 772 if name == "lo" else 1, master=master)


LO, ETH0, VETH = device(1, "lo"), device(2, "eth0"), device(3, "cali1", "veth")


def found(*devices: Device, at: int, covered: tuple[Device, ...] = (VETH,)) -> list[Gap]:
    facts = Facts((LO, ETH0, VETH, *devices), (), (), 0, (32768, 60999))
    return list(gaps({POD: None, OTHER: None}, {POD: at, OTHER: at}, facts, Sites((ETH0,), covered, None)))


@pytest.mark.parametrize("kind", ["tun", "netkit", "ipvlan", "macvlan", "veth", "", "dummy"])
def test_a_pod_behind_an_interface_without_programs_is_a_gap(kind: str) -> None:
    (gap,) = found(device(7, "tap0", kind), at=7)
    assert "10.244.1.2 and 1 more" in gap.what
    assert "tap0" in gap.what
    assert "--pod-interface, tap0 among them" in gap.hint


def test_a_pattern_that_fits_nothing_is_a_gap() -> None:
    (gap,) = found(at=VETH.index, covered=())
    assert "behind the interface cali1 (veth)" in gap.what


def test_a_switch_is_a_gap_also_if_it_is_named() -> None:
    switch = device(7, "br-int", "openvswitch")
    (gap,) = found(switch, at=7, covered=(switch,))
    assert "br-int (openvswitch)" in gap.what
    assert "leave policy to the plugin" in gap.hint


@pytest.mark.parametrize("at", [VETH, ETH0, LO])
def test_pods_that_are_covered_or_not_here_are_none(at: Device) -> None:
    assert found(at=at.index) == []
    assert found(at=99) == []


@pytest.mark.parametrize("kind", ["vxlan", "ipip", "wireguard"])
def test_a_tunnel_leads_to_another_node(kind: str) -> None:
    assert found(device(7, "vxlan.calico", kind), at=7) == []


def test_ports_of_a_bridge_count_not_the_bridge() -> None:
    bridge = device(7, "cni0", "bridge")
    mine, seen = device(8, "veth8", "veth", 7), device(9, "veth9", "veth", 7)
    others = (device(10, "vxlan0", "vxlan", 7), device(11, "dummy0", "dummy", 7), device(12, "eth1", "", 7))
    assert found(bridge, at=7) == []  # nobody is there yet
    assert found(bridge, seen, *others, at=7, covered=(seen,)) == []
    for covered in (
        (seen,),
        (seen, bridge),
    ):  # what one port sends another does not pass the bridge's own hooks
        (gap,) = found(bridge, mine, seen, *others, at=7, covered=covered)
        assert "cni0 (bridge), whose ports veth8 have no programs" in gap.what


def routes(words: list[Address]) -> dict[str, str]:
    import socket

    return {str(a): socket.if_indextoname(w) for a, w in ways(words).items()}


@pytest.mark.kernel
def test_the_kernel_is_asked_for_the_way(cluster: Cluster) -> None:
    """Both families; routes that lead nowhere, the node's own address, another node's pods."""
    run = ["ip", "route", "add", "blackhole", "10.9.0.0/24"], ["ip", "route", "add", "prohibit", "fd99::/64"]
    for words in run:
        cluster.run("node/w1", words)
    asked = [support.pod(f, n) for f in Family for n in "ac"] + [support.node_address(f, 1) for f in Family]
    asked += [ip_address(a) for a in ("10.9.0.1", "fd99::1", "127.0.0.1")]
    found = cluster.call("node/w1", routes, asked)
    for words in run:
        cluster.run("node/w1", [w.replace("add", "del") for w in words])
    assert found == {
        "10.244.1.2": "pod0",
        "fd44:1::2": "pod0",
        "10.244.2.2": "eth0",
        "fd44:2::2": "eth0",
    }


def refused(program: Program, options: InstallOptions) -> list[str]:
    """What is refused; nothing is installed."""
    one = target(options)
    try:
        one.desired(program)
    except UnsupportedError as error:
        return [f"{g.what} {g.hint}" for g in error.gaps]
    return []


@pytest.mark.kernel
def test_a_pod_that_no_program_would_see_is_refused(cluster: Cluster) -> None:
    program, services = support.policies("w1"), support.services("w1")
    assert cluster.call("node/w1", refused, program, OPTIONS) == []
    mistyped = replace(OPTIONS, pod_interfaces=("clai*",))
    (said,) = cluster.call("node/w1", refused, program, mistyped)
    assert "the pod 10.244.1.2 and 1 more: behind the interface pod0 (veth)" in said
    assert cluster.call("node/w1", refused, services, mistyped) == []  # nothing is protected
    assert cluster.call("node/w1", refused, program, replace(OPTIONS, pod_interfaces=("pod*",))) == []

    # The pod moves behind an interface that is no veth, then it is not there at all.
    tap = "10.244.1.2/32"
    cluster.run("node/w1", ["ip", "tuntap", "add", "tap9", "mode", "tap"])
    cluster.run("node/w1", ["ip", "link", "set", "tap9", "up"])
    cluster.run("node/w1", ["ip", "route", "replace", tap, "dev", "tap9"])
    try:
        (said,) = cluster.call("node/w1", refused, program, OPTIONS)
        assert "the pod 10.244.1.2: behind the interface tap9 (tun)" in said
        assert (
            cluster.call("node/w1", refused, program, replace(OPTIONS, pod_interfaces=("pod*", "tap*"))) == []
        )
        cluster.run("node/w1", ["ip", "route", "replace", "blackhole", tap])
        assert cluster.call("node/w1", refused, program, OPTIONS) == []
    finally:
        cluster.run("node/w1", ["ip", "route", "del", tap])
        cluster.run("node/w1", ["ip", "link", "del", "tap9"])
        cluster.run("node/w1", ["ip", "route", "add", tap, "dev", "pod0"])
