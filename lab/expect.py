"""What the interpreter says becomes of a probe, over all the nodes that its packets cross, and whether that happened.

Knows: the way of a packet through a lab (client's node, then the node of where it goes), and `ir.interpret` for
what each node's program does. Must not know any back end. Nodes without a program forward as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from k8snetc.ir.interpret import Interpreter, Packet, Sender
from k8snetc.ir.types import Address, Family, Program, Protocol, Refusal
from k8snetc.lab import wiring
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Outcome, Probe, ProbeResult, Seen
from k8snetc.lab.topology import Client, Node, Pod, Port, Topology

OUTSIDE = "elsewhere"
"""The place of an address that nobody in the topology has."""
SECOND_LOOK = 3.0
"""Seconds that a probe gets the second time, when silence came where an answer was due: a machine may be busy."""


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """A place whose process is reached, under which address and port, and which source address it sees.

    `server` is "" where nobody says a name (an ICMP echo is answered by the kernel), and then the rest is None.
    `listens` False: nothing is known to listen there (and where `server` is `OUTSIDE`, nothing of the place at all).
    """

    server: str
    endpoint: Seen | None = None
    source: Address | None = None
    listens: bool = True

    def __str__(self) -> str:
        if self.endpoint is None:
            return self.server or "the kernel there"
        address, port = self.endpoint
        host = f"[{address}]" if address.version == 6 else str(address)
        return f"{self.server} at {host}:{port} seeing {self.source}"


@dataclass(frozen=True, slots=True)
class Expected:
    """All that may become of a probe: the arrivals (each as likely as the balancer makes it), and other outcomes.

    `steps` tell how it came to that, in the words of each node's program.
    """

    arrivals: frozenset[Arrival] = frozenset()
    outcomes: frozenset[Outcome] = frozenset()
    steps: tuple[str, ...] = ()

    def allows(self, result: ProbeResult) -> bool:
        """Whether the result is one of these."""
        if result.outcome is not Outcome.ANSWERED:
            return result.outcome in self.outcomes
        return arrival_of(result) in self.arrivals

    def __str__(self) -> str:
        words = [f"answered by {a}" for a in sorted(map(str, self.arrivals))]
        return " or ".join(words + sorted(o.value for o in self.outcomes)) or "nothing is possible"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A probe of which something else became than the programs say."""

    probe: Probe
    expected: Expected
    result: ProbeResult

    def __str__(self) -> str:
        steps = "".join(f"\n    {s}" for s in self.expected.steps)
        return f"{self.probe}: expected {self.expected}; was {self.result}{steps}"


def arrival_of(result: ProbeResult) -> Arrival:
    """Where an answered probe arrived."""
    return Arrival(result.server, result.endpoint, result.source.address if result.source else None)


class Predictor:
    """The programs of a lab's nodes, ready to be asked. Nodes that are not in `programs` have none.

    `ports` are listened on besides those of the topology: (place, port). `at_sockets`: the dataplane may translate in
    connect(2), before there is a packet. Then a pod that is its own endpoint may talk to itself without leaving the
    pod, and sees its own address instead of the node's. `complete`: only what the topology lists is there, as in a lab;
    else packets arrive also where nothing is known to listen, and at addresses that nobody is known to have.
    """

    def __init__(
        self,
        topology: Topology,
        programs: Mapping[str, Program],
        *,
        ports: Iterable[tuple[str, Port]] = (),
        at_sockets: bool = False,
        complete: bool = True,
    ) -> None:
        self._topology = topology
        self.at_sockets = at_sockets
        self.complete = complete
        self._nodes = {name: Interpreter(program) for name, program in programs.items()}
        self._owners = topology.owners
        self._open: dict[tuple[str, Port], str] = {}
        for place in topology.all:
            for port in place.ports:
                self._open[topology.home(place.place), port] = place.place
        for where, port in ports:
            self._open[topology.home(where), port] = where

    def predict(self, probe: Probe) -> Expected:
        """All that may become of a probe."""
        way = _Way(self, probe)
        way.start()
        return Expected(frozenset(way.arrivals), frozenset(way.outcomes), tuple(way.steps))

    def server(self, home: str, protocol: Protocol, port: int) -> str | None:
        """Who listens there."""
        return self._open.get((home, Port(protocol, port)))

    @property
    def topology(self) -> Topology:
        """The lab."""
        return self._topology

    def program(self, node: str) -> Interpreter | None:
        """The program of a node."""
        return self._nodes.get(node)

    def owner(self, address: Address) -> str | None:
        """Whose address it is."""
        return self._owners.get(address)


