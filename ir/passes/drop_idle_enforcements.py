"""Enforcements that never deny.

Before: any enforcements. After: what an isolated pod's "allow everything" rule says is said by not isolating it (and
its baseline, which is then never asked, is gone); no enforcement without a way to deny is left.
"""

from __future__ import annotations

from dataclasses import replace

from k8snetc.ir.types import Enforcement, Program, Rule, Verdict


def run(program: Program) -> Program:
    """The program without enforcements that change nothing."""
    opened = (_opened(e) for e in program.enforcements)
    return replace(program, enforcements=tuple(e for e in opened if _denies(e)))


def _opened(enforcement: Enforcement) -> Enforcement:
    if any(r.peers is None and r.protocol is None for r in enforcement.rules):
        return replace(enforcement, isolated=False, rules=(), baseline=())
    if enforcement.isolated and enforcement.baseline:
        return replace(
            enforcement, baseline=()
        )  # NetworkPolicy has the last word on the pods that it selects
    return enforcement


def _denies(enforcement: Enforcement) -> bool:
    def denying(rules: tuple[Rule, ...]) -> bool:
        return any(r.verdict is Verdict.DENY for r in rules)

    return enforcement.isolated or denying(enforcement.admin) or denying(enforcement.baseline)
