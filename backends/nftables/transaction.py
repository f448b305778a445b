"""From one ruleset to another: the commands of one transaction, as few as possible, and the differences for people.

Knows: in which order nft takes commands. Must not know: the kernel, what rules are for.

What only differs in comments does not differ. A set that is declared anew under its old name, or a hook that moves,
replaces the whole table, still in the same transaction; then clients that were remembered are forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from k8snetc.backends.nftables.emit import element, rule, table_lines
from k8snetc.backends.nftables.model import Chain, NamedSet, Ruleset, Table
from k8snetc.backends.target import Change
from k8snetc.ir.types import Family

T = TypeVar("T", NamedSet, Chain)


@dataclass(frozen=True, slots=True)
class Transaction:
    """Commands for nft, all or nothing. `size` counts elements, rules, chains and sets that are handed over."""

    text: str
    size: int


@dataclass(slots=True)
class _Commands:
    lines: list[str]
    size: int = 0

    def add(self, line: str, size: int = 1) -> None:
        self.lines.append(line)
        self.size += size


def transaction(live: Ruleset, goal: Ruleset) -> Transaction | None:
    """What leads from `live` to `goal`; None if nothing has to be done."""
    commands = _Commands([])
    for family in Family:
        _tables(live.table(family), goal.table(family), commands)
    return Transaction("\n".join(commands.lines) + "\n", commands.size) if commands.lines else None


def _tables(live: Table | None, goal: Table | None, commands: _Commands) -> None:
    if live == goal:
        return
    if live is not None and (goal is None or not _compatible(live, goal)):
        commands.add(f"delete table {live.words}")
        live = None
    if goal is None:
        return
    if live is None:
        commands.lines.extend(table_lines(goal))
        commands.size += _size(goal)
        return
    _difference(live, goal, commands)


def _size(table: Table) -> int:
    return sum(1 + len(s.elements) for s in table.sets) + sum(1 + len(c.rules) for c in table.chains)


def _compatible(live: Table, goal: Table) -> bool:
    """Whether everything that keeps its name keeps its kind."""
    sets = {s.name: (s.spec, s.is_map) for s in live.sets}
    hooks = {c.name: c.hook for c in live.chains}
    return all(sets.get(s.name, (s.spec, s.is_map)) == (s.spec, s.is_map) for s in goal.sets) and all(
        hooks.get(c.name, c.hook) == c.hook for c in goal.chains
    )


def _difference(live: Table, goal: Table, commands: _Commands) -> None:
    words = goal.words
    old_sets, new_sets = {s.name: s for s in live.sets}, {s.name: s for s in goal.sets}
    old_chains, new_chains = {c.name: c for c in live.chains}, {c.name: c for c in goal.chains}
    gone = [c for name, c in old_chains.items() if name not in new_chains]
    changed = [c for name, c in new_chains.items() if name in old_chains and old_chains[name] != c]
    added = replace(
        goal,
        sets=tuple(s for s in goal.sets if s.name not in old_sets),
        chains=tuple(c for c in goal.chains if c.name not in old_chains),
    )
    if added.sets or added.chains:
        commands.lines.extend(table_lines(added))
        commands.size += _size(added)
    # First nothing refers to what goes, then it goes.
    for c in (*gone, *changed):
        commands.add(f"flush chain {words} {c.name}")
    for c in changed:
        for r in c.rules:
            commands.add(f"add rule {words} {c.name} {rule(r)}")
    for name, one in new_sets.items():
        if name in old_sets and old_sets[name].elements != one.elements:
            _elements(words, old_sets[name], one, commands)
    forsaken = [s for name, s in old_sets.items() if name not in new_sets]
    for s in forsaken:
        if s.is_map:
            commands.add(f"flush {s.word} {words} {s.name}")
    for s in forsaken:
        commands.add(f"delete {s.word} {words} {s.name}")
    for c in gone:
        commands.add(f"delete chain {words} {c.name}")


def _elements(words: str, live: NamedSet, goal: NamedSet, commands: _Commands) -> None:
    gone, come = _differing(live, goal)
    if gone:
        bare = replace(live, comments={})
        shown = ", ".join(element(bare, k) for k in gone)
        commands.add(f"delete element {words} {live.name} {{ {shown} }}", len(gone))
    if come:
        shown = ", ".join(element(goal, k) for k in come)
        commands.add(f"add element {words} {goal.name} {{ {shown} }}", len(come))


def _differing(live: NamedSet, goal: NamedSet) -> tuple[list[str], list[str]]:
    """Keys of elements that go and that come; one with another value does both."""
    was, will = live.elements, goal.elements
    return (
        [k for k, v in was.items() if will.get(k) != v],
        [k for k, v in will.items() if was.get(k) != v],
    )


# --- for people ---


def changes(live: Ruleset, goal: Ruleset) -> tuple[Change, ...]:
    """Empty exactly when `goal` is what `live` does; settings that `goal` doesn't speak of apart."""
    return tuple(_changes(live, goal))