@dataclass(frozen=True, slots=True)
class _Flow:
    """A packet on its way: as it is now, and where it was rewritten, as (node, source before, or None if kept)."""

    source: Address
    destination: Address
    port: int
    rewritten: tuple[tuple[str, Address | None], ...] = ()


class _Way:
    """One probe's packets on their way; collects where they may end."""

    def __init__(self, predictor: Predictor, probe: Probe) -> None:
        self._p = predictor
        self._topology = predictor.topology
        self._probe = probe
        self._home = self._topology.home(probe.client)
        self.arrivals: list[Arrival] = []
        self.outcomes: list[Outcome] = []
        self.steps: list[str] = []

    def start(self) -> None:
        """From the client to the first node that has a say."""
        probe, topology = self._probe, self._topology
        source = self._source()
        if source is None:
            self.outcomes.append(Outcome.UNREACHABLE)
            return
        flow = _Flow(source, probe.destination, probe.port)
        client = topology.places[self._home]
        if not isinstance(client, Node) and (probe.destination.is_loopback or probe.destination == source):
            self._arrive(self._home, flow)
            return
        match client:
            case Pod(node=node):
                self._cross(node, Sender.POD, wiring.interface(topology, client), flow)
            case Node(name=node):
                self._cross(node, Sender.NODE, "", flow)
            case Client():
                self._from_outside(client, flow)

    def _from_outside(self, client: Client, flow: _Flow) -> None:
        owner = self._p.owner(flow.destination)
        if owner is not None and self._topology.node_of(owner) is None:
            self._arrive(owner, flow)
            return
        gateway = self._topology.gateway(client)
        node = self._topology.node_of(owner) if owner else gateway.name if gateway else None
        if node is None:
            self.outcomes.append(Outcome.UNREACHABLE)
            return
        self._cross(node, Sender.EXTERNAL, "eth0", flow)

    def _source(self) -> Address | None:
        probe = self._probe
        if probe.source is not None:
            return probe.source
        # The kernel talks to an address of its own from that address.
        if probe.destination.is_loopback or probe.destination in self._topology.addresses(self._home):
            return probe.destination
        return self._topology.address(self._home, Family(probe.destination.version))

    def _cross(self, node: str, sender: Sender, interface: str, flow: _Flow) -> None:
        """Through one node's program, and on to where it sends the packet."""
        program = self._p.program(node)
        if program is None:
            self._leave(node, flow)
            return
        packet = Packet(sender, flow.source, flow.destination, self._probe.protocol, flow.port, interface)
        result = program.run(packet)
        self.steps += [f"{node}: {s.text}" + (f" [{s.origin}]" if s.origin else "") for s in result.steps]
        if result.refusal is not None:
            refused = result.refusal is Refusal.REJECT
            self.outcomes.append(Outcome.REFUSED if refused else Outcome.TIMEOUT)
        for delivery in result.deliveries:
            if delivery.denied is not None:
                self.outcomes.append(Outcome.TIMEOUT)
                continue
            source, before, rewritten = flow.source, None, flow.rewritten
            if delivery.masqueraded:
                own = self._topology.address(f"node/{node}", Family(source.version))
                source, before = (own if own is not None else source), flow.source
            if self._p.at_sockets and sender is Sender.POD and delivery.address == flow.source:
                self._arrive(self._home, _Flow(flow.source, delivery.address, delivery.port))
            if delivery.translated or delivery.masqueraded:
                rewritten = (*rewritten, (node, before))
            self._leave(node, _Flow(source, delivery.address, delivery.port, rewritten))

    def _leave(self, node: str, flow: _Flow) -> None:
        """From a node to a pod of its own, itself, another node, or outside."""
        if flow.destination.is_loopback:
            self._arrive(f"node/{node}", flow)
            return
        owner = self._p.owner(flow.destination)
        if owner is None and self._p.complete:
            self.outcomes.append(Outcome.TIMEOUT)
            return
        if owner is None:
            seen = Seen(flow.destination, flow.port) if self._probe.protocol is not None else None
            self.arrivals.append(Arrival(OUTSIDE, seen, flow.source if seen else None, listens=False))
            return
        there = self._topology.node_of(owner)
        if there is None or there == node:
            self._arrive(owner, flow)
        else:
            self._cross(there, Sender.EXTERNAL, "eth0", flow)

    def _arrive(self, home: str, flow: _Flow) -> None:
        if not self._returns(home, flow):
            self.steps.append(
                f"{home} answers {flow.source} past {flow.rewritten[-1][0]}, which alone could undo the translation"
            )
            self.outcomes.append(Outcome.TIMEOUT)
            return
        protocol = self._probe.protocol
        if protocol is None:
            self.arrivals.append(Arrival(""))
            return
        server = self._p.server(home, protocol, flow.port)
        if server is None and self._p.complete:
            self.outcomes.append(Outcome.REFUSED)
        else:
            seen = Seen(flow.destination, flow.port)
            self.arrivals.append(Arrival(server or home, seen, flow.source, listens=server is not None))

    def _returns(self, home: str, flow: _Flow) -> bool:
        """Whether the answer passes every node that rewrote the packet, last one first; else the client can't know it.

        An answer crosses the node it starts on and the node of whoever it is for, no others.
        """
        at, back_to = self._topology.node_of(home), flow.source
        for node, source_before in reversed(flow.rewritten):
            owner = self._p.owner(back_to)
            goes_to = self._topology.node_of(owner) if owner is not None else None
            if node not in {at, goes_to}:
                return False
            at = node
            back_to = back_to if source_before is None else source_before
        return True


