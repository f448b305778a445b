"""Arithmetic on addresses: prefixes, minimal covers, membership. Pure integers, both families.

Knows: how CIDR blocks split and merge. Must not know: what they are for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from k8snetc.ir.types import Address, Family, Network, Prefix

Range = tuple[int, int]  # first and last address, both included


def family_of(address: Address | Network) -> Family:
    """The family of an address or network."""
    return Family.IPV4 if address.version == 4 else Family.IPV6


def address_of(family: Family, value: int) -> Address:
    """The address whose integer value is `value`."""
    return IPv4Address(value) if family is Family.IPV4 else IPv6Address(value)


def prefix_of(item: Address | Network) -> Prefix:
    """An address as a host prefix, or a network as it is."""
    if isinstance(item, IPv4Network | IPv6Network):
        return Prefix(int(item.network_address), item.prefixlen)
    return Prefix(int(item), item.max_prefixlen)


def network_of(family: Family, prefix: Prefix) -> Network:
    """The prefix as a network of the standard library."""
    if family is Family.IPV4:
        return IPv4Network((prefix.value, prefix.length))
    return IPv6Network((prefix.value, prefix.length))


def prefix_text(family: Family, prefix: Prefix) -> str:
    """Canonical text: `10.0.0.0/8`, and a bare address where the prefix is one address."""
    text = str(address_of(family, prefix.value))
    return text if prefix.length == family.bits else f"{text}/{prefix.length}"


def range_of(family: Family, prefix: Prefix) -> Range:
    """First and last address of a prefix."""
    return prefix.value, prefix.value | ((1 << (family.bits - prefix.length)) - 1)


def merge(ranges: Iterable[Range]) -> list[Range]:
    """Sorted, disjoint, non-adjacent ranges that hold the same addresses."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            if last > merged[-1][1]:
                merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return merged


def subtract(ranges: Iterable[Range], holes: Iterable[Range]) -> list[Range]:
    """`ranges` without the addresses of `holes`; both in any order. Sorted and disjoint."""
    out: list[Range] = []
    cuts = merge(holes)
    at = 0
    for first, last in merge(ranges):
        while at < len(cuts) and cuts[at][1] < first:
            at += 1
        probe = at
        start = first
        while probe < len(cuts) and cuts[probe][0] <= last:
            if cuts[probe][0] > start:
                out.append((start, cuts[probe][0] - 1))
            start = max(start, cuts[probe][1] + 1)
            probe += 1
        if start <= last:
            out.append((start, last))
    return out


def cover(family: Family, ranges: Iterable[Range]) -> tuple[Prefix, ...]:
    """The fewest prefixes that hold exactly the addresses of `ranges`, sorted."""
    bits = family.bits
    out: list[Prefix] = []
    for first, last in merge(ranges):
        at = first
        while at <= last:
            size = min((at & -at).bit_length() - 1 if at else bits, (last - at + 1).bit_length() - 1)
            out.append(Prefix(at, bits - size))
            at += 1 << size
    return tuple(out)


def cover_prefixes(family: Family, prefixes: Iterable[Prefix]) -> tuple[Prefix, ...]:
    """The fewest prefixes that hold the same addresses as `prefixes`, sorted."""
    return cover(family, (range_of(family, p) for p in prefixes))


class Members:
    """Membership of addresses in sorted, disjoint prefixes: a binary search, O(log n)."""

    __slots__ = ("_first", "_last")

    def __init__(self, family: Family, prefixes: Sequence[Prefix]) -> None:
        ranges = merge(range_of(family, p) for p in prefixes)
        self._first = [r[0] for r in ranges]
        self._last = [r[1] for r in ranges]

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int):
            return False
        at = bisect_right(self._first, value) - 1
        return at >= 0 and value <= self._last[at]
