"""Random programs on the real kernel: what packets do is what the interpreter says."""

from __future__ import annotations

import pytest

from k8snetc.backends.base import EmitOptions
from k8snetc.backends.nftables import BACKEND
from k8snetc.ir.text import text_of
from k8snetc.lab.cluster import Cluster
from tests.support import nftables
from tests.support.flows import disagreements
from tests.support.programs import Generator, flows

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("seed", range(12))
def test_packets_go_where_the_interpreter_says(shared_cluster: Cluster, seed: int) -> None:
    topology = shared_cluster.topology
    program = Generator(topology, seed).program(policy=seed % 2 == 1)
    nftables.install(shared_cluster, "node/w1", BACKEND.compile(program, EmitOptions(comments=seed % 3 > 0)))
    probes = flows(program, topology, seed)
    wrong = disagreements(shared_cluster, program, probes)
    assert not wrong, "\n".join([f"{len(wrong)} of {len(probes)}", *wrong[:40], text_of(program)])
