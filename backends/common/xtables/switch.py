"""From one set of tables to another without a moment in between: pure planning, text in and text out.

Knows: how restores of single tables, each atomic by itself, make a change of several tables atomic.
Must not know: the kernel, programs, sets, what the rules mean.

One table of one family changes in one commit, which a packet sees either before or after. Where several tables of
a family change (address translation and filter, say), two commits would leave a moment in which packets meet the new
translation and the old filter. So both programs stand side by side for that moment, and one rule decides:

1. each table: our hooks become `marked -> one side, unmarked -> the other side` (no change in effect: nobody marks);
2. table raw: one rule marks every packet as it enters the node or leaves a process. *This is the switch*;
3. each table: our hooks become those of the new program alone, and the old chains go (no change in effect);
4. table raw: the mark goes.

A chain whose name stays while its rules change stands, for that moment, under a second name for the old side. The mark
is bit 6, which none of kube-proxy, CNI portmap, Calico, Cilium, Weave, Tailscale, Istio or AWS uses, nor our own
rules. A state in which a killed run left the mark in place is a state like another: then the marked side is the one
in effect, and 1 to 4 run mirrored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

from k8snetc.backends.common.xtables.model import PREFIX
from k8snetc.backends.common.xtables.place import behind
from k8snetc.backends.common.xtables.state import Rules, State, Table, TableKey, led_to
from k8snetc.ir.types import Family

MARK = "0x40/0x40"
SIDE_PREFIX = f"{PREFIX}SIDE-"
MARKER = f"{PREFIX}SWITCH"
RAW = "raw"
_MARKER_TABLE = Table(
    chains={MARKER: (f"-j MARK --set-xmark {MARK}",)},
    hooks={"PREROUTING": (f"-j {MARKER}",), "OUTPUT": (f"-j {MARKER}",)},
)
_TESTS = {True: f"-m mark --mark {MARK} -j ", False: f"-m mark ! --mark {MARK} -j "}


@dataclass(frozen=True, slots=True)
class Restore:
    """One commit of one table: `text` is for iptables-restore --noflush. `lines` counts it."""

    family: Family
    title: str
    text: str
    lines: int


def plan(live: State, goal: State) -> tuple[Restore, ...]:
    """The commits that lead from `live` to `goal`, in order; empty if nothing differs.

    `live` may be any state, also half of such a plan.
    """
    return tuple(restore for family in Family for restore in _family(family, live, goal))


def effective(live: State, key: TableKey) -> Table:
    """What the table does now: `live`'s, or of a table with two sides the side that packets meet."""
    table = live.table(key)
    if not _two_sided(table):
        return _without_marker(table)
    mine = _TESTS[_marked(live, key[0])]
    hooks: dict[str, Rules] = {}
    for base, rules in table.hooks.items():
        sides = [r.removeprefix(mine) for r in rules if r.startswith(mine)]
        hooks[base] = tuple(rule for side in sides for rule in table.chains.get(side, ()))
    return Table(_without_marker(table).chains, {b: r for b, r in hooks.items() if r})


def _family(family: Family, live: State, goal: State) -> Iterator[Restore]:
    keys = sorted({k for s in (live, goal) for k in s.tables if k[0] is family})
    marker = _marker(live, family)
    marked = marker == _MARKER_TABLE
    now = {k: _without_marker(live.table(k)) for k in keys}
    doing = {k: effective(live, k) for k in keys}
    # A hook that others' rules stand before is put first by the first commit of its table.
    last = behind(live, goal)
    late = {k: {base for key, base in last if key == k} for k in keys}
    if marker and not marked:
        yield from _mark(family, marker, Table())
        marker = Table()
    # Chains under other names for the same content differ here too; that costs commits, never correctness.
    differing = [k for k in keys if _in_use(doing[k]) != _in_use(goal.table(k))]
    if len(differing) > 1:
        # A table may do what it should and still have two sides: the flip would show the other one.
        for key in (k for k in keys if k not in differing):
            yield from _commit(key, now[key], goal.table(key), "clean up", late.pop(key))
            now[key] = goal.table(key)
        for key in differing:
            after = _both_sides(doing[key], goal.table(key), marked)
            yield from _commit(key, now[key], after, "new chains beside the old", late.pop(key))
            now[key] = after
        flipped = Table() if marked else _MARKER_TABLE
        yield from _mark(family, marker, flipped)
        marker = flipped
    for key in keys:
        title = "switch to the new chains" if len(differing) == 1 and key in differing else "clean up"
        yield from _commit(key, now[key], goal.table(key), title, late.get(key, ()))
    yield from _mark(family, marker, Table())


def _marker(live: State, family: Family) -> Table:
    """What is there of the marking rule, whole or damaged."""
    table = live.table((family, RAW))
    hooks = {b: tuple(r for r in rules if r == f"-j {MARKER}") for b, rules in table.hooks.items()}
    chains = {n: r for n, r in table.chains.items() if n == MARKER}
    return Table(chains, {b: r for b, r in hooks.items() if r})


def _marked(live: State, family: Family) -> bool:
    return _marker(live, family) == _MARKER_TABLE


def _two_sided(table: Table) -> bool:
    return any(r.startswith("-m mark ") and SIDE_PREFIX in r for rules in table.hooks.values() for r in rules)


