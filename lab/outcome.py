"""The results of a lab run: grouped for people, or one by one for programs.

Knows: probes, results and what was expected. Must not know: how they were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from k8snetc.ir.types import Address
from k8snetc.lab.expect import Expected
from k8snetc.lab.probe import Probe, ProbeResult
from k8snetc.lab.targets import Target, is_own
from k8snetc.lab.topology import Topology

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Trial:
    """One client's probes of one target."""

    probe: Probe
    target: Target
    expected: Expected
    results: tuple[ProbeResult, ...]

    @property
    def good(self) -> bool:
        """Whether every result is one that the programs allow."""
        return all(self.expected.allows(r) for r in self.results)


@dataclass(frozen=True, slots=True)
class Row:
    """Clients of one target to whom the same happened."""

    service: str
    target: str
    clients: tuple[str, ...]
    outcome: str
    endpoints: str
    source: str
    expected: str  # "" where it happened as expected


def rows(topology: Topology, trials: Sequence[Trial]) -> list[Row]:
    """One row per target and kind of result, in the order of the trials.

    A balancer chooses by chance, so clients are together to whom the same could have happened and it did.
    """
    groups: dict[tuple[object, ...], list[Trial]] = {}
    for trial in trials:
        could = frozenset(
            (a.server, a.endpoint, _whose(topology, trial.probe.client, a.source))
            for a in trial.expected.arrivals
        )
        was: object = None if trial.good else (_outcome([trial]), _endpoints([trial]))
        groups.setdefault((trial.target, could, trial.expected.outcomes, was), []).append(trial)
    return [
        Row(
            group[0].target.name,
            str(group[0].target),
            tuple(dict.fromkeys(_client(topology, t) for t in group)),
            _outcome(group),
            _endpoints(group),
            _sources(topology, group),
            "" if group[0].good else str(group[0].expected),
        )
        for group in groups.values()
    ]


def to_data(trials: Sequence[Trial], *, assumed: bool = False) -> dict[str, object]:
    """Everything, for JSON. `assumed`: the lab's addresses were made up."""
    return {
        "format_version": FORMAT_VERSION,
        "assumed": assumed,
        "probes": [
            {
                "client": t.probe.client,
                "source": None if t.probe.source is None else str(t.probe.source),
                "service": t.target.name,
                "destination": str(t.target.address),
                "protocol": "icmp" if t.target.protocol is None else t.target.protocol.value,
                "port": t.target.port,
                "as_expected": t.good,
                "expected": str(t.expected),
                "results": [_result(r) for r in t.results],
            }
            for t in trials
        ],
        "summary": {
            "probes": sum(len(t.results) for t in trials),
            "different": sum(not t.good for t in trials),
        },
    }


def _result(result: ProbeResult) -> dict[str, object]:
    return {
        "outcome": result.outcome.value,
        "error": result.error,
        "server": result.server,
        "endpoint": None if result.endpoint is None else [str(result.endpoint.address), result.endpoint.port],
        "source": None if result.source is None else [str(result.source.address), result.source.port],
        "seconds": round(result.elapsed, 6),
    }


def _outcome(group: Sequence[Trial]) -> str:
    return ", ".join(sorted({r.outcome.value for t in group for r in t.results}))


def _endpoints(group: Sequence[Trial]) -> str:
    seen = {
        f"{r.server}:{r.endpoint.port}"
        for t in group
        for r in t.results
        if r.answered and r.endpoint is not None
    }
    return ", ".join(sorted(seen))


def _sources(topology: Topology, group: Sequence[Trial]) -> str:
    seen = {
        _whose(topology, t.probe.client, r.source.address)
        for t in group
        for r in t.results
        if r.source is not None
    }
    return ", ".join(sorted(seen))


def _whose(topology: Topology, client: str, source: Address | None) -> str:
    """Whose address the server sees."""
    if source is None:
        return ""
    return "the client" if is_own(topology, client, source) else topology.owners.get(source, str(source))


def _client(topology: Topology, trial: Trial) -> str:
    source = trial.probe.source
    first = topology.address(trial.probe.client, trial.target.family)
    return trial.probe.client if source in {None, first} else f"{trial.probe.client} ({source})"
