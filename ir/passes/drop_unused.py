"""Drop balancers and sets that nothing names.

Before: left-overs of other passes. After: every balancer is named by a route, every set by a frontend, an
enforcement or a refusal; empty refusal sets are dropped with their mention.
"""

from __future__ import annotations

from dataclasses import replace

from k8snetc.ir.types import Balance, Program


def run(program: Program) -> Program:
    """The program without parts that mean nothing."""
    empty = {s.name for s in program.sets if not s.prefixes}
    rejects = tuple(n for n in program.rejects if n not in empty)
    drops = tuple(n for n in program.drops if n not in empty)
    balancers = {
        r.action.balancer for f in program.frontends for r in f.routes if isinstance(r.action, Balance)
    }
    sets = {*rejects, *drops}
    sets.update(f.sources for f in program.frontends if f.sources is not None)
    for enforcement in program.enforcements:
        for rules in (enforcement.admin, enforcement.rules, enforcement.baseline):
            sets.update(r.peers for r in rules if r.peers is not None)
    return replace(
        program,
        balancers=tuple(b for b in program.balancers if b.name in balancers),
        sets=tuple(s for s in program.sets if s.name in sets),
        rejects=rejects,
        drops=drops,
    )
