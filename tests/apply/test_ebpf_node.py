"""The ebpf back end as a person treats it: apply, status, verify, remove; then the node is as before."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8snetc.ir.types import Family
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Probe
from tests.apply.test_monitor import MANIFESTS, POD, POLICY
from tests.backends.ebpf import support
from tests.backends.ebpf import test_first as first
from tests.support.lab import TCP, small

pytestmark = pytest.mark.kernel

NODE = "node/w1"
SERVICE = """\
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {type: NodePort, clusterIP: 10.96.0.1, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.244.1.3]}]
"""
SETTINGS = ("net.ipv4.conf.lo.accept_local", "net.ipv4.conf.lo.route_localnet")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A lab with a cgroup for each node's sockets."""
    with Cluster(small(), with_cgroups=True) as made:
        yield made


def k8snetc(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    code = "from k8snetc.compiler.entry import main; main()"
    return cluster.run(NODE, [sys.executable, "-c", code, *words], check=False)


def everything(cluster: Cluster) -> dict[str, str]:
    """What an apply could leave: pins, attachments, queueing disciplines, settings."""
    commands = {
        "pins": ["find", "/sys/fs/bpf", "-mindepth", "1"],
        "attached": ["bpftool", "net", "show"],
        "disciplines": ["tc", "qdisc", "show"],
        "settings": ["sysctl", *SETTINGS],
        "cgroup": ["bpftool", "cgroup", "show", str(cluster.cgroup("w1"))],
        "state": ["find", "/run/k8snetc"],
    }
    return {name: cluster.run(NODE, command, check=False).stdout for name, command in commands.items()}


def test_from_apply_to_remove(cluster: Cluster, tmp_path: Path) -> None:
    before = everything(cluster)
    pods = "".join(POD.format(name=n, node=p[0], host=p[1]) for n, p in support.PODS.items())
    manifests = tmp_path / "shop.yaml"
    manifests.write_text(MANIFESTS + pods + POLICY + SERVICE)
    options = ["--uplink", "eth0", "--pod-interface", "pod*", "--cgroup", str(cluster.cgroup("w1"))]
    done = k8snetc(cluster, "apply", str(manifests), "--node", "w1", "-b", "ebpf", "--yes", *options)
    assert done.returncode == 0, done.stderr

    # The process is gone, the dataplane is not. What looks at it knows with which options it was installed.
    asked = [Probe("client/out", support.node_address(Family.IPV4, 1), TCP, 30080)] * 3
    denied = Probe("pod/shop/c", support.pod(Family.IPV4, "a"), TCP, 8080)
    assert [r.answered for r in cluster.probe_all([*asked, denied])] == [True, True, True, False]
    for words in (["status"], ["status", "--backend", "ebpf"], ["verify"]):
        shown = k8snetc(cluster, *words)
        assert shown.returncode == 0, shown.stdout + shown.stderr
    text = k8snetc(cluster, "status").stdout
    assert "state        as installed" in text
    found = json.loads(k8snetc(cluster, "status", "--format", "json").stdout)
    details = found["details"]
    assert details["services"] == [
        {
            "service": "shop/web",
            "address": "node-port",
            "opened": 3,
            "sockets": 0,
            "rejected": 0,
            "dropped": 0,
        }
    ]
    (policy,) = [p for p in details["policies"] if p["policies"] == "shop/a-from-b"]
    assert policy["direction"] == "ingress"
    assert policy["denied"] > 0
    verdicts = {v["verdict"]: v["count"] for v in details["verdicts"]}
    assert verdicts["opened"] == 3
    assert verdicts["denied"] == policy["denied"]
    assert {a["at"] for a in details["attached"]} == {"eth0", "lo", "pod0", "pod1", str(cluster.cgroup("w1"))}
    used = {t["table"]: (t["used"], t["size"]) for t in details["tables"]}
    assert used["frontends4"] == (2, 2)
    assert used["endpoints4"] == (None, 1)

    # The same again is nothing to do, and makes no receipt.
    again = k8snetc(cluster, "apply", str(manifests), "--node", "w1", "-b", "ebpf", "--yes", *options)
    assert again.returncode == 0
    assert len(json.loads(k8snetc(cluster, "status", "--format", "json").stdout)["receipts"]) == 1

    # So is somebody's program that runs before ours, where policy is decided: the next apply goes ahead of it.
    cluster.call(NODE, first.foreign, True, "pod0", first.PASS)
    for words in (["verify"], ["status"], ["diff", str(manifests), "--node", "w1", "-b", "ebpf", *options]):
        shown = k8snetc(cluster, *words)
        assert shown.returncode == 1, shown.stdout + shown.stderr
    assert "(foreign), which can let pass what policy denies" in k8snetc(cluster, "verify").stdout
    assert [r.answered for r in cluster.probe_all([denied])] == [True]
    again = k8snetc(cluster, "apply", str(manifests), "--node", "w1", "-b", "ebpf", "--yes", *options)
    assert again.returncode == 0, again.stderr
    assert k8snetc(cluster, "verify").returncode == 0
    assert [r.answered for r in cluster.probe_all([denied])] == [False]
    cluster.call(NODE, first.unpin)

    # Another option is a difference.
    assert k8snetc(cluster, "status", "-b", "ebpf", "--no-cgroup").returncode == 1

    removed = k8snetc(cluster, "remove", "--yes")
    assert removed.returncode == 0, removed.stderr
    assert everything(cluster) == before
    assert k8snetc(cluster, "status").returncode == 1
