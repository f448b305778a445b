"""Packets that no socket would send, and what passes an interface."""

import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address

import pytest

from k8snetc.ir.types import Family
from k8snetc.lab import packets
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.raw import Captured
from k8snetc.lab.sessions import Capture
from tests.support.lab import TCP, UDP

pytestmark = pytest.mark.kernel


def has(seen: Sequence[Captured], wanted: Callable[[Captured], bool]) -> bool:
    return any(wanted(p) for p in seen)


def settle(capture: Capture) -> tuple[Captured, ...]:
    time.sleep(0.5)
    return capture.stop()


@pytest.mark.parametrize("family", Family)
def test_a_syn_by_hand_is_answered_by_the_kernel(shared_cluster: Cluster, family: Family) -> None:
    a, c = (shared_cluster.topology.address(p, family) for p in ("pod/shop/a", "pod/shop/c"))
    assert a is not None
    assert c is not None
    syn = packets.tcp((a, 4000), (c, 8080), packets.SYN, sequence=7)
    with shared_cluster.capture("node/w1", shared_cluster.interface("pod/shop/a")) as capture:
        shared_cluster.inject("pod/shop/a", syn)
        seen = settle(capture)
    offset = 20 if family is Family.IPV4 else 40
    assert has(seen, lambda p: p.data[offset : offset + 20] == syn[offset:] and not p.outgoing)
    flags = packets.SYN | packets.ACK
    assert has(seen, lambda p: p.outgoing and p.data[offset + 13 : offset + 14] == bytes([flags]))


@pytest.mark.parametrize("family", Family)
def test_a_datagram_by_hand_is_answered_by_the_server(shared_cluster: Cluster, family: Family) -> None:
    a, c = (shared_cluster.topology.address(p, family) for p in ("pod/shop/a", "pod/shop/c"))
    assert a is not None
    assert c is not None
    with shared_cluster.capture("pod/shop/a") as capture:
        shared_cluster.inject("pod/shop/a", packets.udp((a, 4000), (c, 5353), b"by hand"))
        seen = settle(capture)
    assert has(seen, lambda p: b"pod/shop/c" in p.data and p.data.endswith(b"by hand"))


def test_an_invalid_segment_is_forwarded_without_rules_and_dropped_by_one(shared_cluster: Cluster) -> None:
    a, c = (ip_address("10.244.1.2"), 4000), (ip_address("10.244.2.2"), 8080)
    # An answer to nothing: the connection table calls it invalid once it is strict.
    shared_cluster.sysctl("node/w1", "net/netfilter/nf_conntrack_tcp_loose", "0")
    stray = packets.tcp(a, c, packets.ACK, sequence=1, acknowledged=1)

    def arrives() -> bool:
        with shared_cluster.capture("pod/shop/c") as capture:
            shared_cluster.inject("pod/shop/a", stray)
            return has(settle(capture), lambda p: p.data[20:] == stray[20:] and not p.outgoing)

    try:
        assert arrives()
        shared_cluster.run(
            "node/w1", ["iptables", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"]
        )
        assert not arrives()
        assert shared_cluster.probe("pod/shop/a", c[0], 8080, TCP, timeout=0.9).answered
        assert shared_cluster.probe("pod/shop/a", c[0], 5353, UDP, timeout=0.9).answered
    finally:
        shared_cluster.sysctl("node/w1", "net/netfilter/nf_conntrack_tcp_loose", "1")
