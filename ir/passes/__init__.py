"""The passes and their order: `Program -> Program`, pure, meaning kept, the program verified after each.

Knows: the order. Must not know: what any pass does inside, or any back end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from operator import is_

from k8snetc.ir.passes import (
    drop_covered_rules,
    drop_dead_frontends,
    drop_idle_enforcements,
    drop_unused,
    group_enforcements,
    merge_ports,
    minimal_cover,
    share_balancers,
    share_sets,
)
from k8snetc.ir.types import Program
from k8snetc.ir.verify import verify

Pass = Callable[[Program], Program]

PASSES: tuple[tuple[str, Pass], ...] = (
    ("drop-dead-frontends", drop_dead_frontends.run),  # first: what it drops needs no work
    ("share-balancers", share_balancers.run),
    ("minimal-cover", minimal_cover.run),
    ("share-sets", share_sets.run),
    ("merge-ports", merge_ports.run),
    ("drop-covered-rules", drop_covered_rules.run),
    ("drop-idle-enforcements", drop_idle_enforcements.run),
    ("group-enforcements", group_enforcements.run),  # after the passes that make rules alike
    ("drop-unused", drop_unused.run),  # last: collects what nothing names any more
)


def run_passes(program: Program, *, checked: bool = True) -> Program:
    """The program after all passes. `checked`: verify it before the first and after each."""
    return deque(stages(program, checked=checked), maxlen=1)[0][1]


def stages(program: Program, *, checked: bool = True) -> Iterator[tuple[str, Program]]:
    """The program as lowered, then after each pass, with the stage's name."""
    yield "lower", verify(program) if checked else program
    for name, run in PASSES:
        before, program = program, _kept(program, run(program))
        yield name, verify(program, since=before) if checked else program


def _kept(before: Program, after: Program) -> Program:
    """`after`, with the tuples of `before` where a pass made a new one of the same objects: no need to verify them."""
    same: dict[str, tuple[object, ...]] = {}
    for name in ("balancers", "frontends", "sets", "rejects", "drops", "admissions", "enforcements"):
        old, new = getattr(before, name), getattr(after, name)
        if old is not new and len(old) == len(new) and all(map(is_, old, new)):
            same[name] = old
    return replace(after, **same) if same else after  # type: ignore[arg-type]  # each is the tuple of its own field
