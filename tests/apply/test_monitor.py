"""Denied packets as `monitor` tells them: real ones, both families, with the policies that did not let them pass."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from k8snetc.apply.denied import Teller
from k8snetc.backends.watch import DeniedPacket
from k8snetc.ir.types import (
    Direction,
    Enforcement,
    Family,
    Origin,
    Program,
    Protocol,
    Rule,
    Verdict,
)
from k8snetc.lab import wiring
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Probe
from tests.backends.ebpf import support
from tests.support.lab import TCP, UDP
from tests.support.unprivileged import unprivileged

NODE = "node/w1"
MANIFESTS = """\
apiVersion: v1
kind: Node
metadata: {name: w1}
spec: {podCIDRs: [10.244.1.0/24, "fd44:1::/64"]}
status: {addresses: [{type: InternalIP, address: 172.18.0.1}, {type: InternalIP, address: "fd18::1"}]}
"""
POD = """\
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}
spec: {{nodeName: w{node}, containers: [{{name: main, ports: [{{containerPort: 8080}}]}}]}}
status: {{phase: Running, podIPs: [{{ip: 10.244.{node}.{host}}}, {{ip: "fd44:{node}::{host}"}}]}}
"""
POLICY = """\
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a-from-b, namespace: shop}
spec:
  podSelector: {matchLabels: {app: a}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: b}}}]
    ports: [{port: 8080}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: b-mute, namespace: shop}
spec:
  podSelector: {matchLabels: {app: b}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: a}}}]
"""


def k8snetc(*words: str) -> list[str]:
    return [sys.executable, "-c", "from k8snetc.compiler.entry import main; main()", *words]


@pytest.fixture
def node(shared_cluster: Cluster, tmp_path: Path) -> tuple[Cluster, list[str]]:
    """The lab with a program of two policies on w1, and the words that name its state directory."""
    cluster = shared_cluster
    pods = "".join(POD.format(name=n, node=p[0], host=p[1]) for n, p in support.PODS.items())
    (tmp_path / "shop.yaml").write_text(MANIFESTS + pods + POLICY)
    state = ["--state-dir", str(tmp_path / "state")]
    devices = [wiring.interface(cluster.topology, p) for p in wiring.pods_on(cluster.topology, "w1")]
    words = ["--backend", "ebpf", "--uplink", "eth0", "--no-cgroup", "--yes", *state]
    words += [w for d in devices for w in ("--pod-interface", d)]
    cluster.run(NODE, k8snetc("apply", str(tmp_path / "shop.yaml"), "--node", "w1", *words))
    return cluster, state


@contextmanager
def monitor(cluster: Cluster, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A monitor that watches already."""
    process = cluster.popen(NODE, k8snetc("monitor", *words))
    try:
        assert process.stderr is not None
        assert "watching" in process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.kernel
@pytest.mark.parametrize("family", list(Family))
def test_denied_packets_are_told(node: tuple[Cluster, list[str]], family: Family) -> None:
    cluster, state = node
    a, b, c, d = (support.pod(family, name) for name in "abcd")
    with monitor(cluster, "--format", "json", *state) as process:
        answers = cluster.probe_all(
            [
                Probe("pod/shop/b", a, TCP, 8080),
                Probe("pod/shop/c", a, TCP, 8080),
                Probe("pod/shop/b", a, UDP, 5353),
                Probe("pod/shop/b", d, TCP, 8081),
                Probe("pod/shop/c", a, None),
            ]
        )
        assert [r.answered for r in answers] == [True, False, False, False, False]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    told = [json.loads(line) for line in out.splitlines()]
    found = {
        (
            t["direction"],
            t["source"],
            t["destination"],
            t["protocol"],
            t["port"],
            t["pod"]["name"],
            t["peer"]["name"],
        )
        for t in told
    }
    echo = "icmp" if family is Family.IPV4 else "icmpv6"
    assert found == {
        ("ingress", str(c), str(a), "tcp", 8080, "shop/a", "shop/c"),
        ("ingress", str(b), str(a), "udp", 5353, "shop/a", "shop/b"),
        ("egress", str(b), str(d), "tcp", 8081, "shop/b", "shop/d"),
        ("ingress", str(c), str(a), echo, None, "shop/a", "shop/c"),
    }
    for one in told:
        (policy,) = one["policies"]
        assert (policy["kind"], policy["namespace"]) == ("NetworkPolicy", "shop")
        assert policy["name"] == ("a-from-b" if one["direction"] == "ingress" else "b-mute")
        line = Path(policy["file"]).read_text().splitlines()[policy["line"] - 1]
        assert line == "apiVersion: networking.k8s.io/v1"
        assert one["reason"] == "isolated"
        assert not one["answer"]


