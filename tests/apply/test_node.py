"""A node as a person treats it: the command, other software's rules beside ours, and the node as before at the end."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8snetc.lab.cluster import Cluster
from tests.support.repository import ROOT
from tests.support.unprivileged import unprivileged

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.parametrize(
        ("backend", "variant"), [("iptables", "legacy"), ("iptables", "nft"), ("nftables", "nft")]
    ),
]

NODE = "node/w1"
MANIFESTS = ROOT / "examples" / "dual-stack" / "manifests"
FOREIGN = """\
*nat
:KUBE-SERVICES - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-SERVICES -d 10.200.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-MARK-MASQ
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
COMMIT
*filter
:CNI-FORWARD - [0:0]
-A CNI-FORWARD -m set --match-set other-proxy src -j ACCEPT
-A FORWARD -j CNI-FORWARD
-A INPUT -s 203.0.113.77/32 -j DROP
COMMIT
"""
SETTINGS = (
    "net.ipv4.conf.all.route_localnet",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
)


@pytest.fixture
def cluster(shared_cluster: Cluster, variant: str) -> Iterator[Cluster]:
    """The lab cluster, with another proxy's rules and sets on w1."""
    shared_cluster.run(
        NODE, ["ipset", "restore"], input="create other-proxy hash:ip\nadd other-proxy 10.200.9.9\n"
    )
    shared_cluster.run(NODE, [f"iptables-{variant}-restore", "--noflush"], input=FOREIGN)
    yield shared_cluster
    for setting in SETTINGS[:2]:
        shared_cluster.sysctl(NODE, setting.replace(".", "/"), "0")


def k8snetc(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command on w1."""
    code = "from k8snetc.compiler.entry import main; main()"
    return cluster.run(NODE, [sys.executable, "-c", code, *words], check=False)


def everything(cluster: Cluster, variant: str) -> dict[str, list[str]]:
    """All rules, sets, settings, addresses and routes of the node, whoever owns them.

    Without counters, and without tables that hold nothing: looking at a table with iptables makes it.
    """
    found = {}
    for tool in ("iptables", "ip6tables"):
        found[tool] = list(_rules(cluster.run(NODE, [f"{tool}-{variant}-save"]).stdout))
    found["nft"] = _tables(cluster.run(NODE, ["nft", "list", "tables"]).stdout)
    found["ipset"] = sorted(cluster.run(NODE, ["ipset", "save"]).stdout.splitlines())
    found["sysctl"] = cluster.run(NODE, ["sysctl", *SETTINGS]).stdout.splitlines()
    for kind in ("link", "address", "route", "rule"):
        for family in ("-4", "-6"):
            shown = cluster.run(NODE, ["ip", family, "-o", kind, "show"]).stdout
            found[f"{kind} {family}"] = [
                re.sub(r" (expires|valid_lft|preferred_lft) \S+", "", s) for s in shown.splitlines()
            ]
    return found


def _rules(text: str) -> Iterator[str]:
    for table in text.split("*")[1:]:
        lines = [line.split(" [")[0] for line in table.splitlines() if not line.startswith(("#", "COMMIT"))]
        if any(not re.fullmatch(r":[A-Z]+ ACCEPT", line) for line in lines[1:]):
            yield from lines


def _tables(text: str) -> list[str]:
    """Tables of nftables that are not those of iptables-nft."""
    return [
        line
        for line in text.splitlines()
        if line.split()[-1] not in {"nat", "filter", "mangle", "raw", "security"}
    ]


def test_apply_beside_others_and_remove(cluster: Cluster, backend: str, variant: str, tmp_path: Path) -> None:
    before = everything(cluster, variant)
    node = ["--backend", backend, "--state-dir", str(tmp_path / "state"), "--iptables", variant]
    manifests = (str(MANIFESTS), "--node", "worker-1", "--localhost-nodeports")

    dry = k8snetc(cluster, "apply", *manifests, *node, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert everything(cluster, variant) == before, "a dry run changes nothing"
    assert not (tmp_path / "state").exists()

    done = k8snetc(cluster, "apply", *manifests, *node, "--yes")
    assert done.returncode == 0, done.stderr
    assert "Applied and verified" in done.stdout
    installed = everything(cluster, variant)
    assert installed != before
    # What others have is still there, in its order.
    for kind, lines in before.items():
        if kind != "sysctl":
            kept = [line for line in installed[kind] if line in lines]
            assert kept == lines, kind
    again = k8snetc(cluster, "apply", *manifests, *node, "--yes")
    assert (again.returncode, everything(cluster, variant)) == (0, installed)
    assert again.stdout == "No changes.\n"
    assert k8snetc(cluster, "diff", *manifests, *node).returncode == 0

    # Somebody flushes the chains that are not ours, and puts back only what is theirs.
    if backend == "iptables":
        tool = f"iptables-{variant}"
        for rule in cluster.run(NODE, [f"{tool}-save", "-t", "nat"]).stdout.splitlines():
            if rule.startswith(("-A PREROUTING", "-A OUTPUT")) and "K8SNETC-" in rule:
                cluster.run(
                    NODE,
                    [f"{tool}-restore", "--noflush"],
                    input=f"*nat\n{rule.replace('-A', '-D', 1)}\nCOMMIT\n",
                )
    else:
        cluster.run(NODE, ["nft", "flush", "chain", "ip", "k8snetc", "prerouting"])
    drift = k8snetc(cluster, "verify", *node)
    assert drift.returncode == 1, drift.stdout
    repaired = k8snetc(cluster, "apply", *manifests, *node, "--yes")
    assert repaired.returncode == 0, repaired.stderr
    assert k8snetc(cluster, "verify", *node).returncode == 0
    assert {k: sorted(v) for k, v in everything(cluster, variant).items()} == {
        k: sorted(v) for k, v in installed.items()
    }

    removed = k8snetc(cluster, "remove", *node, "--yes")
    assert removed.returncode == 0, removed.stderr
    assert everything(cluster, variant) == before
    assert "Nothing to do" in k8snetc(cluster, "remove", *node, "--yes").stdout


def test_a_person_without_privilege_is_told(
    cluster: Cluster, backend: str, variant: str, tmp_path: Path
) -> None:
    words = ("--backend", backend, "--state-dir", str(tmp_path / "state"), "--yes")
    code = "from k8snetc.compiler.entry import main; main()"
    command = unprivileged(sys.executable, "-c", code, "apply", str(MANIFESTS))
    before = everything(cluster, variant)
    done = cluster.run(NODE, [*command, "--node", "worker-1", *words], check=False)
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert "root" in done.stderr
    assert everything(cluster, variant) == before
    # Where root was here before, its state can't be read either.
    state = tmp_path / "root"
    state.mkdir(mode=0o700)
    again = ("--backend", backend, "--state-dir", str(state), "--yes", "--node", "worker-1")
    done = cluster.run(NODE, [*command, *again], check=False)
    assert done.returncode == 4, done.stderr
    assert f"{state}: Permission denied; run this as root" in done.stderr
