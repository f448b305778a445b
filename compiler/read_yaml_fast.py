"""Large YAML, as programs print it, read by rapidyaml: several times as fast as libyaml's events in Python.

Knows: which texts mean the same to rapidyaml and to Kubernetes. Must not know: what YAML means; that is `read_yaml`,
to which everything goes that is not known to be harmless. A property-based test compares the two.

rapidyaml gives JSON, in which `y`, `0777` and `1_000` are text; it repairs some broken YAML silently and keeps a key
that is there twice. So only those parts of a text (documents, or items of a List as kubectl prints it) go to it that
consist of harmless lines: plain keys; values that are words, decimal numbers, addresses or quoted ASCII; indentation
that can be read in one way only. And only if there are as many keys in the JSON as in the value that it makes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from k8snetc.compiler import read_yaml
from k8snetc.compiler.document import AtOnce, FieldPath, Flaw, JsonValue, Tree

if TYPE_CHECKING:
    from k8snetc.compiler.read_json_list import Items

WORTH: Final = 200_000  # characters of a text from which on this pays
CHUNK: Final = 2_000_000  # characters that are read at a time, so that memory does not grow with the file

# Words that one of the two takes for something else than text. Few words begin like them, which is seen first.
WORDS: Final = (
    "(?=[yYnNoOtTfFiI])(?:y|Y|yes|Yes|YES|n|N|no|No|NO|on|On|ON|off|Off|OFF|true|True|TRUE|false|False|FALSE|null|Null|NULL"
    "|(?i:nan|inf|infinity))"
)
# Atomic groups where possessive quantifiers would read better: Python 3.11.2 matches too much with those
# (python/cpython issue 106052), and that is Debian 12's Python.
_KEY = rf"(?!(?:{WORDS}):)(?>[A-Za-z_][A-Za-z0-9_./-]*)"
_PLAIN = r"(?:[A-Za-z0-9_./@%+=~-]|:(?=[!-~]))"
_VALUE = "|".join(
    (
        rf"(?!(?:{WORDS})\n)(?>[A-Za-z_/]{_PLAIN}*(?: {_PLAIN}+)*)",  # names, words, paths
        r"-?(?:0|[1-9][0-9]{0,17})",  # decimal numbers
        r"\{\}|\[\]|true|false|null",
        r"(?>[0-9]+(?:\.[0-9]+){2,})(?:[:/][0-9]+)?",  # IPv4 addresses, versions
        r"[0-9][0-9a-f]{0,3}(?::[0-9a-f]{0,4}){2,7}(?<!:)(?:/[0-9]{1,3})?",  # IPv6 addresses
        r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",  # UUIDs
        r"[0-9]{1,15}(?:m|Ki|Mi|Gi|Ti|s)",  # quantities, times
        r"'(?>[ !-&(-~]*)'",
        r'"(?>(?:[ !#-\[\]-~]|\\["\\nt])*)"',
    )
)
# A line with a value is followed by none that is indented more than its key: that would go on with the value.
_LITERAL = r"\|-?\n(?P<text>(?P=a)(?> {1,8}))[!-~][ -~]*\n(?>(?:(?P=text)[ -~]*\n)*)"
_ENTRY = rf"{_KEY}:(?: (?:{_VALUE})\n(?!(?P=a) )|\n| {_LITERAL})"
_ITEM = rf"- (?:{_KEY}:(?: (?:{_VALUE})\n(?!(?P=a)   )|\n)|(?:{_VALUE})\n(?!(?P=a) ))"
_HARMLESS: Final = re.compile(rf"(?>(?:(?P<a>(?> {{0,60}}))(?>{_ENTRY}|{_ITEM})|#[ -~]*\n)*)")


def read(text: str, at_once: AtOnce | None = None) -> Iterator[Tree | Flaw]:
    """What `read_yaml.read` yields; a List as several, each with some of its items. `at_once` may read items."""
    if len(text) < WORTH:
        yield from read_yaml.read(text)
        return
    batch: list[_Part] = []
    size = 0
    for first, part in read_yaml.split(text):
        if not part or part.isspace():
            continue
        items = _list(first, part, at_once)
        if items is not None:
            yield from _documents(batch)
            batch, size = [], 0
            yield from items
            continue
        batch.append(_Part(first, part))
        size += len(part)
        if size > CHUNK:
            yield from _documents(batch)
            batch, size = [], 0
    yield from _documents(batch)


class _Part(NamedTuple):
    """A document, or an item of a List, and the line of the file where its text begins."""

    first: int
    text: str


# --- many documents ----------------------------------------------------------------------------------------------


def _documents(parts: list[_Part]) -> Iterator[Tree | Flaw]:
    """The documents, in order; the harmless ones of them by rapidyaml."""
    texts = [part.text.removeprefix("\n") for part in parts]
    texts = [text if text.endswith("\n") else f"{text}\n" for text in texts]
    harmless = [bool(_HARMLESS.fullmatch(text)) for text in texts]
    # Two empty documents more: of one document alone rapidyaml makes no list.
    chosen = [text for text, good in zip(texts, harmless, strict=True) if good]
    found = _rapid("---\n" + "---\n".join([*chosen, "{}\n", "{}\n"]), len(chosen) + 2) if chosen else None
    at = 0
    for part, good in zip(parts, harmless, strict=True):
        value: JsonValue = None
        if good and found is not None:
            value = found.values[at]
            at += 1
        if not isinstance(value, dict) or "items" in value:
            yield from read_yaml.read_one(part.first, part.text)
            continue
        blank = len(part.text) - len(part.text.lstrip("\n"))
        yield read_yaml.YamlTree(
            part.first + _start(part.text, blank), value, text=part.text, first=part.first
        )


def _start(text: str, at: int) -> int:
    """Lines before the first one that is neither blank nor a comment."""
    while text.startswith("#", at):
        at = text.index("\n", at) + 1
    return text.count("\n", 0, at)


# --- one List, as kubectl prints it --------------------------------------------------------------------------------

_HEAD: Final = re.compile(r"(?:\n?(?:#[^\n]*\n)*)(?:[A-Za-z]+: [^\n]*\n)*items:\n(?=- )")
_TAIL: Final = re.compile(r"\n(?=[^\- \n])")


def _list(first: int, text: str, at_once: AtOnce | None) -> Iterator[Tree | Flaw] | None:
    """The List, some items at a time; None where it is laid out otherwise, or an item can't be read alone."""
    head = _HEAD.match(text)
    if head is None:
        return None
    tail = _TAIL.search(text, head.end())
    end = tail.start() + 1 if tail else len(text)
    frame = list(read_yaml.read_one(first, f"{text[: head.end() - 1]} []\n{text[end:]}"))
    if len(frame) != 1 or isinstance(frame[0], Flaw) or not isinstance(frame[0].value, dict):
        return None
    line = first + text.count("\n", 0, head.end())
    items: list[_Item] = []
    at = head.end()
    while at < end:
        following = text.find("\n- ", at, end)
        stop = end if following < 0 else following + 1
        part = _Part(line, text[at:stop])
        item = _item(part, at_once)
        if item is None:
            return None
        items.append(item)
        line += part.text.count("\n")
        at = stop
    return _trees(items, frame[0].value, frame[0].line, at_once)


