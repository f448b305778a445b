"""IP sets from address sets, named by their content, each written once however often it is used.

Knows: the limits of ipset's hash types. Must not know: what a set is for, iptables.
"""

from __future__ import annotations

from collections.abc import Iterable

from k8snetc.backends.common.xtables import names, text
from k8snetc.backends.common.xtables.model import IpSet
from k8snetc.ir.types import Family, Origin, Prefix

INLINE = 1
"""Up to so many prefixes are written into the rule instead of a set."""
_LEAST = 65536  # ipset's default maxelem
_MEMORY = 1 << 20  # memory is taken as clients come


class Sets:
    """Collects the sets of one program. Local to one lowering."""

    def __init__(self) -> None:
        self._made: dict[str, IpSet] = {}

    def add(self, family: Family, prefixes: Iterable[Prefix], origin: Origin | None = None) -> str:
        """The name of the set that holds these addresses (disjoint prefixes, in any order)."""
        wanted = sorted(_without_whole(family, prefixes))
        elements = tuple(_element(family, p) for p in wanted)
        kind = "hash:ip" if all(p.length == family.bits for p in wanted) else "hash:net"
        name = names.content("S", (f"{kind} {family.value}", *elements))
        if name not in self._made:
            room = max(_LEAST, 1 << len(elements).bit_length())
            self._made[name] = IpSet(name, kind, family, f"maxelem {room}", elements, origin=origin)
        return name

    def add_memory(self, family: Family, *identity: str) -> str:
        """The name of a set of clients that rules fill; its elements time out as the adding rule says.

        When it is full, new clients are not remembered, until others time out.
        """
        name = names.hashed("A", str(family.value), *identity)
        self._made[name] = IpSet(name, "hash:ip", family, f"maxelem {_MEMORY} timeout 0", dynamic=True)
        return name

    @property
    def all(self) -> tuple[IpSet, ...]:
        """Every set so far, sorted by name."""
        return tuple(self._made[n] for n in sorted(self._made))


def membership(
    sets: Sets, family: Family, prefixes: tuple[Prefix, ...], side: str, origin: Origin | None = None
) -> tuple[str, str] | None:
    """How a rule says "the `side` (`src`, `dst`) is in these prefixes": its address part and its match part.

    One of the two is "". None: no address is in, so no rule can match. Both "": every address is in.
    """
    if not prefixes:
        return None
    if len(prefixes) <= INLINE:
        if prefixes[0].length == 0:
            return "", ""
        return f" {'-s' if side == 'src' else '-d'} {text.cidr(family, prefixes[0])}", ""
    return "", f" -m set --match-set {sets.add(family, prefixes, origin)} {side}"


def _without_whole(family: Family, prefixes: Iterable[Prefix]) -> Iterable[Prefix]:
    for p in prefixes:
        if p.length == 0:  # hash:net has no /0
            yield Prefix(0, 1)
            yield Prefix(1 << (family.bits - 1), 1)
        else:
            yield p


def _element(family: Family, prefix: Prefix) -> str:
    shown = text.value_text(family, prefix.value)
    return shown if prefix.length == family.bits else f"{shown}/{prefix.length}"
