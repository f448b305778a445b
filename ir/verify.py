"""What must hold between the parts of a program. Run after lowering and after each pass.

Knows: references, duplicates, families. Must not know: what values check of themselves on construction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from k8snetc.ir.addresses import range_of
from k8snetc.ir.types import AddressSet, Balance, Balancer, Enforcement, Frontend, Program


class InvalidProgramError(Exception):
    """The compiler broke a program: a defect of k8snetc, not of the input. Names every violation."""


def verify(program: Program) -> Program:
    """Return `program` unchanged, or raise `InvalidProgramError` with everything that is wrong with it."""
    wrong = [*_names(program), *_frontends(program), *_sets(program), *_enforcements(program)]
    if wrong:
        raise InvalidProgramError("the program is not valid: " + "; ".join(wrong))
    return program


def _duplicates(kind: str, names: Iterable[object]) -> Iterator[str]:
    seen: set[object] = set()
    for name in names:
        if name in seen:
            yield f"two {kind}s {name}"
        seen.add(name)


def _names(program: Program) -> Iterator[str]:
    yield from _duplicates("balancer", (b.name for b in program.balancers))
    yield from _duplicates("set", (s.name for s in program.sets))
    yield from _duplicates("enforcement", (e.name for e in program.enforcements))
    yield from _duplicates("admission", ((a.protocol, a.port) for a in program.admissions))
    matches = ((f.address or f"node/{f.family}", f.protocol, f.port) for f in program.frontends)
    yield from _duplicates("frontend", matches)


def _frontends(program: Program) -> Iterator[str]:
    balancers = {b.name: b for b in program.balancers}
    sets = {s.name: s for s in program.sets}
    for frontend in program.frontends:
        for route in frontend.routes:
            if isinstance(route.action, Balance):
                yield from _balance(frontend, route.action, balancers.get(route.action.balancer))
        if frontend.sources is not None:
            yield from _reference(f"frontend {frontend.service}", frontend.family, sets, frontend.sources)
        if frontend.family not in program.node.families:
            yield f"frontend {frontend.service} is of a family that the node has not"


def _balance(frontend: Frontend, action: Balance, balancer: Balancer | None) -> Iterator[str]:
    if balancer is None:
        yield f"frontend {frontend.service} names no known balancer: {action.balancer}"
    elif (balancer.family, balancer.protocol) != (frontend.family, frontend.protocol):
        yield f"frontend {frontend.service} and its balancer {balancer.name} differ in family or protocol"


def _reference(who: str, family: int, sets: dict[str, AddressSet], name: str) -> Iterator[str]:
    if name not in sets:
        yield f"{who} names no known set: {name}"
    elif sets[name].family != family:
        yield f"{who} and its set {name} differ in family"


def _sets(program: Program) -> Iterator[str]:
    names = {s.name for s in program.sets}
    for name in (*program.rejects, *program.drops):
        if name not in names:
            yield f"the program refuses an unknown set: {name}"
    for one in program.sets:
        ranges = [range_of(one.family, p) for p in one.prefixes]
        if any(a[1] >= b[0] for a, b in pairwise(ranges)):
            yield f"set {one.name} is not sorted and disjoint"


def _enforcements(program: Program) -> Iterator[str]:
    sets = {s.name: s for s in program.sets}
    for enforcement in program.enforcements:
        who = f"enforcement {enforcement.name}"
        for rule in (*enforcement.admin, *enforcement.rules, *enforcement.baseline):
            if rule.peers is not None:
                yield from _reference(who, enforcement.family, sets, rule.peers)
    yield from _duplicates("enforcement of pod", _protected(program.enforcements))


def _protected(enforcements: Iterable[Enforcement]) -> Iterator[object]:
    for enforcement in enforcements:
        for pod in enforcement.pods:
            yield enforcement.direction.value, str(pod)