def _changes(live: Ruleset, goal: Ruleset) -> Iterator[Change]:
    for name, value in sorted(goal.sysctls.items()):
        now = live.sysctls.get(name)
        if now != value:
            yield Change(f"setting {name}", (now,) if now is not None else (), (value,))
    for family in Family:
        was, will = live.table(family), goal.table(family)
        if was != will:
            words = f"IPv{family.value}"
            yield from _set_changes(
                words, _by_name(was.sets if was else ()), _by_name(will.sets if will else ())
            )
            yield from _chain_changes(
                words, _by_name(was.chains if was else ()), _by_name(will.chains if will else ())
            )
            if (was is None) != (will is None) and not _has_content(was, will):
                yield Change(f"table {words}", ("table",) if was else (), ("table",) if will else ())


def _has_content(*tables: Table | None) -> bool:
    return any(t is not None and (t.sets or t.chains) for t in tables)


def _by_name(items: Iterable[T]) -> dict[str, T]:
    return {i.name: i for i in items}


def _set_changes(words: str, was: Mapping[str, NamedSet], will: Mapping[str, NamedSet]) -> Iterator[Change]:
    for name in sorted({*was, *will}):
        old, new = was.get(name), will.get(name)
        where = f"{(old or new or _NOTHING).word} {words} {name}"
        if old == new:
            continue
        if old is None or new is None or (old.spec, old.is_map) != (new.spec, new.is_map):
            yield Change(where, _set_text(old), _set_text(new))
        else:
            gone, come = _differing(old, new)
            origin = next((new.comments[k] for k in come if k in new.comments), "")
            bare_old, bare_new = replace(old, comments={}), replace(new, comments={})
            yield Change(
                where,
                tuple(element(bare_old, k) for k in gone),
                tuple(element(bare_new, k) for k in come),
                origin,
            )


_NOTHING = NamedSet("", ())


def _set_text(one: NamedSet | None) -> tuple[str, ...]:
    if one is None:
        return ()
    bare = replace(one, comments={})
    return (*one.spec, *(element(bare, k) for k in one.elements))


def _chain_changes(words: str, was: Mapping[str, Chain], will: Mapping[str, Chain]) -> Iterator[Change]:
    for name in sorted({*was, *will}):
        old, new = was.get(name), will.get(name)
        if old == new:
            continue
        before, after = _chain_text(old), _chain_text(new)
        kept = {*before} & {*after}
        gone = tuple(r for r in before if r not in kept)
        come = tuple(r for r in after if r not in kept)
        if not gone and not come:
            gone, come = before, after
        origin = next((r.comment for r in (new.rules if new else ()) if r.comment and r.text in come), "")
        yield Change(f"chain {words} {name}", gone, come, origin)


def _chain_text(one: Chain | None) -> tuple[str, ...]:
    if one is None:
        return ()
    lines = ((one.hook,) if one.hook else ()) + tuple(r.text for r in one.rules)
    return lines or ("no rules",)