class _Item(NamedTuple):
    """An item of a List: `text` if it is harmless, which lacks what was `made` already; else what was read of it."""

    part: _Part
    text: str | None
    made: Mapping[str, object] | None = None
    value: JsonValue = None


def _item(part: _Part, at_once: AtOnce | None) -> _Item | None:
    cut = at_once.yaml(part.text) if at_once is not None else None
    if cut is not None and _HARMLESS.fullmatch(cut.rest):
        return _Item(part, cut.rest, cut.made)
    if _HARMLESS.fullmatch(part.text):
        return _Item(part, part.text)
    value = _alone(part)
    return None if value is None else _Item(part, None, value=value[0])


def _alone(part: _Part) -> list[JsonValue] | None:
    """An item, in its list, by `read_yaml`; None if it needs the rest of the text (an alias), or is broken."""
    found = list(read_yaml.read_one(part.first, part.text))
    if len(found) != 1 or isinstance(found[0], Flaw):
        return None
    value = found[0].value
    return value if isinstance(value, list) and len(value) == 1 else None


def _trees(
    items: list[_Item], envelope: dict[str, JsonValue], line: int, at_once: AtOnce | None
) -> Iterator[Tree | Flaw]:
    batch: list[_Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item.part.text)
        if size > CHUNK:
            yield from _tree(batch, envelope, line, at_once)
            batch, size = [], 0
    yield from _tree(batch, envelope, line, at_once)


