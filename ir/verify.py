"""What must hold between the parts of a program. Run after lowering and after each pass.

Knows: references, duplicates, families, prefixes. Must not know: what values check of themselves on construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from k8snetc.ir.addresses import range_of
from k8snetc.ir.types import AddressSet, Balance, Balancer, Enforcement, Family, Frontend, Prefix, Program


class InvalidProgramError(Exception):
    """The compiler broke a program: a defect of k8snetc, not of the input. Names every violation."""


def verify(program: Program, *, since: Program | None = None) -> Program:
    """Return `program` unchanged, or raise `InvalidProgramError` with everything that is wrong with it.

    `since` is a program that was verified before: what only concerns parts that are the same objects in both is not
    looked at again.
    """
    wrong = [
        what
        for parts, check in _CHECKS
        if since is None or any(getattr(program, p) is not getattr(since, p) for p in parts)
        for what in check(program)
    ]
    if wrong:
        raise InvalidProgramError("the program is not valid: " + "; ".join(wrong))
    return program


def _duplicates(kind: str, names: Iterable[object]) -> Iterator[str]:
    seen: set[object] = set()
    for name in names:
        if name in seen:
            yield f"two {kind}s {name}"
        seen.add(name)


def _balancer_names(program: Program) -> Iterator[str]:
    return _duplicates("balancer", (b.name for b in program.balancers))


def _set_names(program: Program) -> Iterator[str]:
    return _duplicates("set", (s.name for s in program.sets))


def _enforcement_names(program: Program) -> Iterator[str]:
    return _duplicates("enforcement", (e.name for e in program.enforcements))


def _admissions(program: Program) -> Iterator[str]:
    return _duplicates("admission", ((a.protocol, a.port) for a in program.admissions))


def _matches(program: Program) -> Iterator[str]:
    matches = ((f.address or f"node/{f.family}", f.protocol, f.port) for f in program.frontends)
    return _duplicates("frontend", matches)


def _families(program: Program) -> Iterator[str]:
    families = program.node.families
    if len(set(families)) == len(Family):
        return
    named = (
        *((f"frontend {f.service}", f.family) for f in program.frontends),
        *((f"balancer {b.name}", b.family) for b in program.balancers),
        *((f"set {s.name}", s.family) for s in program.sets),
        *((f"enforcement {e.name}", e.family) for e in program.enforcements),
    )
    for who, family in named:
        if family not in families:
            yield f"{who} is of a family that the node has not"


def _memories(program: Program) -> Iterator[str]:
    """Balancers that share their memory of clients agree on what it is."""
    first: dict[str, Balancer] = {}
    for balancer in program.balancers:
        if balancer.affinity is None:
            continue
        other = first.setdefault(balancer.affinity.key, balancer)
        mine = balancer.affinity, balancer.family, balancer.protocol
        if mine != (other.affinity, other.family, other.protocol):
            yield (
                f"balancers {other.name} and {balancer.name} share the memory {balancer.affinity.key} "
                "and differ in its time, family or protocol"
            )


def _balances(program: Program) -> Iterator[str]:
    balancers = {b.name: b for b in program.balancers}
    for frontend in program.frontends:
        for route in frontend.routes:
            if isinstance(route.action, Balance):
                yield from _balance(frontend, route.action, balancers.get(route.action.balancer))


def _balance(frontend: Frontend, action: Balance, balancer: Balancer | None) -> Iterator[str]:
    if balancer is None:
        yield f"frontend {frontend.service} names no known balancer: {action.balancer}"
    elif balancer.family is not frontend.family or balancer.protocol is not frontend.protocol:
        yield f"frontend {frontend.service} and its balancer {balancer.name} differ in family or protocol"


def _reference(who: str, family: int, sets: dict[str, AddressSet], name: str) -> Iterator[str]:
    if name not in sets:
        yield f"{who} names no known set: {name}"
    elif sets[name].family != family:
        yield f"{who} and its set {name} differ in family"


def _sources(program: Program) -> Iterator[str]:
    sets = {s.name: s for s in program.sets}
    for frontend in program.frontends:
        if frontend.sources is not None:
            yield from _reference(f"frontend {frontend.service}", frontend.family, sets, frontend.sources)


def _refusals(program: Program) -> Iterator[str]:
    names = {s.name for s in program.sets}
    for name in (*program.rejects, *program.drops):
        if name not in names:
            yield f"the program refuses an unknown set: {name}"


def _prefixes(program: Program) -> Iterator[str]:
    for one in program.sets:
        odd = [p for p in one.prefixes if not _is_prefix(one.family, p)]
        if odd:
            yield f"set {one.name} holds what is no prefix: {odd[0].value}/{odd[0].length}"
            continue
        ranges = [range_of(one.family, p) for p in one.prefixes]
        if any(a[1] >= b[0] for a, b in pairwise(ranges)):
            yield f"set {one.name} is not sorted and disjoint"


def _is_prefix(family: Family, prefix: Prefix) -> bool:
    value, length = prefix
    bits = family.bits
    return 0 <= length <= bits and 0 <= value < 1 << bits and not value & ((1 << (bits - length)) - 1)


def _peers(program: Program) -> Iterator[str]:
    sets = {s.name: s for s in program.sets}
    for enforcement in program.enforcements:
        who = f"enforcement {enforcement.name}"
        for rule in (*enforcement.admin, *enforcement.rules, *enforcement.baseline):
            if rule.peers is not None:
                yield from _reference(who, enforcement.family, sets, rule.peers)


def _pods(program: Program) -> Iterator[str]:
    return _duplicates("enforcement of pod", _protected(program.enforcements))


def _protected(enforcements: Iterable[Enforcement]) -> Iterator[object]:
    for enforcement in enforcements:
        for pod in enforcement.pods:
            yield enforcement.direction.value, str(pod)


# Each check, with the parts of a program that it looks at.
_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Program], Iterator[str]]], ...] = (
    (("balancers",), _balancer_names),
    (("sets",), _set_names),
    (("enforcements",), _enforcement_names),
    (("admissions",), _admissions),
    (("frontends",), _matches),
    (("frontends", "balancers", "sets", "enforcements", "node"), _families),
    (("balancers",), _memories),
    (("frontends", "balancers"), _balances),
    (("frontends", "sets"), _sources),
    (("sets", "rejects", "drops"), _refusals),
    (("sets",), _prefixes),
    (("enforcements", "sets"), _peers),
    (("enforcements",), _pods),
)