@pytest.mark.kernel
def test_for_people_and_for_scripts(node: tuple[Cluster, list[str]]) -> None:
    cluster, state = node
    a = support.pod(Family.IPV4, "a")
    with monitor(cluster, "--count", "1", *state) as process:
        second = cluster.run(NODE, k8snetc("monitor", *state), check=False)
        assert second.returncode == 4
        assert "another monitor" in second.stderr
        cluster.probe_all([Probe("pod/shop/c", a, TCP, 8080)])
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    (line,) = out.splitlines()
    assert (
        "shop/c (10.244.2.2) -> shop/a (10.244.1.2) TCP 8080: ingress denied: no rule of NetworkPolicy"
        in line
    )
    assert "shop/a-from-b (" in line
    assert line.endswith(") allows it")
    quiet = cluster.run(NODE, k8snetc("monitor", "--seconds", "0.2", *state))
    assert quiet.stdout == ""


@pytest.mark.kernel
def test_a_flood_is_bounded_and_what_is_left_out_is_said(node: tuple[Cluster, list[str]]) -> None:
    cluster, state = node
    a = support.pod(Family.IPV4, "a")
    with monitor(cluster, "--format", "json", "--rate", "10", *state) as process:
        cluster.call("pod/shop/c", flood, str(a), 2000)
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while "missed" not in lines[-1]:
            assert lines[-1], "it has ended"
            lines.append(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        lines += process.stdout.readlines()
        assert process.wait(30) == 0
    told = [json.loads(line) for line in lines]
    packets = [t for t in told if "missed" not in t]
    missed = sum(t["missed"] for t in told if "missed" in t)
    assert 0 < len(packets) < 1500
    assert missed > 0
    assert len(packets) + missed <= 2000


@pytest.mark.kernel
def test_an_apply_and_a_remove_meanwhile(node: tuple[Cluster, list[str]], tmp_path: Path) -> None:
    cluster, state = node
    a = support.pod(Family.IPV4, "a")
    manifests = tmp_path / "shop.yaml"
    manifests.write_text(
        manifests.read_text().replace("name: a-from-b", "name: a-closed").replace("app: b}}}]", "app: x}}}]")
    )
    with monitor(cluster, "--format", "json", *state) as process:
        words = ["--yes", "--uplink", "eth0", "--pod-interface", "pod*", "--no-cgroup", "-b", "ebpf", *state]
        cluster.run(NODE, k8snetc("apply", str(manifests), "--node", "w1", *words))
        assert not cluster.probe_all([Probe("pod/shop/b", a, TCP, 8080)])[0].answered
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert [p["name"] for p in told["policies"]] == ["a-closed"]
        assert (told["pod"]["name"], told["peer"]["name"]) == ("shop/a", "shop/b")
        cluster.run(NODE, k8snetc("remove", "--yes", *state))
        _, err = process.communicate(timeout=30)
    assert process.returncode == 4
    assert "removed from this node meanwhile" in err


def flood(address: str, count: int) -> None:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(count):
            sender.sendto(b"x", (address, 5353))


@pytest.mark.kernel
def test_what_can_not_be_watched_is_said(shared_cluster: Cluster, tmp_path: Path) -> None:
    state = ["--state-dir", str(tmp_path / "state")]
    none = shared_cluster.run(NODE, k8snetc("monitor", *state), check=False)
    assert none.returncode == 4
    assert "nothing is installed here" in none.stderr
    told = subprocess.run(
        unprivileged(*k8snetc("monitor", *state)),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=60,
    )
    assert told.returncode == 4
    assert "run it as root" in told.stderr


def test_a_tier_that_denies_and_answers() -> None:
    pod, peer = ip_address("10.0.0.1"), ip_address("10.0.0.2")
    why = Origin("admin.yaml", 7, "ClusterNetworkPolicy", "", "no-ssh")
    rule = Rule(Verdict.DENY, None, Protocol.TCP, origin=why)
    other = Origin("net.yaml", 3, "NetworkPolicy", "shop", "web")
    program = Program(
        enforcements=(
            Enforcement("in", Family.IPV4, Direction.INGRESS, (pod,), admin=(rule,), origins=(why, other)),
            Enforcement("out", Family.IPV4, Direction.EGRESS, (pod,), origins=(other,)),
        )
    )
    teller = Teller(program, {pod: "shop/web"})

    def packet(*, leaving: bool, egress: bool) -> DeniedPacket:
        ends = (pod, peer) if leaving else (peer, pod)
        return DeniedPacket(0, *ends, 6, 1000, 22, leaving, egress, 1, 1)

    denied = teller.tell(packet(leaving=False, egress=False), "in")
    assert denied.by_rule
    assert denied.text().endswith(
        "10.0.0.2 -> shop/web (10.0.0.1) TCP 22: ingress denied: ClusterNetworkPolicy no-ssh (admin.yaml:7) denies it"
    )
    answer = teller.tell(packet(leaving=True, egress=False), "in")
    assert answer.port == 1000
    assert "TCP 1000 (an answer): ingress denied" in answer.text()
    egress = teller.tell(packet(leaving=True, egress=True), "out")
    assert egress.text().endswith("no rule of NetworkPolicy shop/web (net.yaml:3) allows it")
    unknown = teller.tell(packet(leaving=True, egress=True), "gone since")
    assert unknown.policies == ()
    assert os.linesep not in unknown.text()
