"""Services: from an address, protocol and port to a verdict; what is refused; what is masqueraded.

Knows: the order in which frontends, node ports and service addresses are asked. Must not know: how a balancer
chooses, or policy.

All of it is asked once per connection, in the nat hooks, before any translation. There a packet can also be
rejected or dropped, so that one look-up decides everything about a frontend.
"""

from __future__ import annotations

from collections.abc import Iterator

from k8snetc.backends.nftables import words
from k8snetc.backends.nftables.balancers import Balancers, KeySpace, key_spaces
from k8snetc.backends.nftables.build import Builder, Elements
from k8snetc.backends.nftables.clients import Clients
from k8snetc.backends.nftables.frontends import Masquerade, Mixed, Plain, guard_of, shape_of
from k8snetc.ir.addresses import cover, cover_prefixes, prefix_of, range_of, subtract
from k8snetc.ir.types import AddressSet, Balance, Family, Frontend, Prefix, Program, Refusal

REFUSE = "refuse"
SERVICES = "services"
PREROUTING = "type nat hook prerouting priority dstnat; policy accept;"
OUTPUT = "type nat hook output priority -100; policy accept;"
POSTROUTING = "type nat hook postrouting priority srcnat; policy accept;"


def lower_services(program: Program, builder: Builder, *, random_fully: bool) -> bool:
    """Add what services need in one family; whether there was anything to add."""
    return _Services(program, builder).lower(random_fully)


