"""nft's text read back: our own tables out of a listing, or out of what `emit` wrote.

Knows: the line structure of `nft list ruleset` and of our own files. Must not know: the kernel, what rules are for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from k8snetc.backends.nftables.build import in_order
from k8snetc.backends.nftables.model import FAMILY_WORDS, TABLE, Chain, NamedSet, Rule, Table

_FAMILIES = {word: family for family, word in FAMILY_WORDS.items()}
_COMMENT = re.compile(r' comment "[^"]*"')
_PROTOCOL = re.compile(r"\b(meta l4proto )(6|17|132)\b")
_NAMES = {"6": "tcp", "17": "udp", "132": "sctp"}


def read_tables(text: str) -> Iterator[Table]:
    """Our tables in the text. Raises `ValueError` for lines that are no nft listing."""
    lines = iter(text.splitlines())
    for line in lines:
        words = line.split(" ")
        if words[0] == "table" and words[-1] == "{":
            body = _body(lines, line)
            if words[1] in _FAMILIES and words[2:-1] == [TABLE]:
                yield _table(words[1], body)


def _body(lines: Iterator[str], opening: str) -> list[str]:
    body: list[str] = []
    for line in lines:
        if line == "}":
            return body
        body.append(line)
    raise ValueError(f"{opening!r} is not closed")


def _table(family_word: str, body: list[str]) -> Table:
    sets: list[NamedSet] = []
    chains: list[Chain] = []
    lines = iter(body)
    for line in lines:
        words = line.split()
        if not words:
            continue
        if words[0] not in {"set", "map", "chain"} or words[-1] != "{":
            _block(
                lines, words[-1] == "{"
            )  # a counter, flowtable... that somebody put here: no rule of ours uses it
            continue
        block = _block(lines, True)
        if words[0] == "chain":
            chains.append(_chain(words[1], block))
        else:
            sets.append(_set(words[1], block, is_map=words[0] == "map"))
    return in_order(Table(_FAMILIES[family_word], tuple(sets), tuple(chains)))


def _block(lines: Iterator[str], is_open: bool) -> list[str]:
    block: list[str] = []
    if is_open:
        for line in lines:
            if line == "\t}":
                break
            block.append(line.strip())
    return block


def _chain(name: str, lines: list[str]) -> Chain:
    hook = ""
    if lines and lines[0].startswith("type "):
        hook, lines = lines[0], lines[1:]
    return Chain(name, tuple(Rule(plain(line)) for line in lines), hook)


def plain(rule: str) -> str:
    """A listed rule as the model has it: no comment, protocols by name."""
    if '"' in rule:
        rule = _COMMENT.sub("", rule)
    return _PROTOCOL.sub(lambda m: m[1] + _NAMES[m[2]], rule) if "l4proto" in rule else rule


def _set(name: str, lines: list[str], *, is_map: bool) -> NamedSet:
    spec: list[str] = []
    elements: dict[str, str] = {}
    rest = iter(lines)
    for line in rest:
        if line != "elements = {":
            spec.append(line)
            continue
        for listed in rest:
            if listed == "}":
                break
            shown = _COMMENT.sub("", listed) if '"' in listed else listed
            for one in shown.removesuffix(",").split(", "):
                key, _, value = one.partition(" : ")
                elements[key] = value
    dynamic = any(s.startswith("flags ") and "dynamic" in s for s in spec)
    return NamedSet(name, tuple(spec), elements, is_map, dynamic)
