"""Addresses, ports and endpoints as people say them: short, and exact where short is enough.

Knows: English and limits of length. Must not know: programs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from k8snetc.apply.connectivity import Names
from k8snetc.apply.partition import LAST_PORT, whole
from k8snetc.ir.addresses import Range, address_of, cover, prefix_text, subtract
from k8snetc.ir.types import Family, PortRange, Protocol

SHOWN = 4
"""How many names or addresses are spelled out before `and N more`."""


def listed(words: Sequence[str], what: str = "") -> str:
    """`a, b, c and 7 more things`."""
    if len(words) <= SHOWN:
        return ", ".join(words)
    return f"{', '.join(words[: SHOWN - 1])} and {len(words) - SHOWN + 1:,} more{f' {what}' if what else ''}"


@dataclass(frozen=True, slots=True)
class Group:
    """A set of addresses as people say it: `named` pods and `others` (CIDR blocks), or everyone but those."""

    everyone: bool = False
    named: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def text(self, family: Family | None) -> str:
        """Pods by name, `everyone`, `everyone except ...`, or CIDR blocks. `family` None: of both families alike."""
        words = listed([*self.named, *self.others], "pods" if self.named and not self.others else "")
        if not self.everyone:
            return words
        return f"everyone except {words}" if words else f"everyone{f' (IPv{family})' if family else ''}"


def people(family: Family, ranges: Iterable[Range], names: Names) -> Group:
    """Who these addresses are, in as few words as possible."""
    held = sorted(ranges)
    missing = subtract([whole(family)], held)
    if not missing:
        return Group(everyone=True)
    if len(missing) < len(held) or (len(missing) == len(held) and _size(missing) < _size(held)):
        return _places(family, missing, names, everyone=True)
    return _places(family, held, names, everyone=False)


def _size(ranges: Iterable[Range]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def _places(family: Family, ranges: Sequence[Range], names: Names, *, everyone: bool) -> Group:
    prefixes = cover(family, ranges)
    named: list[str] = []
    others: list[str] = []
    for prefix in prefixes:
        hosts = 1 << (family.bits - prefix.length)
        found = (
            [names.get(address_of(family, prefix.value + i)) for i in range(hosts)] if hosts <= 256 else []
        )
        if found and all(found):
            named += [n for n in found if n]
        else:
            others.append(prefix_text(family, prefix))
    return Group(everyone, tuple(dict.fromkeys(named)), tuple(others))


def pods(family: Family, addresses: Iterable[int], names: Names) -> tuple[str, ...]:
    """Pods by name where known, else by address."""
    words = (names.get(address_of(family, a)) or str(address_of(family, a)) for a in sorted(addresses))
    return tuple(dict.fromkeys(words))


def many_pods(words: Sequence[str]) -> str:
    """What `pods` found, all of them or how many of which namespace."""
    if len(words) > SHOWN:
        spaces = {w.partition("/")[0] for w in words}
        if len(spaces) == 1 and all("/" in w for w in words):
            return f"{len(words):,} pods of {spaces.pop()} ({', '.join(words[:2])}, ...)"
    return listed(words, "pods")


def ports(ranges: Sequence[PortRange]) -> str:
    """`80, 443, 8000-8999`, "" for all ports."""
    joined: list[PortRange] = []
    for first, last in sorted(ranges):
        if joined and joined[-1].last + 1 >= first:
            joined[-1] = PortRange(joined[-1].first, max(last, joined[-1].last))
        else:
            joined.append(PortRange(first, last))
    if joined == [PortRange(0, LAST_PORT)]:
        return ""
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in joined)


def protocol(one: Protocol | None) -> str:
    """`TCP`; what no Service can name is `other protocols`."""
    return one.value.upper() if one is not None else "other protocols"
