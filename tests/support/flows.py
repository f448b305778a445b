"""What packets did in the lab, compared with what the interpreter says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from k8snetc.ir.interpret import Interpreter, Packet, Result, Sender
from k8snetc.ir.types import Address, Family, Program, Protocol, Refusal
from k8snetc.lab import wiring
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Outcome, Probe, ProbeResult, Seen
from k8snetc.lab.topology import Pod, Topology
from tests.support.programs import NODE

PATIENCE = 4.0
"""Seconds that a probe may take the second time."""


def packet_of(topology: Topology, probe: Probe) -> Packet:
    """The packet of a probe as node w1 first sees it."""
    source = probe.source
    if source is None and probe.destination.is_loopback:
        source = probe.destination
    if source is None:
        source = topology.address(probe.client, Family(probe.destination.version))
    assert source is not None
    home = topology.home(probe.client)
    sender = {"node": Sender.NODE, "pod": Sender.POD, "client": Sender.EXTERNAL}[home.split("/")[0]]
    if sender is not Sender.EXTERNAL and topology.node_of(probe.client) != NODE:
        sender = Sender.EXTERNAL
    return Packet(
        sender, source, probe.destination, probe.protocol, probe.port, _interface(topology, probe.client)
    )


def _interface(topology: Topology, client: str) -> str:
    """Where a place's packets come into node w1."""
    place = topology.places[topology.home(client)]
    if place.place == f"node/{NODE}":
        return ""
    return wiring.interface(topology, place) if isinstance(place, Pod) and place.node == NODE else "eth0"


def disagreements(
    cluster: Cluster, program: Program, probes: Sequence[Probe], *, patience: float = PATIENCE
) -> list[str]:
    """Send the probes; say of each that went another way than the interpreter allows which, how and why.

    Silence where an answer was due is tried again with more patience (seconds): the machine may be busy.
    """
    interpreter = Interpreter(program)
    late: list[Probe] = []
    wrong: list[str] = []

    def check(tried: Sequence[Probe], again: list[Probe]) -> None:
        for probe, got in zip(tried, cluster.probe_all(tried), strict=True):
            packet = packet_of(cluster.topology, probe)
            expected = interpreter.run(packet)
            problem = disagreement(cluster.topology, packet, expected, got)
            if problem is not None and got.outcome is Outcome.TIMEOUT and probe.timeout < patience:
                again.append(replace(probe, timeout=patience))
            elif problem is not None:
                steps = "; ".join(s.text for s in expected.steps)
                wrong.append(f"{probe}: {got}, but {problem} ({steps})")

    check(probes, late)
    check(late, [])
    return wrong


def disagreement(topology: Topology, packet: Packet, expected: Result, got: ProbeResult) -> str | None:
    """Why the outcome can't be what the interpreter says; None if it can."""
    match expected.refusal:
        case Refusal.REJECT:
            return None if got.outcome is Outcome.REFUSED else "it should be rejected"
        case Refusal.DROP:
            return None if got.outcome is Outcome.TIMEOUT else "it should be dropped"
        case None:
            pass
    if got.outcome is Outcome.TIMEOUT and any(d.denied for d in expected.deliveries):
        return None
    reasons = []
    for delivery in expected.arrivals:
        problem = _arrival(
            topology,
            packet,
            Seen(delivery.address, delivery.port if packet.protocol else 0),
            delivery.masqueraded,
            got,
        )
        if problem is None:
            return None
        reasons.append(problem)
    return " and ".join(reasons) if reasons else "policy denies it"


def _listens(topology: Topology, address: Address, protocol: Protocol | None, port: int) -> bool:
    if protocol is None:
        return address in topology.owners
    homes = [p for p in topology.all if address in topology.addresses(p.place)]
    return any((protocol, port) in p.ports for p in homes)


def _arrival(
    topology: Topology, packet: Packet, where: Seen, masqueraded: bool, got: ProbeResult
) -> str | None:
    if where.address not in topology.owners and not where.address.is_loopback:
        return None if got.outcome is Outcome.TIMEOUT else f"nobody is at {where.address}"
    if not _listens(topology, where.address, packet.protocol, where.port):
        return None if got.outcome is Outcome.REFUSED else f"nobody listens at {where}"
    if not got.answered:
        return f"{where.address} port {where.port} should answer"
    if packet.protocol is None:
        return None
    if got.endpoint != where:
        return f"{where.address} port {where.port} should answer"
    assert got.source is not None
    sources = topology.addresses(f"node/{NODE}") if masqueraded else (packet.source,)
    if got.source.address not in sources:
        how = "masqueraded" if masqueraded else "with its own address"
        return f"it should arrive {how} at {where.address}"
    return None