def _tree(
    items: list[_Item], envelope: dict[str, JsonValue], line: int, at_once: AtOnce | None
) -> Iterator[Tree | Flaw]:
    """A List of these items."""
    texts = [item.text for item in items if item.text is not None]
    rapid = _rapid("".join(texts), len(texts), at_once) if texts else None
    values: list[JsonValue] = []
    made: dict[int, Mapping[str, object]] = {}
    parts: list[_Part] = []
    at = -1
    for item in items:
        value, known = item.value, item.made
        if item.text is not None:
            at += 1
            rest = None if rapid is None else rapid.made.get(at)
            value = None if rapid is None else rapid.values[at]
            known = known or rest
            if rapid is None or (item.made is not None and not _fits(value, rest, at_once, item.made)):
                alone = _alone(item.part)
                if alone is None:  # broken after all: the meaning of YAML says how
                    yield from (t for t in read_yaml.read_one(*item.part) if isinstance(t, Flaw))
                    continue
                value, known = alone[0], None
        if known is not None:
            made[len(values)] = known
        values.append(value)
        parts.append(item.part)
    lines = tuple(part.first for part in parts)
    yield ListTree(line, {**envelope, "items": values}, lines, made, parts=parts)


def _fits(
    value: JsonValue, rest: Mapping[str, object] | None, at_once: AtOnce | None, made: Mapping[str, object]
) -> bool:
    """Whether what was made belongs to the value and the rest, which it was cut out of."""
    if at_once is None or not isinstance(value, dict) or value.get("kind") != at_once.kind:
        return False
    left = {**value, **(rest or {})}
    return all(left.get(name) in ([], ()) for name in made)


@dataclass(slots=True)
class ListTree(Tree):
    """Some items of a List. An item is read once more, with lines, when one of its fields is asked for."""

    parts: list[_Part] = field(default_factory=list)

    def locate(self, path: FieldPath) -> int:
        """The line of a field, or of the deepest part of its path that exists."""
        if len(path) < 2 or not isinstance(path[1], int):
            return self.line
        part = self.parts[path[1]]
        tree = read_yaml.YamlTree(part.first, None, text=part.text, first=part.first)
        return tree.locate((0, *path[2:]))

    def item(self, number: int) -> JsonValue:
        """An item, read once more."""
        (value,) = _alone(self.parts[number]) or (None,)
        return value


# --- rapidyaml -------------------------------------------------------------------------------------------------------


def _rapid(text: str, number: int, at_once: AtOnce | None = None) -> Items | None:
    """The values of a text that is one sequence or several documents; None if there is any doubt of them."""
    import ryml

    from k8snetc.compiler import read_json_list

    try:
        with _silence():
            tree = ryml.parse_in_arena(text.encode("ascii"))
            form = ryml.emit_json(tree).encode()
    except (ryml.ExceptionBasic, ryml.ExceptionParse, ryml.ExceptionVisit, UnicodeError):
        return None
    texts = read_json_list.split(form)
    # A key that is there twice would be lost in the value.
    return read_json_list.read_items(texts, at_once) if texts is not None and len(texts) == number else None


@contextmanager
def _silence() -> Iterator[None]:
    """Keep rapidyaml from writing its own account of an error to file descriptor 2 before it raises it."""
    try:
        saved = os.dup(2)
    except OSError:  # there is no standard error to write to
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
