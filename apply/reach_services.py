"""How service addresses are treated differently: endpoints, refusals, source translation, affinity, source ranges.

Knows: the frontends of two programs and the interpreter. Must not know: policy (what a pod is allowed is said once, by
`reach_policy`, not again for each service in front of it), rules of any back end.

A client that is itself one of the endpoints is always masqueraded towards itself, in every program; it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

from k8snetc.apply.connectivity import Effect, Names, cause
from k8snetc.apply.partition import LAST_PORT, address_classes, representative
from k8snetc.apply.reach_node import node_effects
from k8snetc.apply.words import Group, listed, people
from k8snetc.ir.addresses import Range, address_of, prefix_of, range_of
from k8snetc.ir.interpret import Interpreter, Packet, Sender
from k8snetc.ir.types import (
    Address,
    AddressSet,
    Affinity,
    Balance,
    Balancer,
    Endpoint,
    Exposure,
    Family,
    FromInterface,
    Frontend,
    Origin,
    Program,
    Protocol,
    Refusal,
    SourceIn,
    Who,
)

_Key = tuple[Family, Address | None, Protocol, int]
_EXAMPLE = {Family.IPV4: ip_address("192.0.2.1"), Family.IPV6: ip_address("2001:db8::1")}
_UNUSED = {Family.IPV4: int(ip_address("240.0.0.0")), Family.IPV6: int(ip_address("ff00::"))}
_NODE = "the node itself"
_EXPOSURES = {
    Exposure.CLUSTER_IP: "cluster IPs",
    Exposure.EXTERNAL_IP: "external IPs",
    Exposure.LOAD_BALANCER: "load balancer IPs",
    Exposure.NODE_PORT: "node ports",
}
_EXPOSURE = {
    Exposure.CLUSTER_IP: "",
    Exposure.EXTERNAL_IP: "external IP",
    Exposure.LOAD_BALANCER: "load balancer IP",
    Exposure.NODE_PORT: "node port",
}


@dataclass(frozen=True, slots=True)
class _Treatment:
    """What a client gets: endpoints (with what they are chosen by), or a refusal, or nothing done at all (`passes`)."""

    endpoints: frozenset[tuple[str, int]] = frozenset()
    masqueraded: bool = False
    affinity: int | None = None
    scheduling: str = ""
    refusal: Refusal | None = None
    passes: bool = False

    @property
    def serves(self) -> bool:
        return not self.passes and self.refusal is None

    def __str__(self) -> str:
        if self.passes:
            return "no service"
        if self.refusal is not None:
            return "refused" if self.refusal is Refusal.REJECT else "dropped"
        return f"{len(self.endpoints)} endpoint{'' if len(self.endpoints) == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class _Delta:
    """The same thing that happens to one or many frontends."""

    symbol: str
    detail: str
    shared: bool  # whether other services may have the very same line


class _Side:
    """One program, indexed by what a frontend is addressed as."""

    def __init__(self, program: Program) -> None:
        # NodePorts are served on addresses that the program may not know; one is enough to ask the interpreter.
        families = {a.version for a in program.node.addresses}
        more = tuple(a for f, a in _EXAMPLE.items() if f not in families)
        node = replace(program.node, addresses=(*program.node.addresses, *more), nodeport_networks=())
        # The interpreter says which balancer a client gets, and whether it is masqueraded; for that one endpoint of
        # each balancer will do, by which it is known again.
        own = frozenset(node.addresses)
        signs = {b.name: _sign(b, number, own) for number, b in enumerate(program.balancers)}
        self._by_sign = {(e.address, e.port): name for name, e in signs.items()}
        signed = tuple(replace(b, endpoints=(signs[b.name],)) for b in program.balancers)
        self.program = replace(program, node=node, balancers=signed, enforcements=())
        self.interpreter = Interpreter(self.program)
        self._endpoints: dict[str, frozenset[tuple[str, int]]] = {}
        self.frontends = {_key(f): f for f in program.frontends}
        self.balancers = {b.name: b for b in program.balancers}
        self.sets = {s.name: s for s in program.sets}

    def all_local(self, key: _Key, places: frozenset[tuple[str, int]]) -> bool:
        """Whether these endpoints of a frontend are all of this node's pods."""
        known = {_place(e.address, e.port): e.local for b in _balancers_of(self, key) for e in b.endpoints}
        return all(known.get(text.partition(" ")[0], False) for text, _ in places)

    def node_address(self, family: Family) -> Address:
        return next(a for a in self.program.node.addresses if a.version == family)

    def content(self, key: _Key) -> object:
        """All that decides how this frontend treats anybody: equal content, equal treatment."""
        frontend = self.frontends.get(key)
        if frontend is None:
            return None
        routes = tuple(
            (r.who, r.action.masquerade, self._balancer(r.action))
            if isinstance(r.action, Balance)
            else (r.who, r.action)
            for r in frontend.routes
        )
        return routes, self.prefixes(frontend.sources)

    def _balancer(self, action: Balance) -> object:
        b = self.balancers[action.balancer]
        return b.endpoints, _seconds(b.affinity), _scheduling(b)

    def prefixes(self, name: str | None) -> object:
        return None if name is None else self.sets[name].prefixes

    def treatment(self, key: _Key, sender: Sender, source: Address, interface: str) -> _Treatment:
        family, address, protocol, port = key
        destination = address if address is not None else self.node_address(family)
        result = self.interpreter.run(Packet(sender, source, destination, protocol, port, interface))
        if result.refusal is not None:
            return _Treatment(refusal=result.refusal)
        (delivery,) = result.deliveries
        if not delivery.translated:
            return _Treatment(passes=True)
        balancer = self.balancers[self._by_sign[delivery.address, delivery.port]]
        if balancer.name not in self._endpoints:
            self._endpoints[balancer.name] = _endpoints(balancer)
        return _Treatment(
            self._endpoints[balancer.name],
            delivery.masqueraded,
            _seconds(balancer.affinity),
            _scheduling(balancer),
        )


