"""Pods with the same rules share an enforcement.

Before: one enforcement for each pod, or each group that lowering knew of. After: no two enforcements of a family and
direction with the same rules; the allow rules, which have no order, are in a canonical one. The first name stays.
"""

from __future__ import annotations

from dataclasses import replace

from k8snetc.ir.types import Enforcement, Program, Rule


def run(program: Program) -> Program:
    """The program with equal enforcements merged."""
    groups: dict[object, list[Enforcement]] = {}
    for enforcement in program.enforcements:
        rules = tuple(sorted(enforcement.rules, key=_order))
        one = enforcement if rules == enforcement.rules else replace(enforcement, rules=rules)
        content = (one.family, one.direction, one.isolated, one.rules, one.admin, one.baseline)
        groups.setdefault(content, []).append(one)
    return replace(program, enforcements=tuple(map(_merged, groups.values())))


def _order(rule: Rule) -> tuple[object, ...]:
    return rule.peers or "", rule.protocol or "", rule.ports


def _merged(group: list[Enforcement]) -> Enforcement:
    if len(group) == 1:
        return group[0]
    return replace(
        min(group, key=lambda e: e.name),
        pods=tuple(sorted((p for e in group for p in e.pods), key=int)),
        origins=tuple(sorted({o for e in group for o in e.origins})),
    )
