"""Balancers as elements of one map: a random slot of the frontend's, and the endpoint that sits in it.

Knows: slots, weights, memories. Must not know: who may use a balancer, and how packets get there.

A frontend's endpoints are at `address . port . slot` in one map for all frontends of a protocol, so the only thing
that a chain says of a balancer is how many slots it has: balancers of one size share it. A frontend with several
balancers (one for pods, another for outside clients) keeps them apart by blocks of slots.

There is a map for each protocol because of nft 1.0.6: a map whose values are declared as `... . th dport` can't be
used in a rule that is added in a later transaction ("conflicting protocols specified: ip vs. th").

Where clients are remembered (affinity), the endpoints of a service port each have a dynamic set of client addresses.
What is remembered must name an endpoint that the balancer still has, and that can only be asked endpoint
by endpoint: such balancers have a chain of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import gcd

from k8snetc.backends.nftables import words
from k8snetc.backends.nftables.build import Builder, Elements
from k8snetc.backends.nftables.clients import Clients
from k8snetc.backends.nftables.frontends import Masquerade
from k8snetc.backends.nftables.model import FAMILY_WORDS, Rule
from k8snetc.ir.types import Affinity, Balancer, Endpoint, Family, Frontend, Protocol

BLOCK = 1 << 16
"""Slots from one balancer of a frontend to the next; no balancer has more."""
MEMORY = 1 << 16
"""Clients that are remembered for one endpoint; further ones are balanced, and not remembered."""


@dataclass(frozen=True, slots=True)
class KeySpace:
    """What tells frontends apart: the address too, or (NodePorts) only the protocol and port."""

    prefix: str
    address: str

    @property
    def expression(self) -> str:
        """What tells the frontends apart."""
        return f"{self.address}{words.PORT}"

    def key(self, frontend: Frontend) -> str:
        """The key of one frontend."""
        return f"{self._place(frontend)}{frontend.protocol.value} . {frontend.port}"

    def slot_expression(self, protocol: Protocol) -> str:
        """What tells the frontends of a protocol apart, before the slot."""
        return f"{self.address}{protocol.value} dport"

    def slot_key(self, frontend: Frontend) -> str:
        """The key of one frontend among those of its protocol, before the slot."""
        return f"{self._place(frontend)}{frontend.port}"

    def _place(self, frontend: Frontend) -> str:
        if frontend.address is None or not self.address:
            return ""
        return f"{words.address_text(frontend.address)} . "


def key_spaces(family: Family) -> tuple[KeySpace, KeySpace]:
    """That of frontends with an address, and that of NodePorts."""
    return KeySpace("", f"{words.DADDR[family]} . "), KeySpace("node-", "")


def slots(balancer: Balancer) -> int:
    """How many slots the balancer needs, so that each endpoint has its share."""
    weights = [e.weight for e in balancer.endpoints]
    return sum(weights) // gcd(*weights)


class Balancers:
    """Makes chains and elements for the balancers of one family on demand."""

    def __init__(self, builder: Builder, clients: Clients, balancers: Mapping[str, Balancer]) -> None:
        self._builder = builder
        self._clients = clients
        self._balancers = balancers
        self._with_memory: dict[tuple[str, str, int], str] = {}
        self.hairpins = False
        self.marks = False

    def verdict(
        self, space: KeySpace, frontend: Frontend, balancer_name: str, block: int, masquerade: Masquerade
    ) -> str:
        """Fill the slots of a frontend's balancer, and return the verdict that sends there."""
        balancer = self._balancers[balancer_name]
        key = space.slot_key(frontend)
        filled = enumerate(_slotted(balancer), block * BLOCK)
        self._map(space, balancer.protocol).add_all(
            {f"{key} . {slot}": f"{words.address_text(e.address)} . {e.port}" for slot, e in filled}
        )
        chain = self._draw(space, balancer.protocol, slots(balancer), block)
        if balancer.affinity is not None and len(balancer.endpoints) > 1:
            chain = self._remembering(space, balancer, balancer.affinity, block, chain)
        if masquerade is not Masquerade.EVERYBODY:
            self.hairpins = True
        return f"goto {self._marking(chain, masquerade)}"

    # --- slots ---

    def _map(self, space: KeySpace, protocol: Protocol) -> Elements:
        key = f"{space.slot_expression(protocol)} . numgen random mod 2"
        value = f"{words.DADDR[self._builder.family]} . {protocol.value} dport"
        return self._builder.named(
            f"{space.prefix}{protocol.value}-endpoints", f"typeof {key} : {value}", is_map=True
        )

    def _draw(self, space: KeySpace, protocol: Protocol, size: int, block: int) -> str:
        """The chain of all balancers of that size."""
        kind = f"{space.prefix}{protocol.value}"
        name = f"{kind}-balance-{size}" + (f"-block-{block}" if block else "")
        if not self._builder.has_chain(name):
            offset = f" offset {block * BLOCK}" if block else ""
            key = f"{space.slot_expression(protocol)} . numgen random mod {size}{offset}"
            word = FAMILY_WORDS[self._builder.family]
            self._builder.chain(name, [f"dnat {word} to {key} map @{kind}-endpoints"])
        return name

    # --- masquerading ---

    def _marking(self, chain: str, masquerade: Masquerade) -> str:
        if masquerade is Masquerade.NOBODY:
            return chain
        self.marks = True
        name = f"{chain}-{masquerade.value}"
        if not self._builder.has_chain(name):
            who = self._clients.foreign if masquerade is Masquerade.FOREIGNERS else ""
            bit = words.mask(words.MARK)
            self._builder.chain(name, [f"{who}meta mark set meta mark | {bit}", f"goto {chain}"])
        return name

    # --- affinity ---

    def _remembering(
        self, space: KeySpace, balancer: Balancer, affinity: Affinity, block: int, otherwise: str
    ) -> str:
        """The chain of a balancer that remembers. It ends in `otherwise`, for when a memory is full."""
        wanted = (balancer.name, space.prefix, block)
        if wanted not in self._with_memory:
            rules = [*self._memories(balancer, affinity), Rule(f"goto {otherwise}")]
            name = words.hashed("affinity", otherwise, *(r.text for r in rules))
            self._with_memory[wanted] = self._builder.chain(name, rules)
        return self._with_memory[wanted]

    def _memories(self, balancer: Balancer, affinity: Affinity) -> Iterator[Rule]:
        family = self._builder.family
        saddr = words.SADDR[family]
        ends: list[tuple[int, str, str, str]] = []
        for e in balancer.endpoints:
            identity = (affinity.key, balancer.protocol.value, words.destination(e.address, e.port))
            memory = self._builder.memory(
                words.hashed("clients", *identity),
                f"type {words.ADDRESS_TYPE[family]}",
                f"size {MEMORY}",
                "flags dynamic,timeout",
            )
            note = self._builder.note("", e.origin)
            end = (
                f"update @{memory} {{ {saddr} timeout {words.duration(affinity.timeout)} }} "
                f"meta l4proto {balancer.protocol.value} dnat to {words.destination(e.address, e.port)}"
            )
            yield Rule(f"{saddr} @{memory} {end}", note)
            ends.append((e.weight, memory, end, note))
        rest = sum(weight for weight, *_ in ends)
        for weight, _, end, note in ends:
            share = "" if weight == rest else f"numgen random mod {rest} < {weight} "
            yield Rule(f"{share}{end}", note)
            rest -= weight


def _slotted(balancer: Balancer) -> Iterable[Endpoint]:
    if slots(balancer) == len(balancer.endpoints):
        return balancer.endpoints
    return _weighted(balancer)


def _weighted(balancer: Balancer) -> Iterator[Endpoint]:
    share = gcd(*(e.weight for e in balancer.endpoints))
    for e in balancer.endpoints:
        for _ in range(e.weight // share):
            yield e