class _Services:
    def __init__(self, program: Program, builder: Builder) -> None:
        self._node = program.node
        self._program = program
        self._family = builder.family
        self._builder = builder
        self._clients = Clients(program.node, builder)
        self._sets: dict[str, AddressSet] = {s.name: s for s in program.sets}
        self._balancers = Balancers(builder, self._clients, {b.name: b for b in program.balancers})
        self._address, self._nodeport = key_spaces(self._family)

    def lower(self, random_fully: bool) -> bool:
        for f in self._program.frontends:
            if f.family is self._family:
                self._frontend(f)
        rules = [*self._doors(), *self._refused_addresses()]
        if not rules:
            return False
        self._builder.chain(SERVICES, rules)
        self._builder.chain("prerouting", [f"jump {SERVICES}"], PREROUTING)
        self._builder.chain("output", [f"jump {SERVICES}"], OUTPUT)
        self._postrouting(" fully-random" if random_fully else "")
        return True

    # --- frontends ---

    def _frontend(self, frontend: Frontend) -> None:
        space = self._nodeport if frontend.address is None else self._address
        key = space.key(frontend)
        verdict = self._shaped(frontend, space, key)
        guard = guard_of(frontend, self._sets)
        if guard is not None:
            verdict = self._guarded(space, key, guard, verdict)
        note = self._builder.note(frontend.service, frontend.origin)
        self._verdicts(space, SERVICES).add(key, verdict, note)

    def _shaped(self, frontend: Frontend, space: KeySpace, key: str) -> str:
        match shape_of(frontend, self._node):
            case Plain(balancer, masquerade):
                return self._balancers.verdict(space, frontend, balancer, 0, masquerade)
            case Mixed() as mixed:
                return self._parted(frontend, space, key, mixed)
            case Refusal() as refusal:
                return self._refusal(refusal)

    def _parted(self, frontend: Frontend, space: KeySpace, key: str, mixed: Mixed) -> str:
        """Clients go different ways: one map of verdicts for each kind of client, asked in the routes' order."""
        blocks = {name: at for at, name in enumerate(mixed.balancers)}
        order = [r.who for r in mixed.routes]
        for route in mixed.routes:
            if isinstance(route.action, Balance):
                masquerade = Masquerade.EVERYBODY if route.action.masquerade else Masquerade.NOBODY
                name = route.action.balancer
                verdict = self._balancers.verdict(space, frontend, name, blocks[name], masquerade)
            else:
                verdict = self._refusal(route.action)
            self._verdicts(space, f"for-{route.who.value}").add(key, verdict)
        chain = f"{space.prefix}clients-" + "-".join(w.value for w in order)
        if not self._builder.has_chain(chain):
            self._builder.chain(
                chain,
                [
                    f"{self._clients.are(w)}{space.expression} vmap @{space.prefix}for-{w.value}"
                    for w in order
                ],
            )
        return f"goto {chain}"

    def _guarded(self, space: KeySpace, key: str, guard: AddressSet, verdict: str) -> str:
        """Who is not among its sources is dropped first."""
        if not guard.prefixes:
            return "drop"
        saddr = words.SADDR[self._family]
        name = f"{space.prefix}sources"
        sources = self._builder.named(name, f"typeof {space.expression} . {saddr}", "flags interval")
        note = self._builder.note("", guard.origin)
        for p in guard.prefixes:
            sources.add(f"{key} . {words.prefix_text(self._family, p)}", comment=note)
        self._verdicts(space, "guarded").add(key, verdict)
        chain = f"{space.prefix}guarded"
        if not self._builder.has_chain(chain):
            self._builder.chain(
                chain,
                [
                    f"{space.expression} . {saddr} != @{name} drop",
                    f"{space.expression} vmap @{space.prefix}guarded",
                ],
            )
        return f"goto {chain}"

    def _refusal(self, refusal: Refusal) -> str:
        if refusal is Refusal.DROP:
            return "drop"
        if not self._builder.has_chain(REFUSE):
            self._builder.chain(REFUSE, ["reject"])
        return f"goto {REFUSE}"

    def _verdicts(self, space: KeySpace, name: str) -> Elements:
        return self._builder.named(
            f"{space.prefix}{name}", f"typeof {space.expression} : verdict", is_map=True
        )

    # --- the way in ---

    def _doors(self) -> Iterator[str]:
        """Look-ups of frontends. A frontend with the address comes before a NodePort."""
        mine = [f for f in self._program.frontends if f.family is self._family]
        if any(f.address is not None for f in mine):
            yield f"{self._address.expression} vmap @{SERVICES}"
        if all(f.address is not None for f in mine):
            return
        ports = f"{self._nodeport.expression} vmap @{self._nodeport.prefix}{SERVICES}"
        daddr, loopback = words.DADDR[self._family], words.LOOPBACK[self._family]
        if self._node.localhost_nodeports and self._family is Family.IPV4:
            yield f"{daddr} {loopback} fib saddr type local fib daddr type local {ports}"
        # The kernel knows best which addresses are the node's.
        if not self._node.nodeport_networks:
            yield f"{daddr} != {loopback} fib daddr type local {ports}"
            return
        served = self._nodeport_networks()
        if served:
            # In a rule, nft would merge neighbours and so print other words than these.
            if len(served) == 1:
                where = words.prefix_text(self._family, served[0])
            else:
                where = f"@{self._builder.prefixes('nodeport-addresses', served)}"
            yield f"{daddr} {where} fib daddr type local {ports}"

    def _nodeport_networks(self) -> tuple[Prefix, ...]:
        """Where NodePorts are served, without loopback, which has a rule of its own."""
        networks = [n for n in self._node.nodeport_networks if n.version == self._family]
        loopback = Prefix(127 << 24, 8) if self._family is Family.IPV4 else Prefix(1, 128)
        served = subtract(
            [range_of(self._family, prefix_of(n)) for n in networks], [range_of(self._family, loopback)]
        )
        return cover(self._family, served)

    def _refused_addresses(self) -> Iterator[str]:
        """What no frontend defines at a service's address."""
        for name, names, verdict in (
            ("refused", self._program.rejects, Refusal.REJECT),
            ("dropped", self._program.drops, Refusal.DROP),
        ):
            sets = [self._sets[n] for n in names if self._sets[n].family is self._family]
            prefixes = cover_prefixes(self._family, (p for s in sets for p in s.prefixes))
            if prefixes:
                self._builder.prefixes(name, prefixes)
                yield f"{words.DADDR[self._family]} @{name} {self._refusal(verdict)}"

    # --- the way out ---

    def _postrouting(self, fully: str) -> None:
        bit, rest = words.mask(words.MARK), words.mask(0xFFFFFFFF ^ words.MARK)
        rules = []
        if self._balancers.marks:
            # A tunnel's outer packet keeps the mark; it must not be masqueraded again.
            rules.append(f"meta mark & {bit} == {bit} meta mark set meta mark & {rest} masquerade{fully}")
        if self._balancers.hairpins:
            # An endpoint that reached itself through its service would answer itself directly. No endpoint has a
            # loopback address: what others redirect there is none of our business.
            local = f"{words.SADDR[self._family]} != {words.LOOPBACK[self._family]}"
            rules.append(f"ct status dnat {local} {self._itself()} masquerade{fully}")
        if rules:
            self._builder.chain("postrouting", rules, POSTROUTING)

    def _itself(self) -> str:
        """A match on packets with one address twice: byte for byte, the last one first, because it differs most.

        nft 1.0.6 can't compare two fields, but it can look up a pair of bytes among those that are equal. A set of
        the endpoints' own addresses would have as many elements as there are endpoints.
        """
        same = self._builder.named(words.SAME_BYTE, words.SAME_BYTE_SPEC)
        for byte in range(256):
            same.add(f"0x{byte:x} . 0x{byte:x}")
        source, size = words.SADDR_BITS[self._family], self._family.bits
        places = range(source + size - 8, source - 8, -8)
        return " ".join(f"@nh,{at},8 . @nh,{at + size},8 @{words.SAME_BYTE}" for at in places)