def observe(
    cluster: Cluster,
    probes: Sequence[Probe],
    expected: Sequence[Expected],
    *,
    repeat: int = 1,
    patience: float = SECOND_LOOK,
) -> list[list[ProbeResult]]:
    """Run each probe `repeat` times and return the results of each.

    Silence is a fact only when it was given time. Where it was not expected the probe is repeated once with
    `patience` seconds; what it says then counts.
    """
    many = [p for p in probes for _ in range(repeat)]
    results = cluster.probe_all(many)
    again = [
        at
        for at, result in enumerate(results)
        if result.outcome is Outcome.TIMEOUT and not expected[at // repeat].allows(result)
    ]
    patient = [replace(many[at], timeout=patience) for at in again]
    for at, result in zip(again, cluster.probe_all(patient), strict=True):
        results[at] = result
    return [results[at * repeat : (at + 1) * repeat] for at in range(len(probes))]


def compare(
    cluster: Cluster,
    programs: Mapping[str, Program],
    probes: Iterable[Probe],
    *,
    ports: Iterable[tuple[str, Port]] = (),
    at_sockets: bool = False,
) -> list[Mismatch]:
    """Probe, and return what became otherwise than the nodes' programs say."""
    wanted = list(probes)
    predictor = Predictor(cluster.topology, programs, ports=ports, at_sockets=at_sockets)
    expected = [predictor.predict(p) for p in wanted]
    return [
        Mismatch(probe, what, result)
        for probe, what, results in zip(wanted, expected, observe(cluster, wanted, expected), strict=True)
        for result in results
        if not what.allows(result)
    ]
