"""Where our rules stand among those of others, as far as policy depends on it.

Knows: what a rule before ours may do with a packet, and which of our hooks lead to policy. Must not know: the
kernel, who others are.

Policy drops, and only what comes to it. In the chain of the filter table that leads there, a rule of somebody else
that comes before ours and lets a packet out of the chain (accepts it, leaves the chain for its default) voids policy
and what it has cut. So there, and only there, our hooks have to come before all such rules: their place is compared
and repaired like the rules themselves. Rules that drop, count, mark or log may come before them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from k8snetc.backends.common.xtables.model import PREFIX
from k8snetc.backends.common.xtables.policy import CUT
from k8snetc.backends.common.xtables.state import Rules, State, Table, TableKey, led_to

FILTER = "filter"
GOING_ON = frozenset(
    {
        "ACCOUNT",
        "AUDIT",
        "CLASSIFY",
        "CONNMARK",
        "CT",
        "LOG",
        "MARK",
        "NFLOG",
        "SET",
        "TCPMSS",
        "TRACE",
        "ULOG",
    }
)
"""Targets after which a packet meets the next rule."""

_CLOSING = GOING_ON | {"DROP", "REJECT"}
_CUT = CUT.strip()
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_SHOWN = 2


def jump_of(rule: str) -> tuple[str, str]:
    """How a rule leads on (`-j`, or `-g`, which never returns) and to which target, as iptables-save prints it.

    Both are "" where it does not. Words in quotes are no options.
    """
    words = (_QUOTED.sub('""', rule) if '"' in rule else rule).split(" ")
    for at in range(len(words) - 2, -1, -1):
        if words[at] in ("-j", "-g"):
            return words[at], words[at + 1]
    return "", ""


def judging(table: Table) -> frozenset[str]:
    """The chains of others in which a hook of ours leads to policy: to the rule that drops what was cut."""
    return frozenset(base for base, rules in table.hooks.items() if _leads_to_policy(table, rules))


def _leads_to_policy(table: Table, hooks: Rules) -> bool:
    # Nearest chains first, for the rule is in one of them; the list grows on the way.
    waiting = list(map(led_to, hooks))
    seen = set(waiting)
    for name in waiting:
        rules = table.chains.get(name, ())
        if any(r.endswith(_CUT) for r in rules):
            return True
        new = {led_to(r) for r in rules} - seen
        waiting += new
        seen |= new
    return False


def ahead(text: str, bases: Iterable[str]) -> dict[str, Rules]:
    """By chain of `bases`, in what iptables-save prints: the rules before our (last) hook that let packets past it."""
    chains = _others(text)
    found: dict[str, Rules] = {}
    for base in bases:
        rules = chains.get(base, [])
        hooks = [at for at, rule in enumerate(rules) if led_to(rule)]
        before = rules[: hooks[-1]] if hooks else []
        opening = tuple(r for r in before if not led_to(r) and _opens(r, chains))
        if opening:
            found[base] = opening
    return found


def _others(text: str) -> dict[str, list[str]]:
    """The rules of others' chains in the filter table, by chain."""
    _, _, rest = f"\n{text}".partition(f"\n*{FILTER}\n")
    section, _, _ = rest.partition("\nCOMMIT")
    chains: dict[str, list[str]] = {}
    own = f"-A {PREFIX}"
    for line in section.splitlines():
        if line.startswith(":"):
            chains.setdefault(line[1:].partition(" ")[0], [])
        elif line.startswith("-A ") and not line.startswith(own):
            chain, _, rule = line[3:].partition(" ")
            chains.setdefault(chain, []).append(rule)
    return chains


def _opens(rule: str, chains: Mapping[str, list[str]]) -> bool:
    """Whether a packet may leave the built-in chain by this rule of it otherwise than dropped.

    What isn't known opens. Whoever goes (`-g`) from a built-in chain, or returns in it, meets its default; one level
    below, both lead back to the rule behind the jump.
    """
    how, first = jump_of(rule)
    if how == "-g" or first == "RETURN":
        return True
    waiting = [first]
    seen = set(waiting)
    for target in waiting:  # which grows
        if target in chains:
            new = {jump_of(r)[1] for r in chains[target]} - seen - {"RETURN"}
            waiting += sorted(new)
            seen |= new
        elif target and target not in _CLOSING:
            return True
    return False


def behind(live: State, goal: State) -> frozenset[tuple[TableKey, str]]:
    """The hooks that have to be put first: those behind rules that let packets past policy, and those by which
    policy is reached for the first time, for until now their place was of no importance."""
    found: set[tuple[TableKey, str]] = set()
    for key, table in goal.tables.items():
        if key[1] == FILTER:
            known = judging(live.table(key))
            for base in judging(table):
                place = (key[0], base)
                if base not in known or (place in live.ahead and place not in goal.ahead):
                    found.add((key, base))
    return frozenset(found)


def misplaced(live: State, goal: State) -> Iterator[str]:
    """Where the place of our hooks differs, in words: one text for each chain, in a stable order."""
    for place in sorted({*live.ahead, *goal.ahead}):
        family, base = place
        was, will = live.ahead.get(place, ()), goal.ahead.get(place, ())
        if was != will and base in judging(goal.table((family, FILTER))):
            yield f"{FILTER} IPv{family} {base}: {_words(was or will)}"


def _words(rules: Rules) -> str:
    named = ", ".join(f"`{r}`" for r in rules[:_SHOWN])
    more = f" and {len(rules) - _SHOWN} more" if len(rules) > _SHOWN else ""
    come, they = ("come", "they let") if len(rules) > 1 else ("comes", "it lets")
    return (
        f"{named}{more} {come} before our rules, which have to be first: "
        f"network policy never judges what {they} past"
    )
