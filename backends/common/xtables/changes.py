"""What differs between two states of iptables and ipset, for people.

Knows: which chain of one state a chain of the other stands in for. Must not know: how a change is installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from difflib import SequenceMatcher

from k8snetc.backends.common.xtables.place import misplaced
from k8snetc.backends.common.xtables.state import IpSet, Rules, State, Table, TableKey
from k8snetc.backends.target import Change

MOST_COMPARED = 2000
"""Chains longer than this are compared as bags of lines: the order of a difference is of no use to a person there."""


def changes(live: State, goal: State) -> tuple[Change, ...]:
    """Empty exactly when the states are equal, settings that `goal` doesn't speak of apart."""
    return tuple(replace(c, origin=_origin(c)) for c in _changes(live, goal))


_COMMENT = re.compile(r'--comment (?:"((?:[^"\\]|\\.)*)"|(\S+))')
MOST_ORIGINS = 3


def _origin(change: Change) -> str:
    """The manifest objects that a change is for, as comments of rules name them: of those that come, else that go."""
    for lines in (change.added, change.removed):
        found = dict.fromkeys(m[1] or m[2] for line in lines if (m := _COMMENT.search(line)))
        if found:
            names = [n.replace("\\", "") for n in found]
            more = f" and {len(names) - MOST_ORIGINS} more" if len(names) > MOST_ORIGINS else ""
            return "; ".join(names[:MOST_ORIGINS]) + more
    return ""


def _changes(live: State, goal: State) -> Iterator[Change]:
    for name, value in sorted(goal.sysctls.items()):
        now = live.sysctls.get(name)
        if now != value:
            yield Change(f"setting {name}", (now,) if now is not None else (), (value,))
    yield from map(Change, misplaced(live, goal))
    for key in sorted({*live.tables, *goal.tables}):
        yield from _table(key, live.table(key), goal.table(key))
    yield from _sets(live.sets, goal.sets)


def _table(key: TableKey, live: Table, goal: Table) -> Iterator[Change]:
    place = f"{key[1]} IPv{key[0]}"
    for base in sorted({*live.hooks, *goal.hooks}):
        yield from _rules(f"{place} {base}", live.hooks.get(base, ()), goal.hooks.get(base, ()))
    for name in sorted({*live.chains, *goal.chains}):
        was, will = live.chains.get(name), goal.chains.get(name)
        if was is None or will is None:
            yield Change(f"{place} {name}", _chain(was), _chain(will))
        else:
            yield from _rules(f"{place} {name}", was, will)


def _chain(rules: Rules | None) -> Rules:
    """What a chain is by itself: one without rules is something, too."""
    return () if rules is None else rules or ("no rules",)


def _rules(where: str, was: Rules, will: Rules) -> Iterator[Change]:
    if was == will:
        return
    if max(len(was), len(will)) > MOST_COMPARED:
        kept = {*was} & {*will}
        gone, come = tuple(r for r in was if r not in kept), tuple(r for r in will if r not in kept)
    else:
        blocks = [
            b for b in SequenceMatcher(None, was, will, autojunk=False).get_opcodes() if b[0] != "equal"
        ]
        gone = tuple(r for _, a, b, _, _ in blocks for r in was[a:b])
        come = tuple(r for _, _, _, a, b in blocks for r in will[a:b])
    # Two bags alike but in another order still differ.
    yield Change(where, gone or (() if come else was), come or (() if gone else will))


def _sets(live: Mapping[str, IpSet], goal: Mapping[str, IpSet]) -> Iterator[Change]:
    for name in sorted({*live, *goal}):
        was, will = live.get(name), goal.get(name)
        where = f"set {name}"
        if was is None or will is None:
            yield Change(where, _lines(was), _lines(will))
        elif was.type != will.type:
            yield Change(where, (was.type,), (will.type,))
        elif was.elements is not None and will.elements is not None and was.elements != will.elements:
            yield Change(
                where,
                tuple(sorted(was.elements - will.elements)),
                tuple(sorted(will.elements - was.elements)),
            )


def _lines(one: IpSet | None) -> tuple[str, ...]:
    return () if one is None else (one.type, *sorted(one.elements or ()))
