"""A table while it is being made. Local to one lowering.

Knows: how sets and chains are collected. Must not know: what they are for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from k8snetc.backends.nftables import words
from k8snetc.backends.nftables.model import Chain, NamedSet, Rule, Table
from k8snetc.ir.types import Family, Origin, Prefix


class Elements:
    """The elements of a set or map that is being made."""

    def __init__(self, name: str, spec: Sequence[str], *, is_map: bool) -> None:
        self.name = name
        self.spec = tuple(spec)
        self.is_map = is_map
        self.elements: dict[str, str] = {}
        self.comments: dict[str, str] = {}

    def add(self, key: str, value: str = "", comment: str = "") -> None:
        """Add one element; the same key again must mean the same."""
        known = self.elements.setdefault(key, value)
        if known != value:
            raise AssertionError(f"{self.name}: {key} is both {known} and {value}")
        if comment:
            self.comments.setdefault(key, comment)

    def add_all(self, new: Mapping[str, str]) -> None:
        """Add many elements without comments."""
        if self.elements.keys().isdisjoint(new):
            self.elements.update(new)
            return
        for key, value in new.items():
            self.add(key, value)


class Builder:
    """Collects the sets and chains of one family's table."""

    def __init__(self, family: Family, *, comments: bool) -> None:
        self.family = family
        self.comments = comments
        self._elements: dict[str, Elements] = {}
        self._dynamic: dict[str, NamedSet] = {}
        self._chains: dict[str, Chain] = {}

    def named(self, name: str, *spec: str, is_map: bool = False) -> Elements:
        """The set or map of that name, made when first asked for."""
        if name not in self._elements:
            self._elements[name] = Elements(name, spec, is_map=is_map)
        return self._elements[name]

    def memory(self, name: str, *spec: str) -> str:
        """A set that rules fill. Returns its name."""
        self._dynamic[name] = NamedSet(name, spec, dynamic=True)
        return name

    def prefixes(self, name: str, prefixes: Iterable[Prefix], origin: Origin | None = None) -> str:
        """A set of disjoint prefixes. Returns its name."""
        one = self.named(name, f"type {words.ADDRESS_TYPE[self.family]}", "flags interval")
        for at, p in enumerate(sorted(prefixes)):
            note = self.note("", origin) if at == 0 else ""
            one.add(words.prefix_text(self.family, p), comment=note)
        return name

    def note(self, label: str, *origins: Origin | None) -> str:
        """A comment, "" where comments are off."""
        return words.origin_comment(label, origins) if self.comments else ""

    def chain(self, name: str, rules: Iterable[Rule | str], hook: str = "") -> str:
        """Add a chain; under a name that is taken, it must be the same. Returns the name."""
        made = Chain(name, tuple(Rule(r) if isinstance(r, str) else r for r in rules), hook)
        known = self._chains.setdefault(name, made)
        if known != made:
            raise AssertionError(f"two chains {name}")
        return name

    def has_chain(self, name: str) -> bool:
        """Whether there is such a chain by now."""
        return name in self._chains

    def table(self) -> Table | None:
        """What was collected, sorted by name; None if no packet would come to it."""
        if not any(c.hook for c in self._chains.values()):
            return None
        sets = [
            NamedSet(e.name, e.spec, e.elements, e.is_map, comments=e.comments)
            for e in self._elements.values()
        ]
        return in_order(Table(self.family, (*sets, *self._dynamic.values()), tuple(self._chains.values())))


def in_order(table: Table) -> Table:
    """The same table, sets and chains by name, base chains last: the order in which we write them."""
    return Table(
        table.family,
        tuple(sorted(table.sets, key=lambda s: _natural(s.name))),
        tuple(sorted(table.chains, key=lambda c: (bool(c.hook), _natural(c.name)))),
    )


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """`balance-9` comes before `balance-10`."""
    return tuple((int(p), "") if p.isdigit() and len(p) < 9 else (-1, p) for p in name.split("-"))
