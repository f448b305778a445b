"""Dispatch trees: a long line of alternatives, each for a block of numbers, cut into short ones.

Knows: prefixes of addresses or ports and how they branch. Must not know: chains, rules, or what is dispatched.

A leaf holds at most `LEAF` entries (more only where they have the very same block). Where it ends depends
on the entries in its block alone, so that one entry more or less changes one leaf, or splits or merges one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

LEAF = 16
LEVELS = 3
"""Binary branchings that one branch node takes at once: it has up to 2^LEVELS children."""


class Entry(NamedTuple, Generic[T]):
    """Something for the block of numbers whose first `length` bits are those of `value`."""

    value: int
    length: int
    item: T


@dataclass(frozen=True, slots=True)
class Leaf(Generic[T]):
    """Entries in order; all lie within the block."""

    value: int
    length: int
    entries: tuple[Entry[T], ...]


@dataclass(frozen=True, slots=True)
class Branch(Generic[T]):
    """Children in order; their blocks are disjoint and lie within the block."""

    value: int
    length: int
    children: tuple[Node[T], ...]


Node = Leaf[T] | Branch[T]


def build(entries: Sequence[Entry[T]], bits: int, *, leaf: int = LEAF, levels: int = LEVELS) -> Node[T]:
    """The tree over entries, which are sorted by value and whose blocks are equal or disjoint.

    `bits` is the length of the numbers. At least one entry.
    """
    return _Builder(entries, bits, leaf, levels).node(0, len(entries), levels)


class _Builder(Generic[T]):
    def __init__(self, entries: Sequence[Entry[T]], bits: int, leaf: int, levels: int) -> None:
        self._entries = entries
        self._values = [e.value for e in entries]
        self._bits = bits
        self._leaf = leaf
        self._levels = levels

    def node(self, low: int, high: int, levels: int) -> Node[T]:
        first, last = self._values[low], self._values[high - 1]
        if first == last:
            return Leaf(first, self._entries[low].length, tuple(self._entries[low:high]))
        length = self._bits - (first ^ last).bit_length()
        value = first >> (self._bits - length) << (self._bits - length)
        if high - low <= self._leaf:
            return Leaf(value, length, tuple(self._entries[low:high]))
        children: list[Node[T]] = []
        self._split(low, high, levels, children)
        return Branch(value, length, tuple(children))

    def _split(self, low: int, high: int, levels: int, children: list[Node[T]]) -> None:
        """Append the nodes that are `levels` branchings below these entries."""
        first, last = self._values[low], self._values[high - 1]
        if levels == 0 or first == last or high - low <= self._leaf:
            children.append(self.node(low, high, self._levels))
            return
        bit = (first ^ last).bit_length() - 1
        middle = bisect_left(self._values, (last >> bit) << bit, low, high)
        self._split(low, middle, levels - 1, children)
        self._split(middle, high, levels - 1, children)


def entries_of(node: Node[T]) -> tuple[Entry[T], ...]:
    """All entries below a node, in order."""
    match node:
        case Leaf(entries=entries):
            return entries
        case Branch(children=children):
            return tuple(e for c in children for e in entries_of(c))
