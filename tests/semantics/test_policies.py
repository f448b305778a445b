"""Each policy case: the manifests, the interpreter and real packets say what the case states."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import product
from pathlib import Path

import pytest
import yaml
from _pytest.mark.structures import ParameterSet

from k8snetc.compiler.context import node_context
from k8snetc.compiler.lower import lower
from k8snetc.compiler.manifests import read
from k8snetc.compiler.options import ContextOptions
from k8snetc.compiler.resolve import resolve
from k8snetc.ir.passes import run_passes
from k8snetc.ir.types import Program
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.expect import SECOND_LOOK, Expected, Predictor, observe
from k8snetc.lab.probe import Outcome
from tests.semantics import dataplanes
from tests.semantics import policy_cluster as cluster
from tests.semantics.policy_cases import CASES, Case
from tests.semantics.policy_flows import Flow, flows, naive_allows

# One group a dataplane: a worker builds its lab once, and workers share the dataplanes out.
PLANES = [
    pytest.param(d, id=d.name, marks=pytest.mark.xdist_group(f"policies-{d.name}")) for d in dataplanes.ALL
]
STATED = {"passes": Outcome.ANSWERED, "drops": Outcome.TIMEOUT, "refused": Outcome.REFUSED}


def documents_of(case: Case) -> list[cluster.Document]:
    """The cluster with the case's policies."""
    return [*cluster.documents(), *(d for d in yaml.safe_load_all(case.policies) if d)]


def programs_of(documents: Sequence[cluster.Document]) -> dict[str, Program]:
    """Each node's program."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}).encode()
    manifests = read(["-"], BytesIO(text))
    contexts = {
        name: node_context(manifests, ContextOptions(node=name, cluster_cidr=cluster.CLUSTER_CIDRS))
        for name in cluster.PODS
    }
    return {name: run_passes(lower(resolve(manifests, context))) for name, context in contexts.items()}


def stated(case: Case) -> list[tuple[Flow, Outcome]]:
    """The flows of a case, with what it says becomes of them."""
    return [(flow, outcome) for name, outcome in STATED.items() for flow in flows(getattr(case, name))]


def outcomes_of(expected: Expected) -> set[Outcome]:
    """What may become of a probe, arrivals included."""
    return set(expected.outcomes) | ({Outcome.ANSWERED} if expected.arrivals else set())


def test_case_names_are_unique() -> None:
    assert len({c.name for c in CASES}) == len(CASES)
    assert {c.name for c in CASES} >= READ_BACK_IN_VM


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_manifests_and_interpreter(case: Case) -> None:
    documents = documents_of(case)
    predictor = Predictor(cluster.topology(), programs_of(documents))
    for flow, outcome in stated(case):
        assert naive_allows(documents, flow) is (outcome is not Outcome.TIMEOUT), f"naive: {flow.text}"
        expected = predictor.predict(flow.probe)
        assert outcomes_of(expected) == {outcome}, f"{flow.text}: {expected}\n" + "\n".join(expected.steps)


# One variant of each back end: the others, which judge alike, have the generated policies (`test_policy_packets`).
ONE_EACH = [p for p in PLANES if p.id not in {"iptables-nft", "ebpf-sockets"}]


TABLE = Path(__file__).parents[2] / "docs" / "semantics.md"
# Of the cases on IPVS, in the virtual machine: what policy has to do with services and with the node, and one of each
# kind of rule. Only after these the node is read back, which there takes longer than all else: the chains themselves
# are those of the iptables back end, and read back there each time.
READ_BACK_IN_VM = frozenset(
    {
        "service-is-judged-after-translation",
        "service-needs-the-endpoints-ingress",
        "outside-client-of-a-node-port",
        "itself-through-its-service",
        "node-and-its-own-pods",
        "replies-and-their-errors",
        "icmp-is-a-protocol-that-no-port-names",
        "both-sides-must-allow",
        "block-with-except",
        "named-port-is-the-destination-pods",
        "sctp-is-its-own",
        "pass-hands-on-to-network-policy-and-baseline",
    }
)


def tries() -> Iterator[ParameterSet]:
    """Every case on every dataplane."""
    for plane, case in product(ONE_EACH, CASES):
        yield pytest.param(case, plane.values[0], id=f"{case.name}-{plane.id}", marks=plane.marks)
    for case in CASES:
        yield pytest.param(case, dataplanes.IN_VM.values[0], id=f"{case.name}-ipvs", marks=pytest.mark.vm)


@pytest.mark.kernel
@pytest.mark.parametrize(("case", "dataplane"), tries())
def test_packets(case_lab: Cluster, case: Case, dataplane: dataplanes.Dataplane) -> None:
    programs = programs_of(documents_of(case))
    look = not dataplane.follows_on or case.name in READ_BACK_IN_VM
    dataplanes.install(case_lab, dataplane, programs, look=look)
    predictor = Predictor(case_lab.topology, programs)
    wanted = stated(case)
    expected = [predictor.predict(flow.probe) for flow, _ in wanted]
    patience = SECOND_LOOK * dataplane.slowness
    observed = observe(case_lab, [flow.probe for flow, _ in wanted], expected, patience=patience)
    wrong = [
        f"{flow.text}: stated {outcome.value}, interpreter {what}, packet {result}"
        for (flow, outcome), what, (result,) in zip(wanted, expected, observed, strict=True)
        if result.outcome is not outcome or not what.allows(result)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_table_of_semantics_names_every_case_and_no_other() -> None:
    table = TABLE.read_text(encoding="utf-8")
    assert set(re.findall(r"policy:([a-z0-9-]+)", table)) == {c.name for c in CASES}
