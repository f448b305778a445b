"""Generated policies on real packets: two nodes, nine pods each in three namespaces, thousands of probes at a time.

Every pair of places, every protocol, both families: what each packet did is what the interpreter says.
"""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from k8snetc.ir.types import Family, Protocol
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.expect import Predictor, observe
from k8snetc.lab.probe import Outcome, Probe
from tests.semantics import dataplanes
from tests.semantics import policy_cluster as cluster
from tests.semantics.clusters import Document, policies
from tests.semantics.test_policies import PLANES, programs_of

ENDS = [
    (Protocol.TCP, 80),
    (Protocol.TCP, 81),
    (Protocol.UDP, 80),
    (Protocol.UDP, 81),
    (Protocol.SCTP, 80),
    (None, 0),
]
EXAMPLES = 6


def probes(lab: Cluster) -> list[Probe]:
    """From everybody to every pod, and from every pod to the nodes and the outside."""
    topology = lab.topology
    pods = [p.place for p in topology.pods if not p.host_network]
    others = [*(n.place for n in topology.nodes), *(c.place for c in topology.clients)]
    pairs = [*product([*pods, *others], pods), *product(pods, others)]
    out = []
    for (client, server), (protocol, port), family in product(pairs, ENDS, Family):
        address = topology.address(server, family)
        if client != server and address is not None:
            out.append(Probe(client, address, protocol, port))
    return out


@pytest.mark.kernel
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dataplane", PLANES)
def test_packets_do_what_the_interpreter_says(policy_lab: Cluster, dataplane: dataplanes.Dataplane) -> None:
    lab = policy_lab
    wanted = probes(lab)
    assert len(wanted) > 4000
    seen: Counter[Outcome] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(policies())
    def check(generated: list[Document]) -> None:
        programs = programs_of([*cluster.documents(), *generated])
        lab.reset()
        dataplanes.install(lab, dataplane, programs)
        predictor = Predictor(lab.topology, programs)
        expected = [predictor.predict(p) for p in wanted]
        results = [r[0] for r in observe(lab, wanted, expected)]
        wrong = [
            f"{probe}: expected {what}; was {result}\n    " + "\n    ".join(what.steps)
            for probe, what, result in zip(wanted, expected, results, strict=True)
            if not what.allows(result)
        ]
        assert not wrong, f"{len(wrong)} of {len(wanted)} probes\n" + "\n".join(wrong[:20])
        seen.update(r.outcome for r in results)

    check()
    # A generator that never denies, or never allows, would prove nothing.
    assert min(seen[Outcome.ANSWERED], seen[Outcome.TIMEOUT]) > 1000, seen
