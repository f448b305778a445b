"""Without TCX the programs are clsact filters: the same traffic, beside other software's, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from k8snetc.backends.ebpf import bpf_programs, clsact, pins
from k8snetc.backends.ebpf.install import target
from k8snetc.backends.target import InstallOptions
from k8snetc.ir.types import Family, Program
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Probe
from tests.backends.ebpf import support
from tests.support.lab import TCP

pytestmark = pytest.mark.kernel

OPTIONS = InstallOptions(no_cgroup=True)


@pytest.fixture(autouse=True)
def _no_tcx(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says what one before Linux 6.6 says."""
    monkeypatch.setattr(bpf_programs, "has_tcx", lambda: False)


def disciplines(cluster: Cluster) -> set[str]:
    shown = json.loads(cluster.run("node/w1", ["tc", "-json", "qdisc", "show"]).stdout)
    return {q["dev"] for q in shown if q["kind"] == "clsact"}


def remove(options: InstallOptions) -> bool:
    """Remove everything, and whether that left nothing of ours."""
    one = target(options)
    for step in one.steps(one.observe(), one.empty()):
        step.run()
    return not one.observe().attachments and not pins.FOLDER.exists()


@pytest.mark.parametrize("family", list(Family))
def test_the_same_traffic_and_nothing_left(cluster: Cluster, family: Family) -> None:
    cluster.run("node/w1", ["tc", "qdisc", "add", "dev", "lo", "clsact"])  # somebody else's
    assert disciplines(cluster) == {"lo"}
    program = support.services("w1")
    cluster.call("node/w1", support.install, program, OPTIONS)
    probe = Probe("client/out", support.node_address(family, 1), TCP, 30080)
    assert cluster.probe_all([probe])[0].answered
    by = {row[2] for s in cluster.call("node/w1", details, program) if s[0] == "attached" for row in s[1]}
    assert by == {"clsact filter"}
    assert disciplines(cluster) > {"lo", "eth0"}
    assert cluster.call("node/w1", remove, OPTIONS)
    assert disciplines(cluster) == {"lo"}


def details(program: Program) -> list[tuple[str, tuple[tuple[str | int | None, ...], ...]]]:
    return [(s.name, s.rows) for s in target(OPTIONS).details(program)]


def killed_while_attaching(program: Program) -> None:
    """Die after clsact is made and before there is a filter."""
    one = target(OPTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clsact, "_parent", lambda _hook: os.kill(os.getpid(), signal.SIGKILL))
        for step in one.steps(one.observe(), one.desired(program)):
            step.run()


def leftovers() -> list[str]:
    folder = Path(pins.FOLDER)
    return sorted(str(p.relative_to(folder)) for p in folder.glob("clsact/*")) if folder.is_dir() else []


def test_what_a_killed_apply_left_is_collected(cluster: Cluster) -> None:
    program = support.policies("w1")
    with pytest.raises(Exception, match="status -9"):
        cluster.call("node/w1", killed_while_attaching, program)
    assert len(cluster.call("node/w1", leftovers)) == 1
    assert len(disciplines(cluster)) == 1
    assert cluster.call("node/w1", remove, OPTIONS)
    assert disciplines(cluster) == set()
