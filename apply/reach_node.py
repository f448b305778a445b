"""What the node as a whole treats differently: service addresses that no port defines, settings, health checks.

Knows: what a program says beside its frontends. Must not know: balancers, policy, rules of any back end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from k8snetc.apply.connectivity import Effect, cause
from k8snetc.apply.partition import address_classes
from k8snetc.apply.words import people
from k8snetc.ir.addresses import Range, range_of
from k8snetc.ir.types import Family, Program


def node_effects(old: Program, new: Program) -> Iterator[Effect]:
    """One line for each thing that changes."""
    yield from _addresses(old, new)
    yield from _node(old, new)


def _addresses(old: Program, new: Program) -> Iterator[Effect]:
    """Service addresses where what no frontend defines is refused, and where it no longer is."""
    for family in Family:
        sides = []
        for program in (old, new):
            sets = {s.name: s for s in program.sets if s.family is family}
            sides += [
                [range_of(family, p) for n in names if n in sets for p in sets[n].prefixes]
                for names in (program.rejects, program.drops)
            ]
        words = ("passed on", "refused", "dropped", "refused")
        for mask, held in sorted(address_classes(family, sides).items()):
            before, after = words[mask & 3], words[mask >> 2]
            if before != after:
                causes = _refused_for(new, family, held) or _refused_for(old, family, held, old=True)
                yield Effect(
                    "~",
                    f"everyone (IPv{family})",
                    f"service addresses {people(family, held, {}).text(family)}",
                    detail=f"what no service port defines: {before} -> {after}",
                    causes=causes,
                )


def _refused_for(
    program: Program, family: Family, held: Iterable[Range], *, old: bool = False
) -> tuple[str, ...]:
    """The services whose addresses these are."""
    ranges = list(held)
    return tuple(
        dict.fromkeys(
            c
            for f in program.frontends
            if f.address is not None and f.family is family
            if any(first <= int(f.address) <= last for first, last in ranges)
            for c in cause(f.origin, old=old)
        )
    )


def _node(old: Program, new: Program) -> Iterator[Effect]:
    """What the node as a whole does differently."""
    facts = (
        ("node ports on 127.0.0.0/8", old.node.localhost_nodeports, new.node.localhost_nodeports),
        ("packets that conntrack calls invalid are dropped", old.node.drop_invalid, new.node.drop_invalid),
    )
    used = bool(old.frontends and new.frontends)
    for what, before, after in facts:
        if used and before != after:
            yield Effect("~", "everyone", what, detail=f"{_yes(before)} -> {_yes(after)}")
    if used and old.node.nodeport_networks != new.node.nodeport_networks:
        there = [", ".join(map(str, n.nodeport_networks)) or "all addresses" for n in (old.node, new.node)]
        yield Effect("~", "everyone", "node ports are served on", detail=" -> ".join(there))
    for gone, come, symbol in ((old, new, "-"), (new, old, "+")):
        kept = {(a.protocol, a.port) for a in come.admissions}
        for a in gone.admissions:
            if (a.protocol, a.port) not in kept:
                yield Effect(
                    symbol,
                    "everyone",
                    "the node's health check port",
                    a.protocol.value.upper(),
                    str(a.port),
                    causes=cause(a.origin, old=symbol == "-"),
                )


def _yes(value: bool) -> str:
    return "yes" if value else "no"
