"""Generations replace one another: nothing that both programs serve notices, a killed apply is finished by the next."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest

from k8snetc.backends.ebpf import bpf_objects, generation, libbpf, pins
from k8snetc.backends.ebpf.build import BuildError
from k8snetc.backends.ebpf.install import target
from k8snetc.backends.target import InstallError, InstallOptions
from k8snetc.ir.types import Family, Program, Protocol
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Probe
from tests.backends.ebpf import support
from tests.support.lab import TCP, UDP

pytestmark = pytest.mark.kernel

APPLIES = 200
"""In a row, as for the other back ends."""


def without_a_nodeport(program: Program) -> Program:
    """Another program with the same C: only tables differ."""
    return replace(program, frontends=tuple(f for f in program.frontends if f.port != 30081))


def without_sctp(program: Program) -> Program:
    """Another program, with other C: no SCTP, no affinity."""
    frontends = tuple(
        f
        for f in program.frontends
        if f.protocol is not Protocol.SCTP and f.address != support.service(f.family, 4)
    )
    return replace(program, frontends=frontends)


def apply_all(programs: list[Program], options: InstallOptions, times: int) -> int:
    """In one process: one program after the other. Returns how often the C changed."""
    one = target(options)
    sources = set()
    for at in range(times):
        goal = one.desired(programs[at % len(programs)])
        sources.add(goal.source)
        live = one.observe()
        for step in one.steps(live, goal):
            step.run()
        assert not one.changes(one.observe(), goal)
        one.cut(None, programs[at % len(programs)])
    return len(sources)


@pytest.mark.slow
@pytest.mark.timeout(300 + 2 * APPLIES)
@pytest.mark.parametrize("sockets", [False, True], ids=["packets", "sockets"])
def test_connections_through_many_applies(cluster: Cluster, sockets: bool) -> None:
    """New connections and kept ones, TCP and UDP, both families, while tables and C change: none fails or breaks."""
    options = {n: InstallOptions(cgroup=str(cluster.cgroup(n)), no_cgroup=not sockets) for n in support.NODES}
    for name in support.NODES:
        cluster.call(f"node/{name}", support.install, support.services(name), options[name])
    w1 = support.services("w1")
    probes = []
    for family in Family:
        probes += [
            Probe("pod/shop/a", support.service(family, 1), TCP, 80, timeout=8),
            Probe("node/w1", support.service(family, 1), TCP, 80, timeout=8),
            Probe("client/out", support.node_address(family, 1), TCP, 30080, timeout=8),
        ]
    datagrams = [Probe("pod/shop/b", support.service(f, 1), UDP, 80, timeout=8) for f in Family]
    datagrams += [Probe("client/out", support.node_address(f, 1), UDP, 30080, timeout=8) for f in Family]
    flows = [cluster.flow(p, interval=0.1) for p in (*probes, *datagrams)]
    traffic = [cluster.traffic(p, rate=4) for p in probes]
    programs = [w1, without_a_nodeport(w1), without_sctp(w1)]
    changed = cluster.call("node/w1", apply_all, programs, options["w1"], APPLIES)
    assert changed == 2
    for one in traffic:
        report = one.stop()
        assert report.started > 5  # there was traffic all along; how much depends on how long an apply takes
        assert not report.failed, report
    for flow in flows:
        ended = flow.close()
        assert ended.opening.answered
        assert ended.intact, ended


def killed_at(program: Program, options: InstallOptions, step: int) -> None:
    """An apply that dies before its step number `step`."""
    one = target(options)
    for at, doing in enumerate(one.steps(one.observe(), one.desired(program))):
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL)
        doing.run()


def count_steps(program: Program, options: InstallOptions) -> int:
    one = target(options)
    return len(one.steps(one.observe(), one.desired(program)))


def leftovers() -> list[str]:
    loaded = [] if generation.forgotten(pins.Entry()) else ["a generation that is not in force"]
    return [str(p) for p in pins.leftovers()] + loaded


def test_killed_at_every_step(cluster: Cluster) -> None:
    first, second = support.services("w1", (Family.IPV4,)), support.services("w1")
    options = InstallOptions(no_cgroup=True)
    cluster.call("node/w1", support.install, first, options)
    probe = Probe("client/out", support.node_address(Family.IPV4, 1), TCP, 30080)
    for step in range(cluster.call("node/w1", count_steps, second, options)):
        with pytest.raises(Exception, match="status -9"):
            cluster.call("node/w1", killed_at, second, options, step)
        assert cluster.probe_all([probe])[0].answered, f"killed before step {step}"
        cluster.call("node/w1", support.install, second, options)
        assert cluster.probe_all([probe])[0].answered
        assert cluster.call("node/w1", leftovers) == []
        cluster.call("node/w1", support.install, first, options)


def gone(options: InstallOptions) -> bool:
    """Remove everything, and whether that left nothing."""
    one = target(options)
    for step in one.steps(one.observe(), one.empty()):
        step.run()
    left = one.observe()
    return not left.source and not left.attachments and not pins.FOLDER.exists()


def test_remove_leaves_nothing(cluster: Cluster) -> None:
    options = InstallOptions(cgroup=str(cluster.cgroup("w1")))
    cluster.call("node/w1", support.install, support.both("w1"), options)
    assert cluster.call("node/w1", gone, options)


def round_trip(program: Program, options: InstallOptions) -> bool:
    one = target(options)
    live = one.observe()
    return one.load(one.dump(live)) == live and not one.changes(live, one.desired(program))


def test_what_runs_can_be_read_back_and_kept(cluster: Cluster) -> None:
    options = InstallOptions(no_cgroup=True)
    cluster.call("node/w1", support.install, support.both("w1"), options)
    assert cluster.call("node/w1", round_trip, support.both("w1"), options)


def new_interface(program: Program, options: InstallOptions) -> tuple[list[str], list[str]]:
    """What differs before and after a pod's interface appears on a node that runs the program."""
    from pyroute2 import IPRoute

    one = target(options)
    before = [c.where for c in one.changes(one.observe(), one.desired(program))]
    with IPRoute() as route:
        route.link("add", ifname="late0", kind="veth", peer={"ifname": "late1"}, index=4242)
    after = [c.where for c in one.changes(one.observe(), one.desired(program))]
    with IPRoute() as route:
        route.link("del", index=4242)
    return before, after


