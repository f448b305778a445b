"""SIGKILL before and after every step of an apply, on the real kernel: each moment is sane, the next call undoes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from k8snetc.ir.types import Protocol
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Outcome
from tests.faults import node

pytestmark = pytest.mark.kernel


def sane(cluster: Cluster, moment: str) -> None:
    """What both programs allow passes, and what both deny doesn't."""
    probes = [*node.allowed(), *node.denied()]
    for at, (probe, result) in enumerate(zip(probes, cluster.probe_all(probes), strict=True)):
        passed = result.outcome is Outcome.ANSWERED
        assert passed == (at < len(node.allowed())), f"{moment}: {probe}: {result}"


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["legacy", "nft", "nftables", "ebpf"])
def test_killed_at_every_step(shared_cluster: Cluster, variant: str) -> None:
    cluster = shared_cluster
    cluster.call(node.W1, node.install, variant, node.OLD)
    before = cluster.call(node.W1, node.state, variant)
    steps = cluster.call(node.W1, node.desired_steps, variant, node.NEW)
    least = {"nftables": 1, "ebpf": 4}.get(variant, 11)  # one transaction for all tables, or steps for each
    assert steps >= least, "the programs are to differ in several tables"
    sane(cluster, "old program")
    for at in range(steps):
        kill = node.Kill(at, after=at % 2 == 1)
        assert cluster.call(node.W1, node.install_and_die, variant, node.NEW, kill) == -9
        sane(cluster, f"killed at step {at}")
        assert cluster.call(node.W1, node.undo, variant)
        assert cluster.call(node.W1, node.state, variant) == before
    sane(cluster, "put back")
    kill = node.Kill(steps - 1, after=True)
    assert cluster.call(node.W1, node.install_and_die, variant, node.NEW, kill) == -9
    # Not the same program as the killed one: it is undone first, then the other installed.
    assert cluster.call(node.W1, node.install, variant, node.OTHER).receipt is not None
    assert cluster.call(node.W1, node.desired_steps, variant, node.OTHER) == 0


def nothing_left(cluster: Cluster, variant: str) -> None:
    listings = [["nft", "list", "ruleset"], ["ipset", "save"], ["ls", "/sys/fs/bpf"]]
    if variant in ("legacy", "nft"):
        listings.append([f"iptables-{variant}-save"])
    left = "".join(cluster.run(node.W1, words).stdout for words in listings)
    assert "k8snetc" not in left.lower()
    assert cluster.run(node.W1, ["ls", "/run/k8snetc"], check=False).returncode != 0


@pytest.mark.parametrize("variant", ["legacy", "nft", "nftables", "ebpf"])
def test_removed_after_a_killed_apply(shared_cluster: Cluster, variant: str) -> None:
    cluster = shared_cluster
    cluster.call(node.W1, node.install, variant, node.OLD)
    before = cluster.call(node.W1, node.state, variant)
    kill = {"nftables": node.Kill(0, after=True), "ebpf": node.Kill(2)}.get(variant, node.Kill(5))
    assert cluster.call(node.W1, node.install_and_die, variant, node.NEW, kill) == -9
    cluster.call(node.W1, node.uninstall, variant)
    nothing_left(cluster, variant)
    cluster.call(node.W1, node.install, variant, node.OLD)
    assert cluster.call(node.W1, node.state, variant) == before


@pytest.mark.parametrize("variant", ["legacy", "nft", "nftables", "ebpf"])
def test_killed_while_removing(shared_cluster: Cluster, variant: str) -> None:
    """Half removed is no state to stay in: the next apply or remove begins with putting it back."""
    cluster = shared_cluster
    cluster.call(node.W1, node.install, variant, node.OLD)
    before = cluster.call(node.W1, node.state, variant)
    for kill in (node.Kill(0), node.Kill(0, after=True), node.Kill(1, after=True)):
        if variant == "nftables" and kill.at == 1:
            continue  # it has one step
        assert cluster.call(node.W1, node.uninstall_and_die, variant, kill) == -9
        assert cluster.call(node.W1, node.undo, variant)
        assert cluster.call(node.W1, node.state, variant) == before
    sane(cluster, "put back")
    assert cluster.call(node.W1, node.uninstall_and_die, variant, node.Kill(0, after=True)) == -9
    cluster.call(node.W1, node.uninstall, variant)
    nothing_left(cluster, variant)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["legacy", "nft", "nftables"])
def test_two_hundred_applies_under_traffic(shared_cluster: Cluster, variant: str) -> None:
    """A steady rate of new connections, and kept ones, through 200 applies: none fails, none breaks."""
    cluster = shared_cluster
    cluster.call(node.W1, node.install, variant, node.OLD)
    # A datagram that is under way while its endpoint is taken away may be lost, or its answer: what has to hold is that
    # the next one from the same socket comes to an endpoint that there is.
    probes = [
        replace(p, resend=0.3, timeout=2.0) if p.protocol is Protocol.UDP else p for p in node.allowed()
    ]
    traffic = [cluster.traffic(p, rate=15) for p in probes]
    flows = [cluster.flow(p, interval=0.05) for p in probes if p.protocol is Protocol.TCP]
    size = cluster.call(node.W1, node.install_many, variant, (node.NEW, node.OLD), 200)
    kept = [f.close() for f in flows]
    reports = [t.stop() for t in traffic]
    assert size > 200
    assert sum(r.started for r in reports) > 1000
    for probe, report in zip(probes, reports, strict=True):
        assert not report.failed, f"{probe}: {report.failures[:5]}"
    for one in kept:
        assert one.intact, one
