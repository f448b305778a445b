"""Every address set as the fewest prefixes.

Before: sets of sorted, disjoint prefixes. After: the same addresses in the fewest prefixes; a policy rule whose
peers are all addresses of the family is for everyone, one whose peers are none is gone (it matches nothing).
"""

from __future__ import annotations

from dataclasses import replace

from k8snetc.ir.addresses import cover_prefixes
from k8snetc.ir.passes.tiers import map_tiers
from k8snetc.ir.types import AddressSet, Prefix, Program, Rule

ALL = (Prefix(0, 0),)


def run(program: Program) -> Program:
    """The program with minimal sets."""
    sets = tuple(map(_covered, program.sets))
    everyone = {s.name for s in sets if s.prefixes == ALL}
    nobody = {s.name for s in sets if not s.prefixes}

    def widen(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        if not any(r.peers in everyone or r.peers in nobody for r in rules):
            return rules
        return tuple(
            replace(r, peers=None) if r.peers in everyone else r for r in rules if r.peers not in nobody
        )

    return replace(program, sets=sets, enforcements=map_tiers(program.enforcements, widen, widen))


def _covered(one: AddressSet) -> AddressSet:
    prefixes = cover_prefixes(one.family, one.prefixes)
    return one if prefixes == one.prefixes else replace(one, prefixes=prefixes)