def _sign(balancer: Balancer, number: int, own: frozenset[Address]) -> Endpoint:
    """An endpoint that no other balancer's sign is equal to; at the node itself if all the balancer's are."""
    first = balancer.endpoints[0].address
    unused = _UNUSED[balancer.family] + number // LAST_PORT
    at_home = all(e.address in own for e in balancer.endpoints)
    return Endpoint(first if at_home else address_of(balancer.family, unused), number % LAST_PORT + 1)


def _key(frontend: Frontend) -> _Key:
    return frontend.family, frontend.address, frontend.protocol, frontend.port


def _endpoints(balancer: Balancer) -> frozenset[tuple[str, int]]:
    heaviest = len({e.weight for e in balancer.endpoints}) > 1
    return frozenset(
        (f"{_place(e.address, e.port)}{f' (weight {e.weight})' if heaviest else ''}", e.port)
        for e in balancer.endpoints
    )


def _place(address: Address, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def _seconds(affinity: Affinity | None) -> int | None:
    return affinity.timeout if affinity is not None else None


def _scheduling(balancer: Balancer) -> str:
    return " ".join(w for w in (balancer.scheduler, balancer.forwarding) if w)


def service_effects(old: Program, new: Program, names: Names) -> tuple[Effect, ...]:
    """One line for each service port and thing that changes; one for all services where all change alike."""
    was, will = _Side(old), _Side(new)
    senders_differ = old.node.detector != new.node.detector
    found: dict[tuple[str, _Delta, Protocol], list[tuple[_Key, Frontend, tuple[str, ...]]]] = {}
    for key in sorted({*was.frontends, *will.frontends}, key=_order):
        if not senders_differ and was.content(key) == will.content(key):
            continue
        frontend = will.frontends.get(key) or was.frontends[key]
        for source, delta, causes in _deltas(key, was, will, names):
            service = "" if delta.shared else frontend.service
            found.setdefault((f"{service}\n{source}", delta, key[2]), []).append((key, frontend, causes))
    lines = [
        _effect(source.partition("\n")[2], delta, protocol, many)
        for (source, delta, protocol), many in found.items()
    ]
    return (*lines, *node_effects(old, new))


def _order(key: _Key) -> tuple[int, bool, int, str, int]:
    family, address, protocol, port = key
    return family, address is None, int(address) if address is not None else 0, protocol.value, port


def _effect(
    source: str, delta: _Delta, protocol: Protocol, many: list[tuple[_Key, Frontend, tuple[str, ...]]]
) -> Effect:
    services = list(dict.fromkeys(f.service for _, f, _ in many if f.service))
    places = [_frontend(k, f.exposure) for k, f, _ in many]
    causes = tuple(dict.fromkeys(c for _, _, cs in many for c in cs))
    if len(services) == 1:
        destination = f"{services[0]} ({listed(places)})"
    else:
        kinds = ", ".join(dict.fromkeys(_EXPOSURES[f.exposure] for _, f, _ in many))
        destination = f"{listed(services, 'service ports')} ({kinds})" if services else listed(places)
    return Effect(
        delta.symbol, source, destination, protocol.value.upper(), "", delta.detail, causes, len(many)
    )


def _frontend(key: _Key, exposure: Exposure) -> str:
    _, address, _, port = key
    place = _place(address, port) if address is not None else f"IPv{key[0]} {port}"
    return f"{_EXPOSURE[exposure]} {place}".strip()


def _deltas(
    key: _Key, was: _Side, will: _Side, names: Names
) -> Iterator[tuple[str, _Delta, tuple[str, ...]]]:
    """What changes at one frontend, by who the client is; clients that see the same are one."""
    family = key[0]
    seen: dict[tuple[_Delta, tuple[str, ...]], list[str]] = {}
    ranges: dict[tuple[_Delta, tuple[str, ...]], list[Range]] = {}
    for label, sender, source, interface, held in _clients(key, was, will):
        before, after = (s.treatment(key, sender, source, interface) for s in (was, will))
        if before == after:
            continue
        line = (_delta(before, after), _causes(key, was, will, before, after))
        if held:
            ranges.setdefault(line, []).extend(held)
        else:
            seen.setdefault(line, []).append(label)
    for line in {**dict.fromkeys(ranges), **dict.fromkeys(seen)}:
        group = people(family, ranges[line], names) if line in ranges else None
        labels = seen.get(line, [])
        everybody = group is not None and group == Group(everyone=True)
        if everybody:
            words = [f"everyone{'' if _NODE in labels else f' but {_NODE}'} (IPv{family})"]
            labels = [n for n in labels if n != _NODE]
        else:
            words = [group.text(family)] if group is not None else []
        # "everyone except A, B, the node itself" would say the contrary.
        yield "; and ".join([*words, *labels]), *line


def _clients(key: _Key, was: _Side, will: _Side) -> Iterator[tuple[str, Sender, Address, str, list[Range]]]:
    """A client of each class: the node, and each class of addresses that either program tells apart."""
    family = key[0]
    yield _NODE, Sender.NODE, will.node_address(family), "", []
    told_apart = [r for side in (was, will) for r in _told_apart(family, side, key)]
    interfaces = {"": ""}
    for side in (was, will):
        if isinstance(side.program.node.detector, FromInterface):
            name = side.program.node.detector.name
            interfaces[f"pods behind {name}"] = name
    avoid = {
        int(a)
        for side in (was, will)
        for b in _balancers_of(side, key)
        for a in (e.address for e in b.endpoints)
    }
    avoid |= {int(a) for side in (was, will) for a in side.program.node.addresses if a.version == family}
    for _, held in sorted(address_classes(family, told_apart).items()):
        value = representative(held, avoid)
        if value is None:
            continue  # only endpoints and the node: said elsewhere
        for label, interface in interfaces.items():
            yield label, Sender.EXTERNAL, address_of(family, value), interface, [] if label else held


def _balancers_of(side: _Side, key: _Key) -> Iterator[Balancer]:
    frontend = side.frontends.get(key)
    for route in frontend.routes if frontend is not None else ():
        if isinstance(route.action, Balance):
            yield side.balancers[route.action.balancer]


def _told_apart(family: Family, side: _Side, key: _Key) -> Iterator[list[Range]]:
    frontend = side.frontends.get(key)
    if frontend is not None and frontend.sources is not None:
        yield _ranges(side.sets[frontend.sources])
    detector = side.program.node.detector
    distinguishes = frontend is not None and any(r.who is Who.CLUSTER for r in frontend.routes)
    if isinstance(detector, SourceIn) and distinguishes:
        yield [range_of(family, prefix_of(n)) for n in detector.networks if n.version == family]


def _ranges(one: AddressSet) -> list[Range]:
    return [range_of(one.family, p) for p in one.prefixes]


def _delta(before: _Treatment, after: _Treatment) -> _Delta:
    if after.serves and not before.serves:
        masquerade = ", with the node's address as source" if after.masqueraded else ""
        return _Delta("+", f"{before} -> {_endpoint_words(after.endpoints)}{masquerade}", shared=False)
    if before.serves and not after.serves:
        return _Delta("-", f"{before} -> {after}", shared=False)
    if not after.serves:
        return _Delta("~", f"{before} -> {after}", shared=False)
    parts = []
    gone, come = before.endpoints - after.endpoints, after.endpoints - before.endpoints
    if gone or come:
        words = [f"{sign} {_endpoint_words(e)}" for sign, e in (("-", gone), ("+", come)) if e]
        parts.append(f"endpoints {' '.join(words)} (now {len(after.endpoints)})")
    if before.masqueraded != after.masqueraded:
        parts.append(
            "source: client's own -> the node's"
            if after.masqueraded
            else "source: the node's -> client's own"
        )
    if before.affinity != after.affinity:
        parts.append(f"session affinity {_affinity(before.affinity)} -> {_affinity(after.affinity)}")
    if before.scheduling != after.scheduling:
        parts.append(f"scheduling {before.scheduling or 'default'} -> {after.scheduling or 'default'}")
    return _Delta("~", "; ".join(parts), shared=not (gone or come))


def _endpoint_words(endpoints: Iterable[tuple[str, int]]) -> str:
    return listed(sorted(e for e, _ in endpoints), "endpoints")


def _affinity(seconds: int | None) -> str:
    return f"{seconds} s" if seconds is not None else "none"


def _causes(key: _Key, was: _Side, will: _Side, before: _Treatment, after: _Treatment) -> tuple[str, ...]:
    """The slices of endpoints that come and go; the service where it is not (only) them."""
    found: dict[str, None] = {}
    now, then = will.frontends.get(key), was.frontends.get(key)
    local = [side.all_local(key, t.endpoints) for side, t in ((was, before), (will, after))]
    for side, gained, lost in ((will, after, before), (was, before, after)):
        if now is None or then is None:
            break
        for place in gained.endpoints - lost.endpoints:
            for b in _balancers_of(side, key):
                for e in b.endpoints:
                    if place[0].partition(" ")[0] == _place(e.address, e.port):
                        found |= dict.fromkeys(cause(e.origin, old=side is was))
    if found:
        # Nothing at all, or only what is local, from now on or until now: that may be the service's doing.
        service = now is not None and (local[0] != local[1] or not (before.serves and after.serves))
        return (*(cause(now.origin) if service and now is not None else ()), *sorted(found))
    return (
        _origin(now.origin, old=False)
        if now is not None
        else _origin(then.origin if then else None, old=True)
    )


def _origin(origin: Origin | None, *, old: bool) -> tuple[str, ...]:
    return cause(origin, old=old)
