"""Foreign rules that see our traffic before we do.

Knows: how other software names its chains, and where it puts its rules. Must not change anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from k8snetc.backends.common.foreign_nft import warnings as of_listing
from k8snetc.backends.common.owners import PROXIES, owner
from k8snetc.backends.common.run import CommandError, run
from k8snetc.backends.common.xtables import place
from k8snetc.backends.common.xtables.kernel import Tools
from k8snetc.backends.common.xtables.model import PREFIX
from k8snetc.backends.common.xtables.state import Table, parse_tables
from k8snetc.ir.types import Family

_TABLES = frozenset({"raw", "mangle", "nat", "filter"})
_NFT_TABLES = _TABLES | {"security"}


def warnings(tools: Tools) -> tuple[str, ...]:
    """Each rule before ours that may decide about our traffic, and other proxies on this node. Stable order."""
    found: dict[str, None] = {}
    for family in Family:
        found |= dict.fromkeys(ahead(family, tools.save(family)))
        found |= dict.fromkeys(_other_variant(tools, family))
    found |= dict.fromkeys(_nft_tables())
    return tuple(found)


def ahead(family: Family, text: str) -> Iterator[str]:
    """What stands before our hooks in the built-in chains, in the words of iptables-save.

    What lets packets past policy is left out: that is no warning but makes the node differ (see `place`).
    """
    judged = place.judging(parse_tables(family, text).get((family, place.FILTER), Table()))
    differing = place.ahead(text, judged)
    own = f"-A {PREFIX}"
    table = ""
    before: dict[str, list[str]] = {}
    hooked: set[str] = set()
    for line in text.splitlines():
        if line.startswith("*"):
            table, before, hooked = line[1:], {}, set()
        elif line.startswith("-A ") and table in _TABLES and not line.startswith(own):
            chain, _, rule = line[3:].partition(" ")
            target = place.jump_of(rule)[1]
            if target.startswith(PREFIX):
                for other in before.pop(chain, ()) if chain not in hooked else ():
                    if table == place.FILTER and other in differing.get(chain, ()):
                        continue
                    name = place.jump_of(other)[1]
                    who = f"{owner(name)}'s {name}" if owner(name) else f"`{other}`"
                    yield (
                        f"{table} IPv{family} {chain}: {who} comes before our rules and may decide first; "
                        "remove it, or apply again after our rules were removed, which puts ours first"
                    )
                hooked.add(chain)
            elif target and target not in place.GOING_ON:
                before.setdefault(chain, []).append(rule)


def _other_variant(tools: Tools, family: Family) -> Iterator[str]:
    """Proxies in the tables of the variant that we don't use: the kernel runs both, in the order of their making."""
    name = "iptables" if family is Family.IPV4 else "ip6tables"
    for variant in ("legacy", "nft"):
        try:
            text = run([f"{name}-{variant}-save"])
        except CommandError:
            continue
        owners = _owners(text)
        if f":{PREFIX}" in text and tools.variant not in ("auto", variant):
            yield (
                f"iptables-{variant} holds rules of ours for IPv{family} too; "
                f"remove them with `k8snetc remove --backend iptables --iptables {variant}`"
            )
        yield from _proxies(owners, variant, family)


def _proxies(owners: set[str], variant: str, family: Family) -> Iterator[str]:
    for who in sorted(owners & PROXIES):
        yield (
            f"{who} has rules in iptables-{variant} for IPv{family}; two proxies on one node contend for the same "
            "services: stop it and remove its rules"
        )


def _owners(text: str) -> set[str]:
    return {owner(line[1:].split(" ")[0]) for line in text.splitlines() if line.startswith(":")}


def legacy_proxies() -> tuple[str, ...]:
    """Proxies in the legacy tables, which a listing of nf_tables doesn't show; none where there are no such tools."""
    found: list[str] = []
    for family, name in ((Family.IPV4, "iptables"), (Family.IPV6, "ip6tables")):
        try:
            found += _proxies(_owners(run([f"{name}-legacy-save"])), "legacy", family)
        except CommandError:
            continue
    return tuple(found)


def _nft_tables() -> Iterator[str]:
    """What tables of nft do before our rules; those that iptables-nft keeps are looked at as iptables shows them."""
    try:
        for line in sorted(run(["nft", "list", "tables"]).splitlines()):
            _, family, name = line.split()
            if not (family in ("ip", "ip6") and name in _NFT_TABLES):
                yield from of_listing(run(["nft", "-t", "list", "table", family, name]), lambda _: False)
    except CommandError:
        return