def _without_marker(table: Table) -> Table:
    hooks = {b: tuple(r for r in rules if r != f"-j {MARKER}") for b, rules in table.hooks.items()}
    return Table(
        {n: r for n, r in table.chains.items() if n != MARKER}, {b: r for b, r in hooks.items() if r}
    )


def _in_use(table: Table) -> Table:
    """The table without chains that no hook leads to."""
    reached: set[str] = set()
    waiting = [led_to(r) for rules in table.hooks.values() for r in rules]
    while waiting:
        name = waiting.pop()
        if name not in reached and name in table.chains:
            reached.add(name)
            waiting += (led_to(r) for r in table.chains[name])
    if len(reached) == len(table.chains):
        return table
    return Table({n: r for n, r in table.chains.items() if n in reached}, table.hooks)


def _renamed(rule: str, names: Mapping[str, str]) -> str:
    target = led_to(rule)
    return rule.removesuffix(target) + names[target] if target in names else rule


def _both_sides(old: Table, new: Table, marked: bool) -> Table:
    """A table that does what `old` does for packets marked as `marked` says, and what `new` does for the others."""
    moved = _moved(old, new)
    chains = dict(new.chains)
    for name, rules in old.chains.items():
        if name in moved:
            chains[moved[name]] = tuple(_renamed(r, moved) for r in rules)
        else:
            chains.setdefault(name, rules)
    hooks: dict[str, Rules] = {}
    for base in sorted({*old.hooks, *new.hooks}):
        was = tuple(_renamed(r, moved) for r in old.hooks.get(base, ()))
        sides = {marked: was, not marked: new.hooks.get(base, ())}
        if sides[True] == sides[False]:
            hooks[base] = sides[True]
            continue
        dispatch: list[str] = []
        for side in (True, False):
            if sides[side]:
                name = SIDE_PREFIX + _digest(base, *sides[side])
                chains[name] = sides[side]
                dispatch.append(_TESTS[side] + name)
        hooks[base] = tuple(dispatch)
    return Table(chains, hooks)


def _moved(old: Table, new: Table) -> dict[str, str]:
    """Second names for chains of `old` that differ in `new` under the same name, and for all that lead to them."""
    leading: dict[str, list[str]] = {}
    for name, rules in old.chains.items():
        for rule in rules:
            leading.setdefault(led_to(rule), []).append(name)
    waiting = [n for n, rules in old.chains.items() if new.chains.get(n, rules) != rules]
    moved: dict[str, str] = {}
    meanings: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        if name not in moved:
            moved[name] = SIDE_PREFIX + _meaning(name, old.chains, meanings)
            waiting += leading.get(name, ())
    return moved


def _meaning(name: str, chains: Mapping[str, Rules], known: dict[str, str]) -> str:
    """A digest of a chain and of all that it leads to; `known` remembers.

    Its own lines would not do: a killed plan may have left a second name for the same lines that lead elsewhere, and
    that one is in use.
    """
    if name not in known:
        rules = chains[name]
        led = (_meaning(t, chains, known) for t in map(led_to, rules) if t in chains)
        known[name] = _digest(name, *rules, *led)
    return known[name]


def _digest(*words: str) -> str:
    return sha256("\n".join(words).encode()).hexdigest()[:12].upper()


def _commit(
    key: TableKey, live: Table, goal: Table, title: str, late: Collection[str] = ()
) -> Iterator[Restore]:
    """One restore that turns `live` into `goal`, nothing if they are equal. `late`: hooks that are put first anyhow."""
    # A chain that is deleted is first emptied, all of them, so that none holds another.
    gone = sorted(n for n in live.chains if n not in goal.chains)
    written = sorted(n for n, rules in goal.chains.items() if live.chains.get(n) != rules)
    lines = [f":{n} - [0:0]" for n in (*written, *gone)]
    lines += (f"-A {n} {rule}" for n in written for rule in goal.chains[n])
    for base in sorted({*live.hooks, *goal.hooks}):
        was, will = live.hooks.get(base, ()), goal.hooks.get(base, ())
        if was != will or base in late:
            lines += (f"-D {base} {rule}" for rule in was)
            lines += (f"-I {base} 1 {rule}" for rule in reversed(will))
    lines += (f"-X {n}" for n in gone)
    if lines:
        new = sum(n not in live.chains for n in written)
        what = f"{title}: {_counts(new, len(written) - new, len(gone))}"
        title = f"{key[1]} (IPv{key[0]}): {'put our rules first' if live == goal else what}"
        yield Restore(key[0], title, "\n".join([f"*{key[1]}", *lines, "COMMIT", ""]), len(lines))


def _counts(new: int, changed: int, gone: int) -> str:
    parts = ((new, "new"), (changed, "changed"), (gone, "removed"))
    return ", ".join(f"{n} {what}" for n, what in parts if n) or "hooks only"


def _mark(family: Family, now: Table, after: Table) -> Iterator[Restore]:
    title = "packets meet the new chains" if after else "clean up"
    return _commit((family, RAW), now, after, title)


def lines_of(restores: Iterable[Restore]) -> int:
    """How many lines reach the kernel in all."""
    return sum(r.lines for r in restores)
