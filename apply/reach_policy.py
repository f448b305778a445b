"""Who gains or loses access to which pods, and which pods to whom, because policy changes.

Knows: the enforcements of two programs and the interpreter. Must not know: services, rules of any back end.

A connection needs the egress of its source and the ingress of its destination. So three kinds of pairs are looked at:
into pods with changed ingress from whoever has no egress policy here; out of pods with changed egress to whoever has
no ingress policy here; and between pods of this node that have both. A node's own traffic, a pod's to itself and to its
node are never judged, and so never listed. Where no pod is yet, or no longer, nothing is reached: a pod that comes
gains what policy allows it, one that goes loses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from k8snetc.apply.connectivity import Effect, Names, Pods, cause
from k8snetc.apply.partition import address_classes, port_classes, representative, without
from k8snetc.apply.policy_lines import PROTOCOLS, Causes, Line, Lines, Traffic, together, with_moves
from k8snetc.ir.addresses import Range, address_of, range_of
from k8snetc.ir.interpret import Denial, Interpreter, Judgement, Sender
from k8snetc.ir.types import (
    Address,
    Direction,
    Enforcement,
    Family,
    Origin,
    PortRange,
    Prefix,
    Program,
    Protocol,
    Rule,
)

_NO_POD = Judgement(Denial(Direction.INGRESS, "", ()), ())
"""What becomes of a packet to or from a pod that isn't there."""
_Content = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """Pods that both programs treat alike in one direction: the rules that `was` and `will` apply to them.

    None: there is no such pod (yet, or any more).
    """

    pods: tuple[int, ...]
    was: tuple[Enforcement, ...] | None
    will: tuple[Enforcement, ...] | None
    changed: bool

    @property
    def both(self) -> tuple[Enforcement, ...]:
        return (*(self.was or ()), *(self.will or ()))


class _Side:
    """One program with what is looked up often."""

    def __init__(self, program: Program, pods: Names | None) -> None:
        self.program = program
        self._pods = pods
        self.prefixes: Mapping[str, tuple[Prefix, ...]] = {s.name: s.prefixes for s in program.sets}
        self.whole = Interpreter(program)

    def enforced(self, family: Family, direction: Direction) -> dict[int, list[Enforcement]]:
        found: dict[int, list[Enforcement]] = {}
        for e in self.program.enforcements:
            if e.family is family and e.direction is direction:
                for pod in e.pods:
                    found.setdefault(int(pod), []).append(e)
        return found

    def rules_of(
        self, family: Family, pod: int, enforced: Mapping[int, list[Enforcement]]
    ) -> tuple[Enforcement, ...] | None:
        """What `enforced` holds for a pod; None if there is no such pod."""
        found = enforced.get(pod)
        if found is None and self._pods is not None and address_of(family, pod) not in self._pods:
            return None
        return tuple(found or ())

    def content(self, enforcements: Sequence[Enforcement] | None) -> _Content | None:
        if enforcements is None:
            return None
        return tuple(
            (e.isolated, *(tuple(self._rule(r) for r in tier) for tier in (e.rules, e.admin, e.baseline)))
            for e in enforcements
        )

    def _rule(self, rule: Rule) -> object:
        return (
            rule.verdict,
            rule.protocol,
            rule.ports,
            None if rule.peers is None else self.prefixes[rule.peers],
        )

    def alone(self, enforcements: Sequence[Enforcement] | None) -> Interpreter | None:
        """An interpreter that judges by these enforcements only, which is one direction only."""
        if enforcements is None:
            return None
        return Interpreter(
            replace(self.program, frontends=(), balancers=(), enforcements=tuple(enforcements))
        )

    def peers(self, family: Family, enforcements: Sequence[Enforcement] | None) -> list[list[Range]]:
        names = {r.peers for e in enforcements or () for r in _rules(e) if r.peers is not None}
        return [[range_of(family, p) for p in self.prefixes[n]] for n in sorted(names)]


@dataclass(frozen=True, slots=True)
class _Scope:
    """Both programs in one family, and where what is found goes."""

    family: Family
    was: _Side
    will: _Side
    lines: Lines


def policy_effects(old: Program, new: Program, pods_: Pods) -> tuple[Effect, ...]:
    """One line for each thing that changes, pods that it changes for put together."""
    was, will = _Side(old, pods_.was), _Side(new, pods_.will)
    names = pods_.names
    found = {family: with_moves(list(_family(family, was, will, names))) for family in Family}
    known = {a.version for a in names} | {e.family for side in (was, will) for e in side.program.enforcements}
    return tuple(together(found, both=known.issuperset(Family)))


def _family(family: Family, was: _Side, will: _Side, names: Names) -> Iterator[Line]:
    groups = {d: _groups(family, d, was, will) for d in Direction}
    held = {d: sorted({p for g in groups[d] for p in g.pods}) for d in Direction}
    scope = _Scope(family, was, will, Lines(family, names))
    for direction, other in ((Direction.INGRESS, Direction.EGRESS), (Direction.EGRESS, Direction.INGRESS)):
        for group in groups[direction]:
            if group.changed:
                _one_sided(scope, direction, group, held[other])
    for source in groups[Direction.EGRESS]:
        for destination in groups[Direction.INGRESS]:
            if source.changed or destination.changed:
                _both_sided(scope, source, destination)
    yield from scope.lines.lines()


