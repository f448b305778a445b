"""The meaning of the IR: what a program does to a packet. Every back end is tested against this.

Knows: the order of decisions on one node. Must not know: how any kernel does it, or the other nodes
(a packet that crosses two nodes is interpreted by both programs, one after the other).

Choosing an endpoint is random, so the answer is not one delivery but all the possible ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from k8snetc.ir.addresses import Members, family_of, prefix_of
from k8snetc.ir.types import (
    Address,
    Balance,
    Balancer,
    Direction,
    Endpoint,
    Enforcement,
    Family,
    FromInterface,
    Frontend,
    Origin,
    Program,
    Protocol,
    Refusal,
    Rule,
    SourceIn,
    Verdict,
    Who,
)


class Sender(Enum):
    """Where a packet enters the node: from one of its pods, from its own processes, or from outside."""

    POD = "pod"
    NODE = "node"
    EXTERNAL = "external"


class Tracked(Enum):
    """What the connection table knows of a packet (conntrack's words)."""

    NEW = "new"
    ESTABLISHED = "established"
    RELATED = "related"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet as the node first sees it.

    `protocol` None is one that no Service can name (ICMP, ICMPv6, GRE...); then `port` is 0. `port` is the
    destination port. `interface` is where it arrives, "" if the sender is the node itself or nobody cares.
    """

    sender: Sender
    source: Address
    destination: Address
    protocol: Protocol | None
    port: int = 0
    interface: str = ""
    tracked: Tracked = Tracked.NEW

    def __post_init__(self) -> None:
        if self.source.version != self.destination.version:
            raise ValueError("a packet's source and destination are of one family")
        if not 0 <= self.port < 65536:
            raise ValueError(f"{self.port} is no port")


@dataclass(frozen=True, slots=True)
class Denial:
    """A policy said no: in which direction, in which enforcement, and because of which objects.

    `rule`: a rule of a tier denies it; otherwise the pod is isolated and no rule allows it.
    """

    direction: Direction
    enforcement: str
    origins: tuple[Origin, ...]
    rule: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """One place the packet may go. `denied` None: it arrives there.

    `translated`: destination rewritten by a service. `masqueraded`: it arrives with the node's address.
    """

    address: Address
    port: int
    translated: bool = False
    masqueraded: bool = False
    denied: Denial | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One decision on the way, in words, and the object that caused it."""

    text: str
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """Either a `refusal`, or every possible delivery. `steps` tell how it came to that."""

    deliveries: tuple[Delivery, ...] = ()
    refusal: Refusal | None = None
    steps: tuple[Step, ...] = ()

    @property
    def arrivals(self) -> tuple[Delivery, ...]:
        """The deliveries that no policy denies."""
        return tuple(d for d in self.deliveries if d.denied is None)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What policy says of one packet to one destination."""

    denial: Denial | None
    steps: tuple[Step, ...]


def interpret(program: Program, packet: Packet) -> Result:
    """What `program` does to `packet`. For many packets keep one `Interpreter`."""
    return Interpreter(program).run(packet)


class Interpreter:
    """A program, indexed so that one packet costs a few look-ups."""

    def __init__(self, program: Program) -> None:
        self.program = program
        node = program.node
        self._balancers: Mapping[str, Balancer] = {b.name: b for b in program.balancers}
        self._frontends: dict[tuple[Address | Family, Protocol, int], Frontend] = {
            (f.family if f.address is None else f.address, f.protocol, f.port): f for f in program.frontends
        }
        self._sets = {s.name: Members(s.family, s.prefixes) for s in program.sets}
        self._set_family = {s.name: s.family for s in program.sets}
        self._node_addresses = frozenset(node.addresses)
        self._nodeport_addresses = frozenset(
            a
            for a in node.addresses
            if not node.nodeport_networks
            or any(a in n for n in node.nodeport_networks if n.version == a.version)
        )
        self._cluster = (
            {f: Members(f, [prefix_of(n) for n in node.detector.networks if n.version == f]) for f in Family}
            if isinstance(node.detector, SourceIn)
            else None
        )
        self._enforced: dict[tuple[Direction, Address], list[Enforcement]] = {}
        for enforcement in program.enforcements:
            for pod in enforcement.pods:
                self._enforced.setdefault((enforcement.direction, pod), []).append(enforcement)

    def run(self, packet: Packet) -> Result:
        """What the program does to the packet."""
        asis = Delivery(packet.destination, packet.port)
        match packet.tracked:
            case Tracked.ESTABLISHED | Tracked.RELATED:
                step = Step(f"{packet.tracked.value}: goes the way its connection went")
                return Result((asis,), None, (step,))
            case Tracked.INVALID:
                forwarded = packet.sender is not Sender.NODE and not self._is_node(packet.destination)
                if self.program.node.drop_invalid and forwarded:
                    step = Step("the connection table calls it invalid: dropped, it would leave untranslated")
                    return Result((), Refusal.DROP, (step,))
                return self._deliver(
                    packet, [asis], (Step("invalid, but not forwarded or the node is liberal"),)
                )
            case Tracked.NEW:
                frontend = self.frontend(packet)
                return self._unserved(packet, asis) if frontend is None else self._serve(packet, frontend)

    def frontend(self, packet: Packet) -> Frontend | None:
        """The frontend that the packet is for: one with its address first, then the node's ports."""
        if packet.protocol is None:
            return None
        exact = self._frontends.get((packet.destination, packet.protocol, packet.port))
        if exact is not None or not self._serves_nodeports(packet):
            return exact
        return self._frontends.get((family_of(packet.destination), packet.protocol, packet.port))

    def judge(
        self, sender: Sender, source: Address, destination: Address, protocol: Protocol | None, port: int
    ) -> Judgement:
        """What policy says of a new packet, after service translation and before masquerading."""
        if source == destination:
            return Judgement(None, (Step("a pod always reaches itself"),))
        if sender is Sender.NODE:
            return Judgement(None, ())
        steps: list[Step] = []
        directions = ((Direction.EGRESS, source, destination), (Direction.INGRESS, destination, source))
        for direction, pod, peer in directions:
            if direction is Direction.EGRESS and self._is_node(destination):
                continue
            for enforcement in self._enforced.get((direction, pod), ()):
                denial = self._enforce(enforcement, peer, protocol, port, steps)
                if denial is not None:
                    return Judgement(denial, tuple(steps))
        return Judgement(None, tuple(steps))

    def denial(
        self, enforcement: Enforcement, peer: Address, protocol: Protocol | None, port: int
    ) -> Denial | None:
        """What one enforcement alone says of a peer; None: it has no objection."""
        return self._enforce(enforcement, peer, protocol, port, [])

    # --- services ---

    def _serve(self, packet: Packet, frontend: Frontend) -> Result:
        steps = [Step(f"frontend {frontend.exposure.value} {frontend.service}", frontend.origin)]
        if frontend.sources is not None and not self._in(frontend.sources, packet.source):
            steps.append(Step(f"{packet.source} is not in its source ranges: dropped", frontend.origin))
            return Result((), Refusal.DROP, tuple(steps))
        route = next(r for r in frontend.routes if self._is(r.who, packet))
        if isinstance(route.action, Refusal):
            steps.append(Step(f"for {route.who.value}: {route.action.value}", frontend.origin))
            return Result((), route.action, tuple(steps))
        steps.append(Step(f"for {route.who.value}: balanced by {route.action.balancer}", frontend.origin))
        deliveries = [
            self._endpoint(packet, e, route.action) for e in self._balancers[route.action.balancer].endpoints
        ]
        return self._deliver(packet, deliveries, tuple(steps))

    def _endpoint(self, packet: Packet, endpoint: Endpoint, action: Balance) -> Delivery:
        # What ends at the node itself never leaves it, and so is not masqueraded on the way out.
        stays = packet.sender is not Sender.NODE and endpoint.address in self._node_addresses
        hairpin = endpoint.address == packet.source
        return Delivery(
            endpoint.address,
            endpoint.port,
            translated=True,
            masqueraded=not stays and (action.masquerade or hairpin),
            origin=endpoint.origin,
        )

    def _unserved(self, packet: Packet, asis: Delivery) -> Result:
        for names, refusal in (
            (self.program.rejects, Refusal.REJECT),
            (self.program.drops, Refusal.DROP),
        ):
            if any(self._in(name, packet.destination) for name in names):
                step = Step(f"{packet.destination} is a service address without this port: {refusal.value}")
                return Result((), refusal, (step,))
        return self._deliver(packet, [asis], (Step("for no service: goes on as it is"),))

    # --- policy ---

    def _deliver(self, packet: Packet, deliveries: Iterable[Delivery], steps: tuple[Step, ...]) -> Result:
        judged: list[Delivery] = []
        more: dict[Step, None] = {}
        for d in deliveries:
            judgement = self.judge(packet.sender, packet.source, d.address, packet.protocol, d.port)
            more.update(dict.fromkeys(judgement.steps))
            judged.append(
                Delivery(d.address, d.port, d.translated, d.masqueraded, judgement.denial, d.origin)
                if judgement.denial
                else d
            )
        return Result(tuple(judged), None, steps + tuple(more))

    def _enforce(
        self, enforcement: Enforcement, peer: Address, protocol: Protocol | None, port: int, steps: list[Step]
    ) -> Denial | None:
        for tier in (enforcement.admin, None, enforcement.baseline):
            if tier is None:
                if not enforcement.isolated:
                    continue
                hit = next((r for r in enforcement.rules if self._hits(r, peer, protocol, port)), None)
                if hit is not None:
                    steps.append(Step(f"{enforcement.direction.value} allowed", hit.origin))
                    return None
                steps.append(
                    Step(
                        f"{enforcement.direction.value} denied: no rule allows it",
                        next(iter(enforcement.origins), None),
                    )
                )
                return Denial(enforcement.direction, enforcement.name, enforcement.origins)
            rule = next((r for r in tier if self._hits(r, peer, protocol, port)), None)
            if rule is None or rule.verdict is Verdict.PASS:
                continue
            steps.append(Step(f"{enforcement.direction.value} {rule.verdict.value} by tier", rule.origin))
            if rule.verdict is Verdict.ALLOW:
                return None
            origins = (rule.origin,) if rule.origin is not None else ()
            return Denial(enforcement.direction, enforcement.name, origins, rule=True)
        return None

    def _hits(self, rule: Rule, peer: Address, protocol: Protocol | None, port: int) -> bool:
        if rule.protocol is not None and rule.protocol is not protocol:
            return False
        if rule.ports and not any(r.first <= port <= r.last for r in rule.ports):
            return False
        return rule.peers is None or self._in(rule.peers, peer)

    # --- predicates ---

    def _in(self, name: str, address: Address) -> bool:
        return self._set_family[name] == address.version and int(address) in self._sets[name]

    def _is_node(self, address: Address) -> bool:
        return address in self._node_addresses or address.is_loopback

    def _serves_nodeports(self, packet: Packet) -> bool:
        if packet.destination.is_loopback:
            return (
                self.program.node.localhost_nodeports
                and packet.sender is Sender.NODE
                and family_of(packet.destination) is Family.IPV4
            )
        return packet.destination in self._nodeport_addresses

    def _is(self, who: Who, packet: Packet) -> bool:
        match who:
            case Who.ANY:
                return True
            case Who.NODE:
                return packet.sender is Sender.NODE
            case Who.CLUSTER:
                detector = self.program.node.detector
                if isinstance(detector, FromInterface):
                    name = packet.interface
                    return name.startswith(detector.name) if detector.prefix else name == detector.name
                return (
                    self._cluster is not None
                    and int(packet.source) in self._cluster[family_of(packet.source)]
                )
