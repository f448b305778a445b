"""The model of nftables: tables of this tool's own, their chains, rules, sets and maps.

Knows: what a table holds, in nftables' terms. Must not know: the IR, services, policy, or how text is written.

Rules and elements are kept as the text that `nft list` prints with numbers for nothing but marks (nft 1.0.6), so
that what is written and what is read back compare as text. Comments are kept apart: they tell a person where
something comes from and are no part of what the kernel does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from k8snetc.ir.types import Family

TABLE = "k8snetc"
"""The name of our table, in each family."""

FAMILY_WORDS = {Family.IPV4: "ip", Family.IPV6: "ip6"}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, without its comment in `text`."""

    text: str
    comment: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain. `hook` is the line that makes it a base chain (`type nat hook ...; policy accept;`), else ""."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: str = ""


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A set or map. `spec` are the lines that declare it (`type ...`, `flags ...`).

    `elements` maps each key to its value, "" in a set. Those of a `dynamic` set are the kernel's to fill: they
    are never listed or compared. `comments` has some elements' comments, by key.
    """

    name: str
    spec: tuple[str, ...]
    elements: Mapping[str, str] = field(default_factory=dict)
    is_map: bool = False
    dynamic: bool = False
    comments: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def word(self) -> str:
        """nft's word for it."""
        return "map" if self.is_map else "set"


@dataclass(frozen=True, slots=True)
class Table:
    """All that is ours in one family."""

    family: Family
    sets: tuple[NamedSet, ...] = ()
    chains: tuple[Chain, ...] = ()

    @property
    def words(self) -> str:
        """How nft names it: `ip k8snetc`."""
        return f"{FAMILY_WORDS[self.family]} {TABLE}"

    def bare(self) -> Table:
        """Equal to this, and printed the same as all that are: without comments, elements sorted."""
        return Table(
            self.family,
            tuple(replace(s, comments={}, elements=dict(sorted(s.elements.items()))) for s in self.sets),
            tuple(replace(c, rules=tuple(Rule(r.text) for r in c.rules)) for c in self.chains),
        )


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The tables by family (at most one each), and kernel settings that the rules need, by name."""

    tables: tuple[Table, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)

    def table(self, family: Family) -> Table | None:
        """The table of a family."""
        return next((t for t in self.tables if t.family is family), None)
