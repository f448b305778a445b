"""Virtual services: one for each service address and port, and one for each firewall mark where that is not enough.

Knows: IPVS finds a service by the packet's mark first, then by address, protocol and port. Must not know: how a mark
gets on a packet (`tables`).

A mark is needed where one address and port means different endpoints to different senders (traffic policy Local, with
its short cut for the cluster), and for NodePorts (the kernel knows best which addresses are the node's).

Session affinity is IPVS's persistence, which each service remembers for itself. Maglev hashing of the client's
address as the scheduler makes them agree: services of equal servers choose equally. A persistent service of a mark
keeps the packet's port (`ip_vs_sched_persist` in Linux), so affinity of a mark is hashing alone: when servers come or
go, nearly all clients stay where they are. To make that rare, a NodePort with affinity has services of the node's
addresses, as far as known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from k8snetc.backends.common.xtables import text
from k8snetc.backends.ipvs.model import (
    MASQUERADING,
    METHODS,
    UDP_MARK,
    Destination,
    RealServer,
    VirtualService,
)
from k8snetc.backends.ipvs.senders import Sender, action_of, senders
from k8snetc.ir.types import (
    Address,
    Balance,
    Balancer,
    Exposure,
    Family,
    Frontend,
    Program,
    Protocol,
    Refusal,
)

KIND = {Protocol.TCP: "-t", Protocol.UDP: "-u", Protocol.SCTP: "--sctp-service"}
FORWARDED = frozenset({Exposure.EXTERNAL_IP, Exposure.LOAD_BALANCER})
"""The exposures whose packets a real server can get unchanged: their address can be given to it."""

FALLBACK = {"mh": "mh-fallback", "sh": "sh-fallback"}
"""Without this flag hashing leads clients to a server that is leaving (weight 0), and IPVS refuses them."""

_REFUSING = "refuse"


@dataclass(frozen=True, slots=True)
class Plan:
    """One frontend: which senders are dropped, masqueraded, and sent to a service by mark (else by address)."""

    frontend: Frontend
    drops: frozenset[Sender] = frozenset()
    masquerades: frozenset[Sender] = frozenset()
    marks: Mapping[Sender, int] = field(default_factory=dict)


class Virtual:
    """The virtual services of one family, and the plan of each frontend. `scheduler` is for who asks for none."""

    def __init__(self, program: Program, family: Family, scheduler: str) -> None:
        self._family = family
        self._scheduler = scheduler
        self._node = program.node
        self._exact = {(f.address, f.protocol, f.port) for f in program.frontends if f.address is not None}
        self._senders = senders(program.node, family)
        self._balancers = {b.name: b for b in program.balancers}
        self._frontends = [f for f in program.frontends if f.family is family]
        self._services: dict[str, VirtualService] = {}
        self._marks = _Marks(self._identities())
        self.real_servers: list[RealServer] = []
        self.plans = tuple(self._plan(f) for f in self._frontends)

    @property
    def services(self) -> Iterable[VirtualService]:
        """All virtual services."""
        return self._services.values()

    # --- which service a sender of a frontend is for ---

    def _actions(self, frontend: Frontend) -> dict[Sender, Balance | Refusal]:
        return {s: action_of(frontend, s) for s in self._senders}

    def _primary(self, frontend: Frontend) -> Balancer | None:
        """The balancer that the services of the frontend's addresses have; None: they refuse, or there are none."""
        actions = self._actions(frontend)
        if actions[Sender.OTHER] is Refusal.REJECT:
            return None
        found = (
            self._balancers[a.balancer]
            for s in reversed(self._senders)
            if isinstance(a := actions[s], Balance)
        )
        first = next(found, None)
        if frontend.address is None and (
            first is None or first.affinity is None or not self._node_addresses(frontend)
        ):
            return None
        return first

    def _node_addresses(self, frontend: Frontend) -> list[Address]:
        """The known addresses of the node that serve a NodePort, without those where another frontend has its port."""
        node, port = self._node, (frontend.protocol, frontend.port)
        return [
            a
            for a in node.addresses
            if a.version == self._family
            and (
                not node.nodeport_networks
                or any(a in n for n in node.nodeport_networks if n.version == a.version)
            )
            and (a, *port) not in self._exact
        ]

    def _identity(self, frontend: Frontend, action: Balance | Refusal) -> str | None:
        """What the mark for this stands for; None: the frontend's address does."""
        if isinstance(action, Refusal):
            if frontend.address is not None and self._primary(frontend) is None:
                return None
            return _REFUSING
        balancer = self._balancers[action.balancer]
        primary = self._primary(frontend)
        if primary is not None and primary.name == balancer.name:
            return None
        where = "node" if frontend.address is None else text.address(frontend.address)
        others = dict.fromkeys(
            a.balancer for s in reversed(self._senders) if isinstance(a := action_of(frontend, s), Balance)
        )
        return f"{where} {frontend.protocol.value} {frontend.port} {list(others).index(balancer.name)}"

    def _identities(self) -> list[str]:
        found = (
            self._identity(f, a)
            for f in self._frontends
            for a in self._actions(f).values()
            if a is not Refusal.DROP
        )
        return sorted({i for i in found if i is not None})

    # --- plans ---

    def _plan(self, frontend: Frontend) -> Plan:
        actions = self._actions(frontend)
        marks: dict[Sender, int] = {}
        masquerades = set()
        for sender, action in actions.items():
            if action is Refusal.DROP:
                continue
            identity = self._identity(frontend, action)
            if identity is not None:
                marks[sender] = self._marks[identity]
                balancer = self._balancers[action.balancer] if isinstance(action, Balance) else None
                self._put(self._mark_key(marks[sender]), frontend, balancer, MASQUERADING)
            if (
                isinstance(action, Balance)
                and action.masquerade
                and self._method(frontend, action) == MASQUERADING
            ):
                masquerades.add(sender)
        drops = frozenset(s for s, a in actions.items() if a is Refusal.DROP)
        if len(drops) + len(marks) < len(actions):
            addresses = [frontend.address] if frontend.address is not None else self._node_addresses(frontend)
            for address in addresses:
                self._at(address, frontend, self._primary(frontend))
        return Plan(frontend, drops, frozenset(masquerades), marks)

    def _at(self, address: Address, frontend: Frontend, primary: Balancer | None) -> None:
        """The service of an address."""
        method = METHODS[primary.forwarding] if primary and frontend.exposure in FORWARDED else MASQUERADING
        place = text.destination(address, frontend.port)
        self._put(f"{KIND[frontend.protocol]} {place}", frontend, primary, method)
        if primary is not None and method != MASQUERADING:
            vip = text.address(address)
            self.real_servers += (
                RealServer(text.address(e.address), vip, method, self._family) for e in primary.endpoints
            )

    def _method(self, frontend: Frontend, action: Balance) -> str:
        if frontend.exposure not in FORWARDED or self._identity(frontend, action) is not None:
            return MASQUERADING
        return METHODS[self._balancers[action.balancer].forwarding]

    def _mark_key(self, mark: int) -> str:
        return f"-f {mark}" if self._family is Family.IPV4 else f"-f {mark} -6"

    def _put(self, key: str, frontend: Frontend, balancer: Balancer | None, method: str) -> None:
        if key in self._services:
            return
        destinations = tuple(
            Destination(text.destination(e.address, e.port), method, e.weight)
            for e in (balancer.endpoints if balancer else ())
        )
        options = self._options(balancer, marked=key.startswith("-f")) if balancer else "-s rr"
        self._services[key] = VirtualService(key, options, destinations, frontend.service, frontend.origin)

    def _options(self, balancer: Balancer, *, marked: bool) -> str:
        name, _, flags = (balancer.scheduler or self._scheduler).partition(":")
        if not balancer.scheduler:
            if balancer.affinity is not None:
                name, flags = "mh", ""
            elif name == "rr" and len({e.weight for e in balancer.endpoints}) > 1:
                name = "wrr"  # round robin does not look at weights
        if balancer.affinity is not None and marked:
            return f"-s mh -b {FALLBACK['mh']}"
        words = f"-s {name}"
        if balancer.affinity is not None:
            words += f" -p {balancer.affinity.timeout}"
        known = {*flags.split(","), FALLBACK.get(name, "")} - {""}
        if known:
            words += f" -b {','.join(sorted(known))}"
        return words


class _Marks:
    """Firewall marks by identity: a hash, so that a mark stays when others come and go.

    IPVS compares all 32 bits of a packet's mark. Of ours bit 30 is set and bits 12 to 15 and 31 are not: those are the
    bits by which kube-proxy, CNI portmap and this tool mark packets for themselves. Bit 29 tells UDP (`UDP_MARK`).
    """

    def __init__(self, identities: Sequence[str]) -> None:
        self._of: dict[str, int] = {}
        used: set[int] = set()
        for identity in identities:
            number = int.from_bytes(blake2b(identity.encode(), digest_size=4).digest(), "big") & 0x1FFFFFF
            while number in used:
                number = (number + 1) & 0x1FFFFFF
            used.add(number)
            udp = UDP_MARK if f" {Protocol.UDP.value} " in identity else 0
            self._of[identity] = 0x40000000 | udp | (number >> 12) << 16 | number & 0xFFF

    def __getitem__(self, identity: str) -> int:
        return self._of[identity]
