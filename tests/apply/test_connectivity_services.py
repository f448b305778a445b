"""What a plan says about services is what the interpreter says to every client: nothing left out or made up."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from k8snetc.apply import words
from k8snetc.apply.connectivity import Effect, effects
from k8snetc.ir.interpret import Interpreter, Packet, Sender
from k8snetc.ir.types import Address, Balance, Frontend, Program, Route, SourceIn, Who
from tests.support.lab import small
from tests.support.programs import Generator

OUTSIDE = ["203.0.113.9", "172.18.0.9", "10.244.77.1", "10.244.1.200", "2001:db8::9", "fd18::9", "fd44:77::1"]
SEEDS = [s for s in range(40) if isinstance(Generator(small(), s).program().node.detector, SourceIn | None)][
    :12
]
"""Clients told by interface have words of their own."""


def programs(seed: int) -> tuple[Program, Program]:
    """Two programs for one node; the second keeps some services of the first as they are, and has others anew.

    Each frontend has a service of its own, so that a line says which it is about.
    """
    old, new = (Generator(small(), s).program(services=10, policy=False) for s in (seed, seed + 1000))
    kept = {key(f): kept_as(f) for f in old.frontends[::2]}
    frontends = kept | {key(f): f for f in new.frontends if key(f) not in kept}
    balancers = (*(replace(b, name=f"kept {b.name}") for b in old.balancers), *new.balancers)
    sets = (*(replace(s, name=f"kept {s.name}") for s in old.sets), *new.sets)
    other = replace(new, node=old.node, frontends=tuple(frontends.values()), balancers=balancers, sets=sets)
    return tuple(  # type: ignore[return-value]  # two, as above
        replace(p, rejects=(), drops=(), frontends=tuple(replace(f, service=key(f)) for f in p.frontends))
        for p in (old, other)
    )


def key(f: Frontend) -> str:
    """What a frontend is addressed as."""
    return f"IPv{f.family}-{f.address}-{f.port}-{f.protocol.value}"


def kept_as(f: Frontend) -> Frontend:
    """A frontend of the old program, whose balancers and sets have other names in the new one."""
    routes = tuple(
        Route(r.who, replace(r.action, balancer=f"kept {r.action.balancer}"))
        if isinstance(r.action, Balance)
        else r
        for r in f.routes
    )
    return replace(f, routes=routes, sources=None if f.sources is None else f"kept {f.sources}")


class Side:
    """What one program does to a client of a frontend, policy left aside."""

    def __init__(self, program: Program) -> None:
        # NodePorts are said to be served, not on which of the node's addresses.
        self.program = replace(program, node=replace(program.node, nodeport_networks=()))
        self.interpreter = Interpreter(self.program)
        self.balancers = {b.name: b for b in program.balancers}
        self.frontends = {key(f): f for f in program.frontends}

    def treats(self, sender: Sender, source: Address, frontend: Frontend) -> object:
        mine = self.frontends.get(key(frontend))
        if mine is None:
            return None
        own = next(a for a in self.program.node.addresses if a.version == mine.family)
        # A frontend at the node's own address may hide a NodePort; it is asked about by a node that has another.
        if mine.address is None:
            own = ip_address("192.0.2.77" if mine.family == 4 else "2001:db8::77")
            node = replace(self.program.node, addresses=(own, *self.program.node.addresses))
            asked = Interpreter(replace(self.program, node=node))
        else:
            asked = self.interpreter
        target = own if mine.address is None else mine.address
        result = asked.run(Packet(sender, source, target, mine.protocol, mine.port))
        if result.refusal is not None:
            return result.refusal
        balancer = self.balancers[self.route(mine, sender, source).balancer]
        return (
            frozenset((e.address, e.port, e.weight) for e in balancer.endpoints),
            frozenset(d.masqueraded for d in result.deliveries),
            balancer.affinity.timeout if balancer.affinity is not None else None,
        )

    def route(self, frontend: Frontend, sender: Sender, source: Address) -> Balance:
        """Where such a client goes."""
        detector = self.program.node.detector
        networks = detector.networks if isinstance(detector, SourceIn) else ()
        cluster = any(source in n for n in networks if n.version == source.version)
        who = {Who.ANY, *([Who.NODE] if sender is Sender.NODE else []), *([Who.CLUSTER] if cluster else [])}
        action = next(r.action for r in frontend.routes if r.who in who)
        assert isinstance(action, Balance)
        return action


def means(line: Effect, sender: Sender, source: Address, frontend: Frontend) -> bool:
    """Whether a line is about this client and this frontend."""
    services = line.destination.partition(" (")[0].split(", ")
    if key(frontend) not in services or line.protocol != frontend.protocol.value.upper():
        return False
    people, _, more = line.source.partition("; and ")
    if people.endswith(f" (IPv{source.version})"):
        return people.startswith("everyone (") or sender is not Sender.NODE
    if sender is Sender.NODE:
        return "the node itself" in (people, more)
    if people == "the node itself":
        return False
    networks = people.removeprefix("everyone except ").split(", ")
    return any(source in ip_network(n) for n in networks) != people.startswith("everyone except ")


@pytest.mark.parametrize("seed", SEEDS)
def test_service_lines_are_exact(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(words, "SHOWN", 10_000)
    old, new = programs(seed)
    lines = effects(old, new)
    was, will = Side(old), Side(new)
    endpoints = {e.address for p in (old, new) for b in p.balancers for e in b.endpoints}
    clients = [(Sender.NODE, a) for a in old.node.addresses]
    clients += [(Sender.EXTERNAL, a) for a in map(ip_address, OUTSIDE) if a not in endpoints]
    changed = 0
    for frontend in (was.frontends | will.frontends).values():
        for sender, source in clients:
            if source.version == frontend.family:
                before, after = (s.treats(sender, source, frontend) for s in (was, will))
                said = [str(e) for e in lines if means(e, sender, source, frontend)]
                assert len(said) == (before != after), f"{key(frontend)} for {sender} {source}: {said}"
                changed += before != after
    assert changed > 10
