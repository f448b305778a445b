"""Somebody else's tc programs ahead of ours let pass what policy denies: ours go first, and where not, it is seen.

Each test runs with TCX links, and with clsact filters as before Linux 6.6.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8snetc.backends.ebpf import bpf_programs, clsact, libbpf
from k8snetc.backends.ebpf.install import target
from k8snetc.backends.target import InstallError, InstallOptions
from k8snetc.ir.types import Family, Program
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Probe
from tests.backends.ebpf import support
from tests.support.lab import TCP, UDP

pytestmark = pytest.mark.kernel

OPTIONS = InstallOptions(no_cgroup=True)
PASS, ON = 0, -1  # TC_ACT_OK, which ends the chain, and TC_ACT_UNSPEC
PINS = ("/sys/fs/bpf/foreign-in", "/sys/fs/bpf/foreign-out")
EARLY = 0x100  # a priority ahead of those of older versions
ALLOWED, DENIED = (Probe(f"pod/shop/{p}", support.pod(Family.IPV4, "a"), TCP, 8080, timeout=1) for p in "bc")


@pytest.fixture(params=["tcx", "clsact"])
def tcx(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "clsact":
        monkeypatch.setattr(bpf_programs, "has_tcx", lambda: False)
    return bool(request.param == "tcx")


@pytest.fixture
def node(cluster: Cluster) -> Iterator[Cluster]:
    """The lab; somebody's program is taken away after the test."""
    yield cluster
    cluster.call("node/w1", unpin)


def unpin() -> None:
    for pin in PINS:
        Path(pin).unlink(missing_ok=True)


def foreign(tcx: bool, device: str, verdict: int, priority: int = EARLY) -> None:
    """Somebody's program at both hooks of an interface, ahead of all that are there (clsact: of that priority)."""
    from pyroute2 import IPRoute

    code = bytes((0xB7, 0, 0, 0)) + verdict.to_bytes(4, "little", signed=True) + bytes((0x95, *(0,) * 7))
    program = libbpf.library().bpf_prog_load(3, b"foreign", b"GPL", code, 2, None)
    assert program > 0
    with IPRoute() as route:
        (index,) = route.link_lookup(ifname=device)
        if tcx:
            unpin()
            for pin, hook in zip(PINS, (bpf_programs.TCX_INGRESS, bpf_programs.TCX_EGRESS), strict=True):
                bpf_programs.pin(bpf_programs.link(program, index, hook), pin)
            return
        if index not in {q["index"] for q in route.get_qdiscs() if q.get_attr("TCA_KIND") == "clsact"}:
            route.tc("add", "clsact", index)
        for parent in (0xFFFFFFF2, 0xFFFFFFF3):
            route.tc(
                "replace-filter",
                "bpf",
                index,
                handle=9,
                fd=program,
                name="foreign",
                parent=parent,
                prio=priority,
                protocol=3,
                classid=1,
                direct_action=True,
            )


def answered(cluster: Cluster) -> list[bool]:
    """Whether what policy allows and what it denies gets through."""
    return [r.answered for r in cluster.probe_all([ALLOWED, DENIED])]


def drift(program: Program) -> list[str]:
    one = target(OPTIONS)
    return [" ".join(c.removed) for c in one.changes(one.observe(), one.desired(program))]


def attached(program: Program) -> list[str]:
    """By what the hooks for packets to pods are attached, as `status` shows it."""
    (found,) = (s for s in target(OPTIONS).details(program) if s.name == "attached")
    return sorted({str(row[2]) for row in found.rows if row[0] == "to_pod"})


def removed() -> tuple[bool, list[str]]:
    """Remove everything. Whether that left nothing of ours, and what is at the interface of pod a."""
    from pyroute2 import IPRoute

    one = target(OPTIONS)
    for step in one.steps(one.observe(), one.empty()):
        step.run()
    with IPRoute() as route:
        (index,) = route.link_lookup(ifname="pod0")
        names = [
            str(o.get_attr("TCA_BPF_NAME"))
            for f in route.get_filters(index=index, parent=0xFFFFFFF3)
            if (o := f.get_attr("TCA_OPTIONS"))
        ]
    for number in bpf_programs.programs_at(index, bpf_programs.TCX_EGRESS):
        names.append(bpf_programs.program_info(bpf_programs.program_by_id(number)).name)
    return not one.observe().attachments, names