def _groups(family: Family, direction: Direction, was: _Side, will: _Side) -> list[_Group]:
    before, after = was.enforced(family, direction), will.enforced(family, direction)
    found: dict[tuple[_Content | None, _Content | None], list[int]] = {}
    for pod in sorted({*before, *after}):
        old, new = was.rules_of(family, pod, before), will.rules_of(family, pod, after)
        found.setdefault((was.content(old), will.content(new)), []).append(pod)
    return [
        _Group(
            tuple(members),
            was.rules_of(family, members[0], before),
            will.rules_of(family, members[0], after),
            changed=key[0] != key[1],
        )
        for key, members in found.items()
    ]


def _one_sided(scope: _Scope, direction: Direction, group: _Group, others: Sequence[int]) -> None:
    """Between a group and whoever is judged in this direction only: all but `others`, the pods and the node."""
    family, was, will = scope.family, scope.was, scope.will
    alone = was.alone(group.was), will.alone(group.will)
    sets = [*was.peers(family, group.was), *will.peers(family, group.will)]
    classes = port_classes_of(group.both)
    node = {int(a) for s in (was, will) for a in s.program.node.addresses if a.version == family}
    for held in address_classes(family, sets).values():
        rest = without(held, {*others, *(node if direction is Direction.EGRESS else ())})
        # A pod reaches itself whatever policy says, so two different ones are asked about.
        value = representative(rest, group.pods[:1] if len(group.pods) == 1 else ())
        if value is None:
            continue
        pod = address_of(family, next(p for p in group.pods if p != value))
        peer = address_of(family, value)
        pair = (peer, pod) if direction is Direction.INGRESS else (pod, peer)
        for change, traffic in _judged(alone, pair, classes).items():
            scope.lines.add(direction, change, traffic, group.pods, rest)


def _both_sided(scope: _Scope, source: _Group, destination: _Group) -> None:
    """Between pods of this node with egress policy and pods with ingress policy."""
    family, was, will = scope.family, scope.was, scope.will
    to_sets = [*was.peers(family, source.was), *will.peers(family, source.will)]
    from_sets = [*was.peers(family, destination.was), *will.peers(family, destination.will)]
    classes = port_classes_of((*source.both, *destination.both))
    sides = (
        None if source.was is None or destination.was is None else was.whole,
        None if source.will is None or destination.will is None else will.whole,
    )
    for sources in _split(family, source.pods, from_sets):
        for destinations in _split(family, destination.pods, to_sets):
            a = sources[0]
            b = next((d for d in destinations if d != a), None)
            if b is None:
                a, b = next(((s, destinations[0]) for s in sources if s != destinations[0]), (a, None))
            if b is None:
                continue
            pair = address_of(family, a), address_of(family, b)
            for change, traffic in _judged(sides, pair, classes).items():
                scope.lines.add(
                    Direction.INGRESS, change, traffic, tuple(destinations), [(s, s) for s in sources]
                )


def _split(family: Family, members: Iterable[int], sets: Sequence[Iterable[Range]]) -> list[list[int]]:
    """Pods by the sets they are in."""
    if not sets:
        return [list(members)]
    wanted = sorted(members)
    found = []
    for held in address_classes(family, sets).values():
        inside = [p for p in wanted if any(first <= p <= last for first, last in held)]
        if inside:
            found.append(inside)
    return found


def port_classes_of(enforcements: Iterable[Enforcement]) -> dict[Protocol | None, list[PortRange]]:
    """The ports that these rules can't tell apart, by protocol."""
    ranges: dict[Protocol | None, list[PortRange]] = {p: [] for p in PROTOCOLS}
    for e in enforcements:
        for r in _rules(e):
            ranges[r.protocol] += r.ports
    return {p: port_classes(r) for p, r in ranges.items() if p is not None} | {None: [PortRange(0, 0)]}


def _rules(enforcement: Enforcement) -> tuple[Rule, ...]:
    return (*enforcement.rules, *enforcement.admin, *enforcement.baseline)


def _judged(
    sides: tuple[Interpreter | None, Interpreter | None],
    pair: tuple[Address, Address],
    classes: Mapping[Protocol | None, Sequence[PortRange]],
) -> dict[tuple[str, Causes], Traffic]:
    """What changes between two addresses: by symbol and cause, the protocols and ports."""
    found: dict[tuple[str, Causes], Traffic] = {}
    for one, ranges in classes.items():
        for ports_ in ranges:
            before, after = (
                s.judge(Sender.EXTERNAL, *pair, one, ports_.first) if s is not None else _NO_POD
                for s in sides
            )
            if (before.denial is None) == (after.denial is None):
                continue
            symbol = "+" if after.denial is None else "-"
            change = (symbol, _causes(before, after))
            found.setdefault(change, Traffic()).ports.setdefault(one, []).append(ports_)
    return found


def _causes(before: Judgement, after: Judgement) -> Causes:
    """The rule that allows now, or allowed; else the policies that isolate now, or did."""
    granting, refusing = (after, before) if after.denial is None else (before, after)
    gained = granting is after
    allowing: list[Origin] = [s.origin for s in granting.steps if s.origin is not None]
    found = cause(allowing[-1], old=not gained) if allowing else ()
    assert refusing.denial is not None
    if not found or not gained:
        denying = [c for o in refusing.denial.origins for c in cause(o, old=gained)]
        known = {c.removeprefix("was ") for c in denying}
        # A rule that went with a policy that stays is the cause; a policy that is new is one whatever allowed before.
        found = (*denying, *(c for c in found if c.removeprefix("was ") not in known))
    return tuple(dict.fromkeys(found))
