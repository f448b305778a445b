"""Split the address space and the port space into classes that a program can't tell apart.

Knows: ranges of integers. Must not know: what the sets mean. Exact: every address is in one class,
every port in one range.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k8snetc.ir.addresses import Range, merge, subtract
from k8snetc.ir.types import Family, PortRange

LAST_PORT = 65535


def whole(family: Family) -> Range:
    """All addresses of the family."""
    return 0, (1 << family.bits) - 1


def address_classes(family: Family, sets: Sequence[Iterable[Range]]) -> dict[int, list[Range]]:
    """The classes of addresses by the sets they are in: bit `i` of the key is set for members of `sets[i]`.

    A sweep over the ends of all ranges, O(n log n).
    """
    flips: dict[int, int] = {0: 0}
    for at, ranges in enumerate(sets):
        for first, last in merge(ranges):
            flips[first] = flips.get(first, 0) ^ (1 << at)
            flips[last + 1] = flips.get(last + 1, 0) ^ (1 << at)
    end = whole(family)[1]
    classes: dict[int, list[Range]] = {}
    mask = 0
    starts = sorted(p for p in flips if p <= end)
    for start, following in zip(starts, [*starts[1:], end + 1], strict=True):
        mask ^= flips[start]
        classes.setdefault(mask, []).append((start, following - 1))
    return classes


def port_classes(ranges: Iterable[PortRange]) -> list[PortRange]:
    """Consecutive ranges over all ports, cut wherever one of `ranges` begins or ends."""
    starts = {0}
    for first, last in ranges:
        starts |= {first, last + 1}
    cuts = sorted(s for s in starts if s <= LAST_PORT)
    return [PortRange(a, b - 1) for a, b in zip(cuts, [*cuts[1:], LAST_PORT + 1], strict=True)]


def representative(ranges: Sequence[Range], avoid: Iterable[int] = ()) -> int | None:
    """One address of the ranges that is none of `avoid`; None if there is no other."""
    unwanted = set(avoid)
    for first, last in ranges:
        for value in range(first, min(last, first + len(unwanted)) + 1):
            if value not in unwanted:
                return value
    return None


def without(ranges: Iterable[Range], addresses: Iterable[int]) -> list[Range]:
    """The ranges without single addresses."""
    return subtract(ranges, [(a, a) for a in addresses])
