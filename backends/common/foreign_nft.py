"""Other software's nf_tables rules that have a say in our traffic, or take it away before it comes to our rules.

Knows: what a listing of nft shows of chains, and how other proxies name theirs. Must not know: which tables are whose
(the caller leaves out its own). Must not change anything.

Every back end that rests on netfilter translates at priority -100 in prerouting and output, and judges in forward and
input. What other tables do before that is found by going through their base chains and the chains that these jump to.
A flow table takes packets away from forward altogether, wherever the rule that fills it stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from k8snetc.backends.common.owners import PROXIES, owner

_HOOK = re.compile(r"type (\w+) hook (\w+) (?:devices? .+? )?priority ([^;]+); policy (\w+);")
_NAMES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_OURS = {"prerouting": -100, "output": -100, "postrouting": 100}
_TRANSLATES = re.compile(r"\b(dnat|snat|masquerade|redirect|vmap)\b")
_DECIDES = re.compile(r"\b(drop|reject|notrack|queue|tproxy|synproxy|vmap)\b")
_OFFLOADS = re.compile(r"\bflow (?:add|offload)\b")
_REFUSES = re.compile(r"^(?!.*\bct state\b).*\b(drop|reject)\b")
_GOES = re.compile(r"\b(?:jump|goto) ([^\s,}]+)")


@dataclass(slots=True)
class _Chain:
    """`hook` is kind, place, priority and policy of a base chain."""

    name: str
    hook: tuple[str, str, int, str] | None = None
    rules: list[str] = field(default_factory=list)


def warnings(listing: str, ours: Callable[[str], bool], *, admits: bool = False) -> tuple[str, ...]:
    """What stands in the way, in the listing's order. `ours`: whether a table (`ip nat`) is to be left out.

    `admits`: our rules let health checks into the node, which other tables may drop all the same.
    """
    found: dict[str, None] = {}
    for table, chains in _tables(listing):
        if not ours(table):
            found |= dict.fromkeys(_table(table, chains))
            found |= dict.fromkeys(_shut(table, chains) if admits else ())
    return tuple(found)


def _tables(listing: str) -> list[tuple[str, dict[str, _Chain]]]:
    found: list[tuple[str, dict[str, _Chain]]] = []
    chains: dict[str, _Chain] = {}
    chain: _Chain | None = None
    for line in listing.splitlines():
        if line.startswith("table "):
            chains, chain = {}, None
            found.append((" ".join(line.split()[1:3]), chains))
        elif line.startswith("\tchain "):
            chain = _Chain(line.split()[1])
            chains[chain.name] = chain
        elif line.startswith("\t\t") and chain is not None:
            hook = _HOOK.search(line)
            if hook is not None:
                kind, where, priority, policy = hook.groups()
                chain.hook = kind, where, _number(priority), policy
            else:
                chain.rules.append(line.strip())
        elif line.startswith("\t"):
            chain = None
    return found


def _table(table: str, chains: Mapping[str, _Chain]) -> Iterator[str]:
    family, name = table.split()
    if name == "kube-proxy":
        yield (
            f"kube-proxy's nftables rules are on this node (table {table}); two proxies contend for the same "
            "services: stop it and remove its table"
        )
    for who in dict.fromkeys(owner(c) for c in chains):
        if who in PROXIES:
            yield (
                f"{who} has rules in table {table}; two proxies on one node contend for the same "
                "services: stop it and remove its rules"
            )
    if family == "bridge":
        return  # what is bridged is not routed, and comes to no service
    for chain in chains.values():
        if chain.hook is not None:
            yield from _base_chain(f"table {table} chain {chain.name}", chain, chain.hook, chains)


def _base_chain(
    place: str, chain: _Chain, hook: tuple[str, str, int, str], chains: Mapping[str, _Chain]
) -> Iterator[str]:
    kind, where, number, policy = hook
    early = number < _OURS.get(where, -1000) or where == "ingress"
    if kind == "filter" and where == "forward" and policy == "drop":
        yield (
            f"{place} drops what it doesn't accept (policy drop); our rules can't overrule "
            "that: let it accept packets of `ct status dnat` and of the pods' networks"
        )
    offloads = _first(chain, chains, _OFFLOADS) if where == "forward" else ""
    if offloads:
        yield (
            f"{place} offloads connections (`{offloads}`): their further packets pass by our rules, so that policy "
            "does not hold for them and can not cut them: keep pods' connections out of that flow table"
        )
    if kind == "nat" and early:
        rule = _first(chain, chains, _TRANSLATES)
        if rule:
            yield (
                f"{place} translates at priority {number}, before our rules (`{rule}`); what it "
                "translates never comes to a service"
            )
    elif kind != "nat" and early and where != "postrouting":
        rule = "policy drop" if policy == "drop" else _first(chain, chains, _DECIDES)
        if rule:
            yield (
                f"{place} decides at priority {number}, before our rules (`{rule}`); what it drops or leaves untracked "
                "never comes to a service: see that it doesn't mean service addresses or pods"
            )


def _shut(table: str, chains: Mapping[str, _Chain]) -> Iterator[str]:
    """Chains that drop what comes into the node."""
    for chain in chains.values():
        if chain.hook is None or chain.hook[:2] != ("filter", "input"):
            continue
        rule = "policy drop" if chain.hook[3] == "drop" else _first(chain, chains, _REFUSES)
        if rule:
            yield (
                f"table {table} chain {chain.name} may drop health checks (`{rule}`): our rules let them in past "
                "themselves alone; accept the ports of `healthCheckNodePort` there too"
            )


def _first(chain: _Chain, chains: Mapping[str, _Chain], wanted: re.Pattern[str]) -> str:
    """The first rule that does it, in the chain or in those that it jumps to; "" if none."""
    seen: set[str] = set()
    todo: Sequence[str] = [chain.name]
    while todo:
        name, *todo = todo
        if name in seen or name not in chains:
            continue
        seen.add(name)
        for rule in chains[name].rules:
            if wanted.search(rule.partition(" comment ")[0]):
                return rule
            todo = [*todo, *_GOES.findall(rule)]
    return ""


def _number(priority: str) -> int:
    """`-100`, `dstnat`, `dstnat + 10`."""
    words = priority.split()
    if re.fullmatch(r"-?\d+", words[0]):
        return int(words[0])
    base = _NAMES.get(words[0], 0)
    if len(words) == 3 and words[2].isdigit():
        return base + int(words[2]) * (1 if words[1] == "+" else -1)
    return base
