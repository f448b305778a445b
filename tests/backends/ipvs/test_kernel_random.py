"""Random programs on a kernel with IPVS: what packets do is what the interpreter says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from k8snetc.ir.addresses import cover
from k8snetc.ir.text import text_of
from k8snetc.ir.types import AddressSet, Family, Program
from k8snetc.lab.cluster import Cluster
from tests.semantics.dataplanes import Dataplane, install
from tests.support.flows import disagreements
from tests.support.programs import Generator, flows

pytestmark = pytest.mark.vm(machine="ipvs")

LEGACY = Dataplane("ipvs-legacy", "ipvs")


def for_ipvs(program: Program) -> Program:
    """What IPVS does by its nature, said in the program: a service address belongs to the node, whole.

    So whatever no frontend defines there is rejected, and nothing is served on 127.0.0.1 (docs/semantics.md).
    """
    own = frozenset(program.node.addresses)
    sets = list(program.sets)
    for family in Family:
        mine = sorted(
            {int(f.address) for f in program.frontends if f.address and f.family is family}
            - {int(a) for a in own}
        )
        if mine:
            sets.append(AddressSet(f"bound {family}", family, cover(family, ((a, a) for a in mine))))
    names = tuple(s.name for s in sets[len(program.sets) :])
    node = replace(program.node, localhost_nodeports=False)
    return replace(program, sets=tuple(sets), rejects=(*program.rejects, *names), node=node)


@pytest.mark.parametrize("seed", range(6))
def test_packets_go_where_the_interpreter_says(shared_cluster: Cluster, seed: int) -> None:
    topology = shared_cluster.topology
    program = for_ipvs(Generator(topology, seed).program(policy=seed % 2 == 1))
    install(shared_cluster, LEGACY, {"w1": program})
    probes = [p for p in flows(program, topology, seed) if not p.destination.is_loopback]
    wrong = disagreements(shared_cluster, program, probes, patience=20)  # emulation is slow
    assert not wrong, "\n".join([f"{len(wrong)} of {len(probes)}", *wrong[:40], text_of(program)])
