"""Numbers that stand for names in tables, the same in every generation.

A table that outlives a generation (counters, affinity) has them in its keys. Must not know what the names are of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256


def hashed(name: str) -> int:
    """A number of 32 bits."""
    return int.from_bytes(sha256(name.encode()).digest()[:4], "big")


def numbers(names: Iterable[str], number: Callable[[str], int] = hashed) -> dict[str, int]:
    """A number above 0 for each name, all different. It is `number`'s, unless another name has that already."""
    out: dict[str, int] = {}
    taken = {0}
    for name in sorted(set(names)):
        again, one = 0, number(name)
        while one in taken:
            again += 1
            one = number(f"{name}\0{again}")
        taken.add(one)
        out[name] = one
    return out
