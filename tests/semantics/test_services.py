"""Every case of `cases.py` on every back end: what the real packet did = what the interpreter said = what it states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from k8snetc.ir.types import Address, Protocol
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.expect import SECOND_LOOK, Expected, Predictor, observe
from k8snetc.lab.probe import Outcome, Probe, ProbeResult
from tests.semantics import dataplanes
from tests.semantics.build import programs
from tests.semantics.cases import CASES, Case, Fate, Flow, Reaches, Source
from tests.semantics.dataplanes import Dataplane
from tests.semantics.world import NODES, TOPOLOGY, address, place

# Chance that one of two equally likely endpoints is never chosen: 2 * 0.5 ** 28, less than one in a hundred million.
REPEAT = 28
# Where endpoints take turns: each of up to three more than once, so that a wrong one between them would be seen.
SOME = 7

OUTCOMES = {Fate.REFUSED: Outcome.REFUSED, Fate.DROPPED: Outcome.TIMEOUT}


@dataclass(frozen=True, slots=True)
class Attempt:
    """A flow in one family, with its probe and what the programs say of it."""

    flow: Flow
    probe: Probe
    expected: Expected

    @property
    def endpoints(self) -> int:
        """How many are to be seen."""
        return len(self.flow.expect.endpoints) if isinstance(self.flow.expect, Reaches) else 0

    def misses(self, results: list[ProbeResult]) -> bool:
        """Whether not every endpoint was seen."""
        return len({r.server for r in results}) < self.endpoints


def _destination(name: str, family: int) -> Address | None:
    if "," in name and not name.split(",")[0 if family == 4 else 1]:
        return None
    return address(name, family)


def _attempts(case: Case, predictor: Predictor) -> Iterator[Attempt]:
    for flow in case.flows:
        for family in (4, 6):
            to = _destination(flow.to, family)
            if to is not None:
                protocol = None if flow.protocol == "icmp" else Protocol(flow.protocol)
                probe = Probe(place(flow.client), to, protocol, flow.port)
                yield Attempt(flow, probe, predictor.predict(probe))


def _wrong(attempt: Attempt, results: list[ProbeResult]) -> Iterator[str]:
    """How the interpreter and the packets differ from the case, and from each other."""
    probe, expected, stated = attempt.probe, attempt.expected, attempt.flow.expect
    if isinstance(stated, Reaches):
        servers = {place(e) for e in stated.endpoints}
        if {a.server for a in expected.arrivals} != servers or expected.outcomes:
            yield f"{probe}: the interpreter says {expected}, the case {sorted(servers)}"
        if {r.server for r in results} != servers:
            yield f"{probe}: reached {sorted({str(r) for r in results})}, the case says {sorted(servers)}"
        for result in results:
            yield from _wrong_arrival(probe, stated, result)
    else:
        if expected.arrivals:
            yield f"{probe}: the interpreter says {expected}, the case {stated.value}"
        for result in results:
            outcome = OUTCOMES.get(stated)
            if result.answered or (outcome is not None and result.outcome is not outcome):
                yield f"{probe}: {result}, the case says {stated.value}"
        if stated is Fate.FAILED:
            return
    for result in results:
        if not expected.allows(result):
            yield f"{probe}: {result}, the interpreter says {expected}\n" + "\n".join(expected.steps)


def _wrong_arrival(probe: Probe, stated: Reaches, result: ProbeResult) -> Iterator[str]:
    if result.endpoint is None or result.source is None:
        return
    if stated.port and result.endpoint.port != stated.port:
        yield f"{probe}: port {result.endpoint.port}, the case says {stated.port}"
    own = set(TOPOLOGY.addresses(probe.client))
    nodes = {a for n in NODES for a in TOPOLOGY.addresses(f"node/{n}")}
    allowed = own if stated.source is Source.CLIENT else nodes
    if result.source.address not in allowed:
        yield f"{probe}: source {result.source.address}, the case says {stated.source.value}"


@pytest.mark.kernel
@pytest.mark.parametrize("dataplane", [*dataplanes.ALL, dataplanes.IN_VM], ids=lambda d: d.name)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_case(case_world: Cluster, dataplane: Dataplane, case: Case, tmp_path: Path) -> None:
    made = programs(tmp_path, case.manifests, case.options)
    dataplanes.install(case_world, dataplane, made)
    attempts = list(_attempts(case, Predictor(TOPOLOGY, made)))
    wrong: list[str] = []
    many, one = [a for a in attempts if a.endpoints > 1], [a for a in attempts if a.endpoints <= 1]
    seen = [
        *_observe(case_world, dataplane, one, 1),
        *_observe(case_world, dataplane, many, SOME if dataplane.in_turn else REPEAT),
    ]
    # Several clients at once share the turns of a service: ask on where one of them never had its turn.
    missed = [(a, results) for a, results in seen if dataplane.in_turn and a.misses(results)]
    again = _observe(case_world, dataplane, [a for a, _ in missed], REPEAT)
    for (_, results), (_, more) in zip(missed, again, strict=True):
        results.extend(more)
    for attempt, results in seen:
        wrong += _wrong(attempt, results)
    assert not wrong, "\n".join(dict.fromkeys(wrong))


def _observe(
    world: Cluster, dataplane: Dataplane, attempts: list[Attempt], repeat: int
) -> list[tuple[Attempt, list[ProbeResult]]]:
    seen = observe(
        world,
        [a.probe for a in attempts],
        [a.expected for a in attempts],
        repeat=repeat,
        patience=SECOND_LOOK * dataplane.slowness,
    )
    return list(zip(attempts, seen, strict=True))


def test_cases_have_names_of_their_own() -> None:
    names = [c.name for c in CASES]
    assert len(set(names)) == len(names)
