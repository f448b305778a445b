"""Flows and traffic generators tell what happens to open and new connections while rules change."""

import time
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from k8snetc.ir.types import Protocol
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.handle import LabError
from k8snetc.lab.probe import Outcome, Probe
from tests.support.lab import SCTP, TCP, UDP

pytestmark = pytest.mark.kernel

C = ip_address("10.244.2.2")
DROP = ["iptables", "-I", "FORWARD", "-j", "DROP"]
UNDROP = ["iptables", "-D", "FORWARD", "-j", "DROP"]


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("protocol", "port"), [(TCP, 8080), (UDP, 5353)])
def test_a_flow_that_nothing_disturbs_is_intact(
    shared_cluster: Cluster, protocol: Protocol, port: int
) -> None:
    probe = Probe("pod/shop/a", C, protocol, port, source_port=7777)
    with shared_cluster.flow(probe, interval=0.01) as flow:
        assert flow.opening.server == "pod/shop/c"
        until(lambda: flow.report().answered >= 10)
    report = flow.close()
    assert report.intact, report
    assert report.sent == report.answered >= 10
    assert report.servers == ("pod/shop/c",)


@pytest.mark.parametrize(("protocol", "port"), [(TCP, 8080), (UDP, 5353)])
def test_a_flow_notices_that_packets_are_dropped(
    shared_cluster: Cluster, protocol: Protocol, port: int
) -> None:
    probe = Probe("pod/shop/a", C, protocol, port)
    flow = shared_cluster.flow(probe, interval=0.01)
    shared_cluster.run("node/w1", DROP)
    before = flow.report().answered
    time.sleep(0.3)
    report = flow.close(patience=0.1)
    assert report.lost > 0
    assert report.longest_gap > 0.2
    assert not report.intact
    assert report.answered <= before + 1


def test_a_flow_notices_a_reset(shared_cluster: Cluster) -> None:
    flow = shared_cluster.flow(Probe("pod/shop/a", C, TCP, 8080), interval=0.01)
    until(lambda: flow.report().answered > 0)
    shared_cluster.run(
        "node/w1", ["iptables", "-I", "FORWARD", "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"]
    )
    until(lambda: flow.report().ended is not None)
    ended = flow.close().ended
    assert ended is not None
    assert (ended.outcome, ended.error) == (Outcome.RESET, "ECONNRESET")


def test_a_udp_flow_tells_that_another_server_answers(shared_cluster: Cluster) -> None:
    rule = "table ip t {{ chain c {{ type nat hook prerouting priority dstnat; ip daddr 10.96.0.1 dnat to {} ; }} ; }}"
    shared_cluster.run("node/w1", ["nft", rule.format("10.244.2.2")])
    probe = Probe("pod/shop/a", ip_address("10.96.0.1"), UDP, 5353, source_port=6000)
    with shared_cluster.flow(probe, interval=0.01) as flow:
        assert flow.opening.server == "pod/shop/c"
        shared_cluster.run("node/w1", ["nft", "flush ruleset; " + rule.format("10.244.1.3")])
        time.sleep(0.1)
        assert flow.report().servers == ("pod/shop/c",), "connection tracking keeps the old endpoint"
        shared_cluster.run("node/w1", ["conntrack", "-D", "-p", "udp"])
        until(lambda: flow.report().servers == ("pod/shop/c", "pod/shop/b"))


def test_a_flow_that_can_not_open_says_why(shared_cluster: Cluster) -> None:
    flow = shared_cluster.flow(Probe("pod/shop/a", C, TCP, 1))
    assert flow.opening.outcome is Outcome.REFUSED
    assert flow.close().ended == flow.opening
    shared_cluster.run("node/w1", DROP)
    for protocol, port in ((TCP, 8080), (UDP, 5353)):
        assert shared_cluster.flow(Probe("pod/shop/a", C, protocol, port)).opening.outcome is Outcome.TIMEOUT
    with pytest.raises(LabError, match="TCP or UDP"):
        shared_cluster.flow(Probe("pod/shop/a", C, SCTP, 9999))


@pytest.mark.parametrize(("protocol", "port"), [(TCP, 8080), (UDP, 5353), (SCTP, 9999)])
def test_traffic_counts_what_fails(shared_cluster: Cluster, protocol: Protocol, port: int) -> None:
    with shared_cluster.traffic(Probe("pod/shop/a", C, protocol, port, timeout=0.9), rate=200) as good:
        time.sleep(0.5)
    report = good.stop()
    assert report.failed == 0, report
    assert report.answered == report.started > 50
    assert report.servers == (("pod/shop/c", report.started),)

    bad = shared_cluster.traffic(Probe("pod/shop/a", C, protocol, port, timeout=0.2), rate=200)
    time.sleep(0.2)
    shared_cluster.run("node/w1", DROP)
    time.sleep(0.2)
    shared_cluster.run("node/w1", UNDROP)
    time.sleep(0.2)
    report = bad.stop()
    assert report.answered > 10
    assert 10 < report.failed < report.started
    assert {r.outcome for _, r in report.failures} == {Outcome.TIMEOUT}


def test_traffic_does_not_keep_other_probes_waiting(shared_cluster: Cluster) -> None:
    with shared_cluster.traffic(Probe("pod/shop/a", C, TCP, 8080), rate=300):
        assert shared_cluster.probe("pod/shop/a", C, 8080).answered
        assert shared_cluster.probe("node/w1", C, 8080).answered
