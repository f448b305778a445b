"""Whether two tables say the same in different words, asked of this node's own nft.

Knows: that versions of nft print rules differently from each other, and from how the model writes them. Must not know:
what rules are for, or the syntax of any rule.

The wanted table is loaded, without elements, in a network namespace of its own that lasts for a moment, and listed
there. Done only where a chain or set is on both sides under one name and its words differ.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import lru_cache

from k8snetc.backends.common.run import CommandError, run
from k8snetc.backends.nftables.emit import table_lines
from k8snetc.backends.nftables.model import Chain, NamedSet, Ruleset, Table
from k8snetc.backends.nftables.read import read_tables

_MODULE = "k8snetc.backends.nftables.spelling"


def aligned(live: Ruleset, goal: Ruleset) -> Ruleset:
    """`goal`, with those chains and sets in the words of `live` that say the same."""
    doubtful = [t for t in goal.tables if _doubtful(live.table(t.family), t)]
    if not doubtful:
        return goal
    try:
        printed = {t.family: t for t in respelled(doubtful)}
    except (CommandError, ValueError):
        return goal  # then they differ: at worst, more is replaced than has to be
    return replace(
        goal,
        tables=tuple(_aligned(live.table(t.family), t, printed.get(t.family)) for t in goal.tables),
    )


def respelled(tables: list[Table]) -> tuple[Table, ...]:
    """The tables, without elements, as this node's nft lists them. Raises `CommandError`, `ValueError`."""
    bare = [replace(t, sets=tuple(replace(s, elements={}, comments={}) for s in t.sets)) for t in tables]
    return _listed("".join(f"{line}\n" for t in bare for line in table_lines(t)))


@lru_cache(maxsize=4)
def _listed(text: str) -> tuple[Table, ...]:
    """What nft lists of that. A plan, its steps and the look afterwards ask for the same."""
    return tuple(read_tables(run(["unshare", "--net", "--", sys.executable, "-m", _MODULE], text)))


def _doubtful(live: Table | None, goal: Table) -> bool:
    if live is None:
        return False
    chains = {c.name: c for c in live.chains}
    specs = {s.name: s.spec for s in live.sets}
    return any(chains.get(c.name, c) != c for c in goal.chains) or any(
        specs.get(s.name, s.spec) != s.spec for s in goal.sets
    )


def _aligned(live: Table | None, goal: Table, printed: Table | None) -> Table:
    if live is None or printed is None:
        return goal
    chains = {c.name: c for c in live.chains}
    specs = {s.name: s.spec for s in live.sets}
    new_chains = {c.name: c for c in printed.chains}
    new_specs = {s.name: s.spec for s in printed.sets}

    def chain(one: Chain) -> Chain:
        there = chains.get(one.name)
        return there if there is not None and there == new_chains.get(one.name) else one

    def named(one: NamedSet) -> NamedSet:
        there = specs.get(one.name)
        return replace(one, spec=there) if there is not None and there == new_specs.get(one.name) else one

    return replace(goal, chains=tuple(map(chain, goal.chains)), sets=tuple(map(named, goal.sets)))


if __name__ == "__main__":
    from k8snetc.backends.nftables import library

    library.commit(sys.stdin.read())
    sys.stdout.write(library.listing())
