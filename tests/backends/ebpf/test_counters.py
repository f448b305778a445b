"""What the programs count: exact, over generations, forgotten with its object; no code where nobody wants it."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from k8snetc.backends.ebpf import counters, emit
from k8snetc.backends.ebpf.counters import Counters, PolicyCount, ServiceCount
from k8snetc.backends.ebpf.lower import lower
from k8snetc.backends.ebpf.numbers import hashed, numbers
from k8snetc.backends.ebpf.pins import Entry
from k8snetc.backends.target import InstallOptions, Section
from k8snetc.ir.types import Family, PortRange, Program, Rule, Verdict
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Probe
from tests.backends.ebpf import support
from tests.backends.ebpf.test_apply import without_sctp
from tests.support.lab import TCP, UDP

NODE_PORT, CLUSTER_IP = "shop/30080 node-port", "shop/80 cluster-ip"


def program_of() -> Program:
    """Services, and pod a open to everybody at one port only: that of its services over TCP."""
    program = support.both("w1")
    allow = Rule(Verdict.ALLOW, None, TCP, (PortRange(8080, 8080),))
    return replace(program, enforcements=tuple(replace(e, rules=(allow,)) for e in program.enforcements))


def read(program: Program) -> Counters:
    found = counters.read(Entry(), program)
    assert found is not None
    return found


def details(program: Program, options: InstallOptions) -> tuple[Section, ...]:
    from k8snetc.backends.ebpf.install import target

    return target(options).details(program)


@pytest.mark.kernel
@pytest.mark.parametrize("family", list(Family))
def test_counted_with_real_packets(cluster: Cluster, family: Family) -> None:
    program, options = program_of(), InstallOptions(cgroup=str(cluster.cgroup("w1")))
    cluster.call("node/w1", support.install, program, options)
    port = Probe("client/out", support.node_address(family, 1), TCP, 30080)
    assert all(r.answered for r in cluster.probe_all([port] * 7))
    one = cluster.call("node/w1", read, program)
    assert one.services == {NODE_PORT: ServiceCount(opened=7)}
    assert one.verdicts["opened"] == 7

    service = support.service(family, 1)
    inside = [Probe("pod/shop/b", service, TCP, 80)] * 3
    assert all(r.answered for r in cluster.probe_all(inside))
    two = cluster.call("node/w1", read, program)
    # A pod's socket may be an endpoint of the service itself, then its packets are balanced instead.
    counted = two.services[CLUSTER_IP]
    assert counted.sockets + counted.opened == 3
    assert counted.sockets + two.verdicts["opened"] == 10

    empty = support.service(family, 2)
    (refused,) = cluster.probe_all([Probe("pod/shop/b", empty, TCP, 80)])
    assert not refused.answered
    assert cluster.call("node/w1", read, program).services[CLUSTER_IP].rejected == counted.rejected + 1

    name = f"a-in-{family.value}"
    before = cluster.call("node/w1", read, program).policies.get(name, PolicyCount())
    a = support.pod(family, "a")
    answers = cluster.probe_all(
        [
            Probe("pod/shop/b", a, TCP, 8080),
            Probe("pod/shop/b", a, TCP, 8081),
            Probe("pod/shop/c", a, UDP, 5353),
        ]
    )
    assert [r.answered for r in answers] == [True, False, False]
    now = cluster.call("node/w1", read, program)
    assert now.policies[name].allowed == before.allowed + 1
    assert now.policies[name].denied >= before.denied + 2
    assert now.verdicts["denied"] == sum(p.denied for p in now.policies.values())

    # Other C and fewer services: what is still there counts on, what is gone is forgotten.
    other = without_sctp(program)
    other = replace(other, frontends=tuple(f for f in other.frontends if f.port != 30080))
    cluster.call("node/w1", support.install, other, options)
    cluster.call("node/w1", cut, other, options)
    after = cluster.call("node/w1", read, program)
    assert NODE_PORT not in after.services
    assert after.services[CLUSTER_IP] == now.services[CLUSTER_IP]
    assert after.policies == now.policies
    assert after.verdicts == now.verdicts


def cut(program: Program, options: InstallOptions) -> int:
    from k8snetc.backends.ebpf.install import target

    return target(options).cut(None, program)


@pytest.mark.kernel
def test_what_status_tells(cluster: Cluster) -> None:
    program, options = program_of(), InstallOptions(cgroup=str(cluster.cgroup("w1")))
    cluster.call("node/w1", support.install, program, options)
    sections = {s.name: s for s in cluster.call("node/w1", details, program, options)}
    assert list(sections) == ["programs", "attached", "tables", "services", "policies", "verdicts"]
    hooks = {row[0] for row in sections["programs"].rows}
    assert hooks == {hook for hook, _ in emit.hook_list(lower(program))}
    assert all(isinstance(row[2], int) and row[2] > 10 for row in sections["programs"].rows)
    attached = {(hook, at) for hook, at, _ in sections["attached"].rows}
    assert {("from_outside", "eth0"), ("to_outside", "lo")} <= attached
    assert ("connect4", str(cluster.cgroup("w1"))) in attached
    tables = {row[0]: row[1:] for row in sections["tables"].rows}
    frontends = sum(f.family is Family.IPV4 for f in program.frontends)
    assert tables["frontends4"] == ("hash", frontends, frontends)
    assert tables["connections4"][0] == "LRU hash"
    assert tables["connections4"][2] == emit.CONNECTIONS
    assert cluster.probe_all([Probe("client/out", support.node_address(Family.IPV4, 1), TCP, 30080)])[
        0
    ].answered
    again = {s.name: s for s in cluster.call("node/w1", details, program, options)}
    assert ("shop/30080", "node-port", 1, 0, 0, 0) in again["services"].rows
    filled = {row[0]: row[2] for row in again["tables"].rows}
    assert filled["connections4"] in (3, 4)


@pytest.mark.kernel
def test_without_counters_nothing_counts(cluster: Cluster) -> None:
    program = program_of()
    options = InstallOptions(cgroup=str(cluster.cgroup("w1")), ebpf_counters=False)
    cluster.call("node/w1", support.install, program, options)
    assert cluster.probe_all([Probe("client/out", support.node_address(Family.IPV4, 1), TCP, 30080)])[
        0
    ].answered
    sections = [s.name for s in cluster.call("node/w1", details, program, options)]
    assert sections == ["programs", "attached", "tables"]


def test_no_code_where_nobody_wants_them() -> None:
    program = support.both("w1")
    text = emit.program(lower(program, counters=False)).partition("--- types")[2]
    assert "COUNT_" not in text
    assert "denials" not in text
    services = emit.program(lower(support.services("w1")))
    assert "service_counts" in services
    assert "policy_counts" not in services
    assert "denials" not in services
    policies = emit.program(lower(support.policies("w1")))
    assert "denials" in policies
    assert "service_counts" not in policies


def test_numbers_differ_whatever_their_hashes() -> None:
    names = [f"name {n}" for n in range(100)]
    made = numbers(names, number=lambda text: hashed(text) % 200)
    assert len(set(made.values())) == len(names)
    assert 0 not in made.values()
    assert numbers(names).items() < numbers([*names, "another"]).items()


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
def test_every_verdict_has_a_name() -> None:
    text = emit.program(lower(support.both("w1")))
    names = [
        line.split()[0].removeprefix("COUNT_") for line in text.splitlines() if line.startswith("\tCOUNT_")
    ]
    assert [n.lower().replace("_", "-") for n in names] == [name for name, _ in counters.VERDICTS]
