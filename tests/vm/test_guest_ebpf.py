"""The eBPF back end on Debian 12's kernel: its verifier takes every program, and packets go where they should.

There is no TCX on that kernel, so clsact filters are what attaches the programs.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from k8snetc.backends.ebpf import bpf_objects, counters, emit, generation, pins
from k8snetc.backends.ebpf.lower import lower
from k8snetc.backends.ebpf.watch import Watch
from k8snetc.backends.target import InstallOptions
from k8snetc.ir.parse import parse
from k8snetc.ir.types import Family, PortRange, Program, Rule, Verdict
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.expect import compare
from k8snetc.lab.probe import Probe
from k8snetc.lab.topology import Topology
from tests.backends.ebpf import support
from tests.backends.ebpf.test_emit import CASES, HERE
from tests.support.lab import TCP, UDP, client, node, pod
from tests.support.repository import ROOT
from tests.vm import objects

pytestmark = pytest.mark.vm

EXAMPLES = sorted(p.parents[2].name for p in (ROOT / "examples").glob("*/golden/ebpf/k8snetc.bpf.c"))


def sources() -> Iterator[tuple[str, str]]:
    """(name, C) of every golden program and every example."""
    for case in CASES:
        yield case, emit.program(lower(parse((HERE / case / "program.ir").read_text())))
    for example in EXAMPLES:
        yield example, (ROOT / "examples" / example / "golden/ebpf/k8snetc.bpf.c").read_text()


def in_force() -> Program:
    """Services of all kinds over TCP and UDP, in both families; pod a is open to everybody at one TCP port only."""
    program = support.both("w1")
    allow = Rule(Verdict.ALLOW, None, TCP, (PortRange(8080, 8080),))
    few = tuple(f for f in program.frontends if f.protocol in (TCP, UDP))
    ruled = tuple(replace(e, rules=(allow,)) for e in program.enforcements)
    return replace(program, frontends=few, enforcements=ruled)


def prepare_on_host() -> None:
    """Compile everything, before the guest starts."""
    for _, source in sources():
        objects.compiled(source)
    objects.compiled(emit.program(lower(in_force())))
    objects.entry()


@pytest.mark.parametrize("name", [*CASES, *EXAMPLES])
def test_the_verifier_takes_it(name: str) -> None:
    made = bpf_objects.Object(objects.compiled(dict(sources())[name]), "k8snetc")
    try:
        for table in made.map_names:
            if table.startswith(("connections", "sockets", "datagrams", "affinity", "fragments")):
                made.size(table, 64)  # nothing is put into them here
        made.load()
    finally:
        made.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes with three pods, a client; the program on one of them, its sockets balanced too."""
    pods = (pod("a", 1, 2), pod("b", 1, 3), pod("c", 2, 2), pod("d", 2, 3))
    with Cluster(Topology((node(1), node(2)), pods, (client(),)), with_cgroups=True) as made:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(generation, "build", objects.compiled)
            patch.setattr(pins, "entry", objects.entry)
            options = InstallOptions(cgroup=str(made.cgroup("w1")))
            made.call("node/w1", support.install, in_force(), options)
        yield made


def test_the_filters_are_clsact(cluster: Cluster) -> None:
    shown = cluster.run("node/w1", ["tc", "filter", "show", "dev", "eth0", "ingress"]).stdout
    assert "k8snetc_from_outside direct-action" in shown


@pytest.mark.parametrize("family", list(Family))
def test_services_and_policy(cluster: Cluster, family: Family) -> None:
    w1, a = support.node_address(family, 1), support.pod(family, "a")
    probes = [
        Probe("client/out", w1, TCP, 30080),
        Probe("client/out", w1, TCP, 30081),
        Probe("client/out", support.of(family, "192.0.2.10", "2001:db8:e::10"), TCP, 80),
        *(
            Probe(c, support.service(family, n), TCP, 80)
            for c in ("pod/shop/b", "node/w1")
            for n in (1, 2, 4)
        ),
        Probe("client/out", w1, UDP, 30080),
        *(Probe(c, support.service(family, 1), UDP, 80) for c in ("pod/shop/b", "node/w1")),
        Probe("pod/shop/b", support.service(family, 1), TCP, 81),
        Probe("pod/shop/a", support.service(family, 5), TCP, 80),
        Probe("pod/shop/b", a, TCP, 8080),
        Probe("pod/shop/b", a, TCP, 8081),
        Probe("pod/shop/c", a, UDP, 5353),
        Probe("pod/shop/c", a, None),
    ]
    programs = {"w1": in_force(), "w2": Program(node=support.node("w2"))}
    wrong = compare(cluster, programs, [replace(p, timeout=3) for p in probes])
    assert not wrong, "\n".join(map(str, wrong))


def counted_and_told() -> tuple[dict[str, int], str, str]:
    """The counters, and the destination and enforcement of the first denied packet that a watcher is told of."""
    program = in_force()
    found = counters.read(pins.Entry(), program)
    assert found is not None
    with Watch(rate=100) as watch:
        watch.know(e.name for e in program.enforcements)
        for _ in range(40):
            for packet in watch.poll(0.5):
                return found.verdicts, str(packet.destination), watch.name(packet)
    return found.verdicts, "nothing", "told"


def test_counters_and_denied_packets(cluster: Cluster) -> None:
    a = support.pod(Family.IPV6, "a")
    node_port = Probe("client/out", support.node_address(Family.IPV4, 1), TCP, 30080, timeout=10)
    assert cluster.probe_all([node_port])[0].answered
    traffic = cluster.traffic(Probe("pod/shop/c", a, UDP, 5353, timeout=0.5), rate=5)
    verdicts, destination, enforcement = cluster.call("node/w1", counted_and_told)
    assert traffic.stop().failed
    assert verdicts["opened"] > 0
    assert (destination, enforcement) == (str(a), "a-in-6")
