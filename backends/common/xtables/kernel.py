"""The kernel's iptables, ip6tables, ipset and sysctl values: read what is ours, write what `switch` planned.

Knows: the tools' names and flags, and the order of sets, settings and tables among each other. Must not know: programs.

The order, in which a packet that both programs allow always passes and one that both deny never does: new sets and
elements, settings that close, the tables (see `switch`), settings that open, elements and sets that go. A set that may
not be mixed from old and new elements, even for a moment, must be named by its content.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from k8snetc.backends.common.run import CommandError, run
from k8snetc.backends.common.settings import read_settings, setting_steps
from k8snetc.backends.common.xtables import place
from k8snetc.backends.common.xtables.state import (
    IpSet,
    Place,
    Rules,
    State,
    Table,
    TableKey,
    parse_sets,
    parse_tables,
    set_lines,
)
from k8snetc.backends.common.xtables.switch import Restore, plan
from k8snetc.backends.target import InstallError, InstallOptions, Step
from k8snetc.ir.types import Family

DESTROY_RETRIES = 100
DESTROY_PAUSE = 0.05
"""nf_tables frees the rules that hold a set a moment after the commit (a work queue): try again for 5 seconds."""


class Tools:
    """The tools of one variant of iptables, in the network namespace that the caller is in."""

    def __init__(self, options: InstallOptions) -> None:
        if options.iptables not in ("auto", "legacy", "nft"):
            raise InstallError(f"{options.iptables!r} is no variant of iptables; use auto, legacy or nft")
        self.variant = options.iptables
        self._wait = str(options.wait)

    def program(self, family: Family, what: str) -> str:
        """`iptables-restore`, `ip6tables-nft-save`... for `restore` and `save`."""
        name = "iptables" if family is Family.IPV4 else "ip6tables"
        return f"{name}-{what}" if self.variant == "auto" else f"{name}-{self.variant}-{what}"

    def save(self, family: Family) -> str:
        """All rules of a family, ours and others."""
        return run([self.program(family, "save")])

    def restore(self, family: Family, text: str) -> None:
        """Commit one or more tables; waits for the xtables lock. Raises `CommandError`."""
        run([self.program(family, "restore"), "-w", self._wait, "--noflush"], text)

    def observe(self, sysctls: Sequence[str] = ()) -> State:
        """All that is ours, what keeps packets from it, and the values of those settings."""
        tables: dict[TableKey, Table] = {}
        ahead: dict[Place, Rules] = {}
        for family in Family:
            text = self.save(family)
            tables |= parse_tables(family, text)
            judged = place.judging(tables.get((family, place.FILTER), Table()))
            ahead |= {(family, base): rules for base, rules in place.ahead(text, judged).items()}
        return State(tables, parse_sets(save_sets()), read_settings(sysctls), ahead)

    def steps(self, live: State, goal: State) -> tuple[Step, ...]:
        """What leads from `live` to `goal`."""
        return (*self.growing(live, goal), *self.shrinking(live, goal))

    def growing(self, live: State, goal: State, *, together: bool = True) -> tuple[Step, ...]:
        """The first part: what comes, and the tables. `together`: several tables change at one stroke (`switch`)."""
        return tuple(self._growing(live, goal, together=together))

    def _growing(self, live: State, goal: State, *, together: bool) -> Iterator[Step]:
        grow = list(_grow(live.sets, goal.sets))
        if grow:
            yield _step(f"sets: add {len(grow)} entries", len(grow), lambda: _ipset(grow))
        opening, closing = setting_steps(live.sysctls, goal.sysctls)
        yield from closing
        for restore in plan(live, goal) if together else _one_by_one(live, goal):
            yield Step(restore.title, self._commit(restore), restore.lines)
        yield from opening

    def shrinking(self, live: State, goal: State) -> tuple[Step, ...]:
        """The second part: elements and sets that go."""
        steps = []
        shrink = list(_shrink(live.sets, goal.sets))
        gone = sorted(n for n in live.sets if n not in goal.sets)
        if shrink:
            steps.append(_step(f"sets: remove {len(shrink)} entries", len(shrink), lambda: _ipset(shrink)))
        if gone:
            steps.append(_step(f"sets: remove {len(gone)} sets", len(gone), lambda: _destroy(gone)))
        return tuple(steps)

    def _commit(self, restore: Restore) -> Callable[[], None]:
        return lambda: self.restore(restore.family, restore.text)


def save_sets() -> str:
    """All sets as ipset save prints them, in one call: thousands would take seconds. Others' are passed over later."""
    return run(["ipset", "save"])


def _step(title: str, size: int, do: Callable[[], None]) -> Step:
    return Step(title, do, size)


def _grow(live: Mapping[str, IpSet], goal: Mapping[str, IpSet]) -> Iterator[str]:
    for name in sorted(goal):
        there, wanted = live.get(name), goal[name]
        if there is None:
            yield from set_lines(name, wanted)
        elif there.elements is not None and wanted.elements is not None:
            yield from (f"add {name} {e}" for e in sorted(wanted.elements - there.elements))


def _shrink(live: Mapping[str, IpSet], goal: Mapping[str, IpSet]) -> Iterator[str]:
    """Lines that remove elements, the sets in the opposite order of `_grow`.

    What follows an element's first word (a mark) is no part of its identity: a new mark has replaced the old.
    """
    for name in sorted(goal, reverse=True):
        there, wanted = live.get(name), goal[name]
        if there is not None and there.elements is not None and wanted.elements is not None:
            kept = {e.partition(" ")[0] for e in wanted.elements}
            gone = {e.partition(" ")[0] for e in there.elements - wanted.elements}
            yield from (f"del {name} {e}" for e in sorted(gone - kept))


def _one_by_one(live: State, goal: State) -> Iterator[Restore]:
    """The tables one after the other, each at one stroke: for a back end that is not atomic anyway.

    One restore for all of a family: what it takes is the start of the program, not the lines.
    """
    now = live
    restores: list[Restore] = []
    for key in sorted({*live.tables, *goal.tables}):
        tables = {**now.tables, key: goal.table(key)}
        ahead = {at: rules for at, rules in now.ahead.items() if key != (at[0], place.FILTER)}
        then = replace(now, tables={k: t for k, t in tables.items() if t}, ahead=ahead)
        restores += plan(now, then)
        now = then
    for family, group in groupby(restores, key=lambda r: r.family):
        parts = list(group)
        yield Restore(
            family,
            "; ".join(r.title for r in parts),
            "".join(r.text for r in parts),
            sum(r.lines for r in parts),
        )


def _ipset(lines: Sequence[str]) -> None:
    run(["ipset", "-exist", "restore"], "\n".join([*lines, ""]))


def _destroy(names: Sequence[str]) -> None:
    waiting = list(names)
    for attempt in range(DESTROY_RETRIES):
        try:
            run(["ipset", "restore"], "".join(f"destroy {n}\n" for n in waiting))
        except CommandError as e:
            there = set(run(["ipset", "list", "-n"]).split())
            waiting = [n for n in waiting if n in there]
            if not waiting:
                return
            if "in use" not in e.output or attempt == DESTROY_RETRIES - 1:
                raise
            time.sleep(DESTROY_PAUSE)
        else:
            return
