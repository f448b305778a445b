"""Counters of the generated programs, by name; they outlive generations, and go when their object goes.

Knows: the numbers of `templates/counters.c.j2`. Must not know: how they are printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from k8snetc.backends.ebpf import bpf_maps, bpf_programs, tally
from k8snetc.backends.ebpf.numbers import numbers
from k8snetc.backends.ebpf.pins import Entry
from k8snetc.backends.ebpf.services import counted_as
from k8snetc.ir.types import Program

VERDICTS = (
    ("opened", "connections sent to an endpoint by their first packet"),
    ("sockets", "connections or datagrams sent to an endpoint at the socket"),
    ("allowed", "connections that policy let pass, once for each end and generation"),
    ("denied", "packets that policy denied"),
    ("rejected", "packets or sockets for a service without endpoints, or a port it does not have"),
    ("not-in-sources", "packets of clients in no source range of the service"),
    ("no-endpoint", "packets for a service that has no endpoint for this client"),
    ("no-service", "packets for service addresses that no service has"),
    ("invalid", "TCP packets with flags that never stand together"),
    ("malformed", "packets that can't be read"),
    ("other", "frames between pods that are neither IP nor ARP"),
    ("no-room", "packets for which a table had no room, or no port was free"),
    ("no-way", "packets that could not be rewritten or routed again"),
)
"""Name and meaning of `COUNT_*`, in that order."""

DENIED = 3  # COUNT_DENIED


@dataclass(frozen=True, slots=True)
class ServiceCount:
    """What became of a service port's clients, by the kind of address that they used."""

    opened: int = 0
    sockets: int = 0
    rejected: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class PolicyCount:
    """What an enforcement decided: connections that it let pass, packets that it denied."""

    allowed: int = 0
    denied: int = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """All of them. Services by `service exposure`, policies by the enforcement's name; those never used are missing."""

    verdicts: dict[str, int]
    services: dict[str, ServiceCount]
    policies: dict[str, PolicyCount]


def read(entry: Entry, program: Program) -> Counters | None:
    """The counters of what `program` installed; None where it was installed without."""
    with _open(entry, "verdict_counts") as table:
        if table is None:
            return None
        totals = {int.from_bytes(k, "little"): v[0] for k, v in tally.sums(table)}
    services = {n: name for name, n in _services(program).items()}
    policies = {n: name for name, n in _policies(program).items()}
    return Counters(
        {name: totals.get(i, 0) for i, (name, _) in enumerate(VERDICTS)},
        {services[n]: ServiceCount(*v) for n, v in _sums(entry, "service_counts") if n in services},
        {policies[n]: PolicyCount(*v) for n, v in _sums(entry, "policy_counts") if n in policies},
    )


def denied(entry: Entry) -> int:
    """How many packets policy has denied so far."""
    with _open(entry, "verdict_counts") as table:
        if table is None:
            return 0
        return sum(v[0] for k, v in tally.sums(table) if int.from_bytes(k, "little") == DENIED)


def collect(entry: Entry, program: Program) -> int:
    """Forget what was counted for objects that `program` does not have. Returns how many."""
    gone = 0
    for name, known in (("service_counts", _services(program)), ("policy_counts", _policies(program))):
        kept = {n.to_bytes(4, "little") for n in known.values()}
        with _open(entry, name) as table:
            if table is not None:
                stale = [k for k, _ in tally.sums(table) if k not in kept]
                gone += sum(table.delete(k) for k in stale)
    return gone


def _services(program: Program) -> dict[str, int]:
    return numbers(counted_as(f) for f in program.frontends)


def _policies(program: Program) -> dict[str, int]:
    return numbers(e.name for e in program.enforcements)


def _sums(entry: Entry, name: str) -> Iterable[tuple[int, tuple[int, ...]]]:
    with _open(entry, name) as table:
        if table is not None:
            return [(int.from_bytes(k, "little"), v) for k, v in tally.sums(table)]
        return []


@contextmanager
def _open(entry: Entry, name: str) -> Iterator[bpf_maps.Map | None]:
    path = entry.folder / "shared" / name
    if not path.exists():
        yield None
        return
    table = bpf_maps.map_of(bpf_programs.get(str(path)))
    try:
        yield table
    finally:
        table.close()
