"""Identical address sets once.

Before: a set for each place that lists addresses. After: of sets with the same family and prefixes the
first by name stays, and everything names that one.
"""

from __future__ import annotations

from dataclasses import replace

from k8snetc.ir.types import AddressSet, Enforcement, Family, Prefix, Program, Rule


def run(program: Program) -> Program:
    """The program with equal sets merged."""
    kept: dict[tuple[Family, tuple[Prefix, ...]], AddressSet] = {}
    renamed: dict[str, str] = {}
    for one in sorted(program.sets, key=lambda s: s.name):
        first = kept.setdefault((one.family, one.prefixes), one)
        if first is not one:
            renamed[one.name] = first.name
    if not renamed:
        return program

    def name(old: str) -> str:
        return renamed.get(old, old)

    return replace(
        program,
        sets=tuple(s for s in program.sets if s.name not in renamed),
        frontends=tuple(
            replace(f, sources=name(f.sources)) if f.sources in renamed else f for f in program.frontends
        ),
        rejects=tuple(dict.fromkeys(map(name, program.rejects))),
        drops=tuple(dict.fromkeys(map(name, program.drops))),
        enforcements=tuple(_enforcement(e, renamed) for e in program.enforcements),
    )


def _enforcement(enforcement: Enforcement, renamed: dict[str, str]) -> Enforcement:
    def tier(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return tuple(replace(r, peers=renamed[r.peers]) if r.peers in renamed else r for r in rules)

    return replace(
        enforcement,
        rules=tier(enforcement.rules),
        admin=tier(enforcement.admin),
        baseline=tier(enforcement.baseline),
    )