def old_version(program: Program, options: InstallOptions) -> None:
    """Filters with the priority that those of older versions have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clsact, "FIRST", 0x6B38)
        support.install(program, options)


def test_who_comes_first_is_seen_and_comes_second_after_the_next_apply(node: Cluster, tcx: bool) -> None:
    program = support.policies("w1")
    install = support.install if tcx else old_version
    node.call("node/w1", install, program, OPTIONS)
    assert answered(node) == [True, False]
    node.call("node/w1", foreign, tcx, "pod0", PASS)
    assert answered(node) == [True, True], "the test shows nothing: policy holds behind this program"
    seen = node.call("node/w1", drift, program)[0]
    assert seen.startswith("attached behind "), seen
    assert "foreign" in seen, seen
    by = node.call("node/w1", attached, program)
    assert len(by) == 2, by
    assert "foreign" in by[1], by

    done = node.call("node/w1", support.install, program, OPTIONS)
    assert done == ("attach from_pod", "attach to_pod")
    assert answered(node) == [True, False]
    assert node.call("node/w1", drift, program) == []
    assert node.call("node/w1", support.install, program, OPTIONS) == ()
    nothing, left = node.call("node/w1", removed)
    assert nothing
    assert left == ["foreign"]


def test_who_was_there_before_comes_second(node: Cluster, tcx: bool) -> None:
    node.call("node/w1", foreign, tcx, "pod0", PASS)
    node.call("node/w1", support.install, support.policies("w1"), OPTIONS)
    assert answered(node) == [True, False]


def test_without_policy_others_may_come_first(node: Cluster, tcx: bool) -> None:
    """And a first policy goes ahead of them."""
    services = support.services("w1")
    node.call("node/w1", support.install if tcx else old_version, services, OPTIONS)
    node.call("node/w1", foreign, tcx, "pod0", PASS)
    assert node.call("node/w1", drift, services) == []
    assert node.call("node/w1", support.install, services, OPTIONS) == ()
    done = node.call("node/w1", support.install, support.both("w1"), OPTIONS)
    assert done.count("attach to_pod") == 1
    assert answered(node) == [True, False]


def killed(program: Program, tcx: bool) -> None:
    """Die when the old attachment is gone and the new one does not judge yet."""
    with pytest.MonkeyPatch.context() as patch:
        if tcx:
            patch.setattr(bpf_programs, "link_update", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        else:
            real = clsact._put

            def put(*words: object) -> None:
                if words[1] == "replace-filter":
                    os.kill(os.getpid(), signal.SIGKILL)
                real(*words)  # type: ignore[arg-type] # handed through as it came

            patch.setattr(clsact, "_put", put)
        support.install(program, OPTIONS)


@pytest.mark.parametrize("end", ["apply", "services", "remove"])
def test_killed_while_it_goes_first_is_closed(node: Cluster, tcx: bool, end: str) -> None:
    program = support.policies("w1")
    node.call("node/w1", support.install if tcx else old_version, program, OPTIONS)
    node.call("node/w1", foreign, tcx, "pod0", PASS)
    with pytest.raises(Exception, match="status -9"):
        node.call("node/w1", killed, program, tcx)
    assert answered(node) == [False, False]
    assert node.call("node/w1", drift, program) != []
    if end == "apply":
        node.call("node/w1", support.install, program, OPTIONS)
        assert answered(node) == [True, False]
    elif end == "services":
        node.call("node/w1", support.install, support.services("w1"), OPTIONS)
        assert answered(node) == [True, True]
    nothing, left = node.call("node/w1", removed)
    assert nothing
    assert left == ["foreign"]
    assert answered(node) == [True, True]


def again_and_again(tcx: bool, program: Program, times: int) -> None:
    """Somebody comes first, who hands everything on, and ours goes first again."""
    for at in range(times):
        foreign(tcx, "pod0", ON, EARLY - at)
        if not tcx:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(clsact, "FIRST", EARLY - at - 1)
                support.install(program, OPTIONS)
        else:
            support.install(program, OPTIONS)


def test_nothing_passes_unjudged_meanwhile(node: Cluster, tcx: bool) -> None:
    """Policy held before, as the one in front hands packets on; it holds at each moment of the move, too."""
    program = support.policies("w1")
    node.call("node/w1", support.install if tcx else old_version, program, OPTIONS)
    denied = node.traffic(
        Probe("pod/shop/c", support.pod(Family.IPV4, "a"), UDP, 5353, timeout=0.2), rate=100
    )
    flow = node.flow(ALLOWED, interval=0.02)
    node.call("node/w1", again_and_again, tcx, program, 15)
    report, ended = denied.stop(), flow.close()
    assert report.started > 20
    assert report.answered == 0, report
    assert ended.intact, ended  # what it lost it sent again


def refusal(program: Program) -> str:
    """What an apply says, and that it changes nothing."""
    one = target(OPTIONS)
    before = one.observe()
    try:
        support.install(program, OPTIONS)
    except InstallError as error:
        assert one.observe() == before
        return str(error)
    return ""


def test_where_nobody_can_go_ahead_policy_is_refused(node: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clsact filter of somebody else has the priority that runs before all others."""
    monkeypatch.setattr(bpf_programs, "has_tcx", lambda: False)
    node.call("node/w1", foreign, False, "pod0", PASS, clsact.FIRST)
    said = node.call("node/w1", refusal, support.policies("w1"))
    assert "filter bpf (foreign) of priority 1" in said
    node.call("node/w1", support.install, support.services("w1"), OPTIONS)
    assert "filter bpf (foreign) of priority 1" in node.call("node/w1", refusal, support.both("w1"))
    nothing, left = node.call("node/w1", removed)
    assert nothing
    assert left == ["foreign"]


def test_an_obstacle_after_the_apply_is_drift(node: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes the place ahead of ours within the same priority."""
    monkeypatch.setattr(bpf_programs, "has_tcx", lambda: False)
    program = support.policies("w1")
    node.call("node/w1", support.install, program, OPTIONS)
    node.call("node/w1", foreign, False, "pod0", PASS, clsact.FIRST)
    assert answered(node) == [True, True]
    seen = node.call("node/w1", drift, program)[0]
    assert "behind filter bpf (foreign) of priority 1" in seen
    assert "filter bpf (foreign) of priority 1" in node.call("node/w1", refusal, program)
