"""Whether two rules say the same in different words.

Knows: iptables' spelling: the order of matches, defaults, numbers, addresses, quotes. Must not know: what rules
are for. Used only where texts differ, because a grammar over all rules of a large node would take seconds; rules that
differ in nothing but their comment (the manifests moved, or a line was added to them) are told before that.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from importlib.resources import files
from ipaddress import ip_network
from typing import TYPE_CHECKING

from k8snetc.backends.common.xtables.state import Rules, State, Table

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

Option = tuple[str, bool, tuple[str, ...]]

_LONG = {
    "--source": "-s",
    "--src": "-s",
    "--destination": "-d",
    "--dst": "-d",
    "--protocol": "-p",
    "--proto": "-p",
    "--in-interface": "-i",
    "--out-interface": "-o",
    "--jump": "-j",
    "--goto": "-g",
    "--match": "-m",
    "--destination-port": "--dport",
    "--source-port": "--sport",
    "--destination-ports": "--dports",
    "--source-ports": "--sports",
    "--set-mark": "--set-xmark",
}
_ADDRESSES = frozenset({"-s", "-d"})
_MARKS = frozenset({"--mark", "--set-xmark", "--nfmask", "--ctmask"})
_PROBABILITY_STEPS = 1 << 31
"""The kernel keeps a probability as an integer of 31 bits (xt_statistic), so that is what equality means."""
_COMMENT = re.compile(r' -m comment --comment (?:"(?:[^"\\]|\\.)*"|[^"\s]+)')
_BASIC = frozenset({"-s", "-d", "-p", "-i", "-o", "-f"})


@cache
def _grammar() -> Lark:
    from lark import Lark

    text = files("k8snetc.backends.common.xtables").joinpath("rules.lark").read_text("utf-8")
    return Lark(text, start="rule", parser="lalr")


def canonical(rule: str) -> tuple[object, ...]:
    """What the rule says and its comment, comparable. Text that is no rule is only equal to itself."""
    from lark.exceptions import LarkError

    try:
        tree = _grammar().parse(rule)
    except LarkError:
        return (rule,)
    options = [_option(o) for o in tree.find_data("option")]
    # The first part of a rule may come in any order; matches may not, some of them count or remember.
    basic = sorted(o for o in options if o[0] in _BASIC)
    return (*basic, *(o for o in options if o[0] not in _BASIC))


def _option(tree: Tree[Token]) -> Option:
    negated = False
    name = ""
    words: list[str] = []
    for child in tree.children:
        if not isinstance(child, str):  # a token, which lark derives from str, is no part of ours
            token = str(child.children[0]) if child.children else ""
            match child.data:
                case "negation":
                    negated = True
                case "name":
                    name = _LONG.get(token, token)
                case "quoted":
                    words.append(_unquoted(token))
                case _:
                    words.append(token)
    return name, negated, tuple(_word(name, w) for w in words)


def _unquoted(token: str) -> str:
    out: list[str] = []
    escaped = False
    for c in token[1:-1]:
        if c == "\\" and not escaped:
            escaped = True
            continue
        out.append(c)
        escaped = False
    return "".join(out)


def _word(name: str, word: str) -> str:
    try:
        if name in _ADDRESSES:
            return str(ip_network(word, strict=False))
        if name in _MARKS:
            value, _, mask = word.partition("/")
            return f"{int(value, 0):#x}/{int(mask or '0xffffffff', 0):#x}"
        if name == "--probability":
            return str(round(float(word) * _PROBABILITY_STEPS))
    except ValueError:
        pass
    return word


def aligned(live: State, goal: State) -> State:
    """`live`, with each rule that does the same as its counterpart in `goal` in the words of `goal`.

    Comments do nothing, so a rule that only has another one is no change: it gets its new comment with the next change
    of its chain.
    """
    tables = {}
    for key, table in live.tables.items():
        wanted = goal.table(key)
        chains = {n: _aligned(rules, wanted.chains.get(n)) for n, rules in table.chains.items()}
        hooks = {n: _aligned(rules, wanted.hooks.get(n)) for n, rules in table.hooks.items()}
        tables[key] = Table(chains, hooks)
    return replace(live, tables=tables)


def _aligned(rules: Rules, wanted: Rules | None) -> Rules:
    if wanted is None or rules == wanted:
        return rules
    words = {uncommented(w): w for w in wanted}
    if len(rules) != len(wanted):
        return tuple(words.get(uncommented(r), r) for r in rules)
    pairs = zip(rules, wanted, strict=True)
    return tuple(w if _same(r, w) else words.get(uncommented(r), r) for r, w in pairs)


def _same(one: str, other: str) -> bool:
    if one == other:
        return True
    one, other = uncommented(one), uncommented(other)
    return one == other or canonical(one) == canonical(other)


def uncommented(rule: str) -> str:
    """The rule without comments: as they are written by us and printed by iptables-save."""
    return _COMMENT.sub("", f" {rule}")[1:] if "--comment" in rule else rule