def test_an_interface_that_appears_later_is_drift(cluster: Cluster) -> None:
    """It is not covered until the next apply; `verify` and `diff` say so."""
    options = InstallOptions(no_cgroup=True)
    cluster.call("node/w1", support.install, support.both("w1"), options)
    before, after = cluster.call("node/w1", new_interface, support.both("w1"), options)
    assert before == []
    assert {"hook from_pod at 4242", "hook to_pod at 4242"} <= set(after)


def without_clang(programs: list[Program], options: InstallOptions) -> tuple[int, str]:
    """Programs one by one on a node without clang: how many went well, and what the first other one said."""

    def missing(_source: str) -> bytes:
        raise BuildError("clang is missing")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "build", missing)
        for done, program in enumerate(programs):
            try:
                support.install(program, options)
            except BuildError as error:
                return done, str(error)
    return len(programs), ""


def test_clang_is_not_asked_again_for_the_same_c(cluster: Cluster) -> None:
    options = InstallOptions(no_cgroup=True)
    w1 = support.services("w1")
    cluster.call("node/w1", support.install, w1, options)
    programs = [without_a_nodeport(w1), w1, without_a_nodeport(w1), without_sctp(w1)]
    assert cluster.call("node/w1", without_clang, programs, options) == (3, "clang is missing")
    probe = Probe("client/out", support.node_address(Family.IPV4, 1), TCP, 30080)
    assert cluster.probe_all([probe])[0].answered


def full_table(program: Program, options: InstallOptions) -> tuple[str, bool]:
    """What an apply says whose tables are smaller than their content, and whether the node is as it was."""
    real = bpf_objects.Object.size

    def halved(self: bpf_objects.Object, name: str, entries: int) -> None:
        real(self, name, max(1, entries // 2) if name.startswith("targets") else entries)

    one = target(options)
    before = one.observe()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpf_objects.Object, "size", halved)
        try:
            for step in one.steps(before, one.desired(program)):
                step.run()
        except (libbpf.BpfError, InstallError) as error:
            return str(error), one.observe() == before
    return "nothing", False


def test_a_full_table_is_an_error_before_the_switch(cluster: Cluster) -> None:
    first, second = support.services("w1", (Family.IPV4,)), support.services("w1")
    options = InstallOptions(no_cgroup=True)
    cluster.call("node/w1", support.install, first, options)
    said, same = cluster.call("node/w1", full_table, second, options)
    assert same, "the node runs something else now"
    assert "targets" in said, said
    probe = Probe("client/out", support.node_address(Family.IPV4, 1), TCP, 30080)
    assert cluster.probe_all([probe])[0].answered
    cluster.call("node/w1", support.install, second, options)  # the next apply is as good as any
    assert cluster.probe_all([probe])[0].answered
