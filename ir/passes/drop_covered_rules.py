"""Rules that can't matter, because another one decides first or allows as much.

Before: any rules. After: no allow rule that one other allow rule covers; in a tier (first match wins) no rule that one
earlier rule covers, whatever either decides, and none at the end that says what happens there anyway: in `admin` the
packet is passed on, in `baseline` it is allowed. A rule covers another that matches no packet which it doesn't match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from k8snetc.ir.addresses import Range, range_of
from k8snetc.ir.types import AddressSet, Enforcement, Program, Rule, Verdict


def run(program: Program) -> Program:
    """The program without rules that can't matter."""
    coverage = _Coverage(program.sets)
    return replace(program, enforcements=tuple(_thin(e, coverage) for e in program.enforcements))


def _thin(enforcement: Enforcement, coverage: _Coverage) -> Enforcement:
    rules = coverage.needed(enforcement.rules)
    admin = _without_tail(coverage.reachable(enforcement.admin), {Verdict.PASS})
    baseline = _without_tail(coverage.reachable(enforcement.baseline), {Verdict.PASS, Verdict.ALLOW})
    if (len(rules), len(admin), len(baseline)) == (
        len(enforcement.rules),
        len(enforcement.admin),
        len(enforcement.baseline),
    ):
        return enforcement
    return replace(enforcement, rules=rules, admin=admin, baseline=baseline)


def _without_tail(rules: tuple[Rule, ...], idle: set[Verdict]) -> tuple[Rule, ...]:
    end = len(rules)
    while end and rules[end - 1].verdict in idle:
        end -= 1
    return rules[:end]


class _Coverage:
    """Which rule covers which; the ranges of each set are made once."""

    def __init__(self, sets: Sequence[AddressSet]) -> None:
        self._sets = {s.name: s for s in sets}
        self._ranges: dict[str, list[Range]] = {}
        self._inside: dict[tuple[str, str], bool] = {}

    def needed(self, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        """Unordered rules of one verdict, without those that another covers (of equal ones the first stays)."""
        kept: list[Rule] = []
        for rule in rules:
            if not any(self.covers(k, rule) for k in kept):
                kept = [k for k in kept if not self.covers(rule, k)]
                kept.append(rule)
        return tuple(kept)

    def reachable(self, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        """Ordered rules, without those that an earlier one covers."""
        kept: list[Rule] = []
        for rule in rules:
            if not any(self.covers(k, rule) for k in kept):
                kept.append(rule)
        return tuple(kept)

    def covers(self, wide: Rule, narrow: Rule) -> bool:
        """Whether every packet that `narrow` matches is one that `wide` matches."""
        if wide.protocol is not None and wide.protocol is not narrow.protocol:
            return False
        if wide.ports and not (narrow.ports and _inside(narrow.ports, wide.ports)):
            return False
        if wide.peers is None or wide.peers == narrow.peers:
            return True
        return narrow.peers is not None and self._within(narrow.peers, wide.peers)

    def _within(self, narrow: str, wide: str) -> bool:
        known = self._inside.get((narrow, wide))
        if known is None:
            known = self._inside[narrow, wide] = _inside(self._of(narrow), self._of(wide))
        return known

    def _of(self, name: str) -> list[Range]:
        ranges = self._ranges.get(name)
        if ranges is None:
            one = self._sets[name]
            ranges = self._ranges[name] = _joined([range_of(one.family, p) for p in one.prefixes])
        return ranges


def _joined(ranges: Sequence[Range]) -> list[Range]:
    """Sorted, disjoint ranges with neighbours joined, so that a range inside several of them is inside one."""
    out: list[Range] = []
    for first, last in ranges:
        if out and first == out[-1][1] + 1:
            out[-1] = (out[-1][0], last)
        else:
            out.append((first, last))
    return out


def _inside(narrow: Sequence[tuple[int, int]], wide: Sequence[tuple[int, int]]) -> bool:
    """Whether sorted, disjoint, non-adjacent ranges lie in others."""
    at = 0
    for first, last in narrow:
        while at < len(wide) and wide[at][1] < first:
            at += 1
        if at == len(wide) or first < wide[at][0] or last > wide[at][1]:
            return False
    return True
