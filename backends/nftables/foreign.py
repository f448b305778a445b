"""Other software's nftables rules that have a say in our traffic.

Knows: what a listing shows of base chains, and how other proxies name theirs. Must not change anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from k8snetc.backends.common.xtables.foreign import PROXIES, owner
from k8snetc.backends.nftables.model import TABLE

_HOOK = re.compile(r"type (\w+) hook (\w+) (?:device \S+ )?priority ([^;]+); policy (\w+);")
_NAMES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_OURS = {"prerouting": -100, "output": -100, "postrouting": 100}
_TRANSLATES = re.compile(r"\b(dnat|snat|masquerade|redirect|jump|goto|vmap)\b")


def warnings(listing: str) -> tuple[str, ...]:
    """What stands in the way, in the listing's order."""
    return tuple(dict.fromkeys(_warnings(listing)))


def _warnings(listing: str) -> Iterator[str]:
    table, chain, hook = "", "", None
    for line in listing.splitlines():
        words = line.split()
        if line.startswith("table "):
            table, chain, hook = " ".join(words[1:-1]), "", None
            if words[2] == "kube-proxy":
                yield (
                    f"kube-proxy's nftables rules are on this node (table {table}); two proxies contend for the same "
                    "services: stop it and remove its table"
                )
        elif table.endswith(f" {TABLE}"):
            continue
        elif line.startswith("\tchain "):
            chain, hook = words[1], None
            if owner(chain) in PROXIES:
                yield (
                    f"{owner(chain)} has rules in table {table}; two proxies on one node contend for the same "
                    "services: stop it and remove its rules"
                )
        elif (found := _HOOK.search(line)) is not None:
            kind, where, priority, policy = found.groups()
            hook = (kind, where, _number(priority))
            if kind == "filter" and where == "forward" and policy == "drop":
                yield (
                    f"table {table} chain {chain} drops what it doesn't accept (policy drop); our rules can't overrule "
                    "that: let it accept packets of `ct status dnat` and of the pods' networks"
                )
        elif hook is not None and chain and line.startswith("\t\t"):
            kind, where, number = hook
            if kind == "nat" and number < _OURS.get(where, -1000) and _TRANSLATES.search(line):
                yield (
                    f"table {table} chain {chain} translates at priority {number}, before our rules; what it "
                    "translates never comes to a service"
                )
                hook = None


def _number(priority: str) -> int:
    """`-100`, `dstnat`, `dstnat + 10`."""
    words = priority.split()
    if re.fullmatch(r"-?\d+", words[0]):
        return int(words[0])
    base = _NAMES.get(words[0], 0)
    if len(words) == 3 and words[2].isdigit():
        return base + int(words[2]) * (1 if words[1] == "+" else -1)
    return base
