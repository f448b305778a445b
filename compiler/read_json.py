"""JSON as kubectl prints it, fast, and where each of its objects stands.

Knows: JSON text and lines. Must not know: Kubernetes objects beyond the `items` of a List, files. Never raises for bad
input: it yields `Flaw`s.

orjson keeps neither positions nor duplicate keys. The lines of a List's items come from the indentation that
kubectl and jq print (a JSON string never holds a line break, so that lines never lie), or from the standard
library's scanner where the text is laid out otherwise. Duplicate keys show in the count of keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import orjson

from k8snetc.compiler.counting import occurrences
from k8snetc.compiler.document import AtOnce, FieldPath, Flaw, JsonValue, Tree

_BLANK = re.compile(r"[ \t\n\r]*")
_ITEMS = re.compile(rb'^( *|\t*)"items": \[(\n\s+\{\n)', re.MULTILINE)
_ESCAPED_COLONS = (b"\\u003a", b"\\u003A")


def read(data: bytes, at_once: AtOnce | None = None) -> Iterator[Tree | Flaw]:
    """The values of a JSON text in UTF-8 (one, or several after another), with the flaws of what can't be read.

    `at_once` may read items of a large List.
    """
    if at_once is not None:
        from k8snetc.compiler import read_json_list  # msgspec: not for small texts

        found = read_json_list.read(data, at_once)
        if found is not None:
            tree = JsonTree(_first_line(data), found.value, found.lines, found.made, data=data)
            tree.places = found.places
            yield tree
            return
    try:
        value: JsonValue = orjson.loads(data)
    except orjson.JSONDecodeError:
        yield from _read_several(data)
        return
    if not _keys_agree(data, value):
        flaws = list(_duplicates(data.decode()))
        if flaws:
            yield from flaws
            return
    tree = JsonTree(1, value, data=data)
    tree.line = _first_line(data)
    tree.item_lines = tuple(_item_lines(tree, value))
    yield tree


def _first_line(data: bytes) -> int:
    return 1 + data.count(b"\n", 0, _skip(data[:4096].decode("utf-8", "replace"), 0))


def _keys_agree(data: bytes, value: JsonValue) -> bool:
    """Whether there are as many keys in the text as in the value; False also where that can't be told quickly.

    Both are counted as colons, which may also stand in strings, but then in both.
    """
    if b"\\u" in data and any(colon in data for colon in _ESCAPED_COLONS):
        return False
    return occurrences(data, b":") == occurrences(orjson.dumps(value), b":")


def _read_several(data: bytes) -> Iterator[Tree | Flaw]:
    """One value after another, as `kubectl get -o json` twice into one file gives."""
    text = data.decode()
    at = _skip(text, 0)
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    while at < len(text):
        line = 1 + text.count("\n", 0, at)
        try:
            try:
                value, end = decoder.raw_decode(text, at)
            except _DuplicateError:
                end = _decode(text, at)[1]  # it may be broken as well, and that comes first
                yield from _duplicates(text[at:end], line)
                at = _skip(text, end)
                continue
        except json.JSONDecodeError as error:
            yield Flaw(
                error.lineno,
                f"broken JSON: {error.msg}",
                "check commas, quotes and brackets before this place",
            )
            return
        except RecursionError:
            yield Flaw(line, "JSON that is nested too deeply", "no manifest is that deep: check the file")
            return
        tree = JsonTree(line, cast(JsonValue, value), data=data, start=at)
        tree.item_lines = tuple(_item_lines(tree, tree.value))
        yield tree
        at = _skip(text, end)


@dataclass(slots=True)
class JsonTree(Tree):
    """A JSON value that can find the line of each of its fields in its text.

    `start` is where the value begins, in characters; `places` are those of items that were read one by one, in bytes.
    """

    data: bytes = b""
    start: int = 0
    places: Sequence[tuple[int, int]] = ()
    _text: str | None = field(default=None, repr=False)
    _items: tuple[int, ...] | None = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The text, decoded when it is first needed: for an error."""
        if self._text is None:
            self._text = self.data.decode()
        return self._text

    def locate(self, path: FieldPath) -> int:
        """The line of a field, or of the deepest part of its path that exists."""
        at = _skip(self.text, self.start)
        if len(path) >= 2 and path[0] == "items" and isinstance(path[1], int):
            offsets = self.item_offsets()
            if path[1] < len(offsets):
                at, path = offsets[path[1]], path[2:]
        return 1 + self.text.count("\n", 0, _find(self.text, at, path))

    def item(self, number: int) -> JsonValue:
        """An item that was read one by one, whole."""
        start, end = self.places[number]
        return cast(JsonValue, orjson.loads(self.data[start:end]))

    def item_offsets(self) -> tuple[int, ...]:
        """Where each of `items` begins in the text; scanned once."""
        if self._items is None:
            at = _find(self.text, _skip(self.text, self.start), ("items",), value=True)
            self._items = tuple(start for start, _ in _elements(self.text, at))
        return self._items


def _item_lines(tree: JsonTree, value: JsonValue) -> Iterator[int]:
    items = value.get("items") if isinstance(value, dict) else None
    if not isinstance(items, list) or not items:
        return
    if tree.start == 0:
        lines = _lines_by_layout(tree.data, len(items))
        if lines is not None:
            yield from lines
            return
    line, last = 1, 0
    for at in tree.item_offsets():
        line += tree.text.count("\n", last, at)
        last = at
        yield line


def _lines_by_layout(data: bytes, number: int) -> list[int] | None:
    """The lines of the items where each begins with a brace alone on its line, indented alike; None elsewhere."""
    head = _ITEMS.search(data)
    if head is None:
        return None
    mark = head.group(2)
    lines: list[int] = []
    at, line, last = head.start(2), 1, 0
    while at >= 0:
        line += data.count(b"\n", last, at + 1)
        last = at + 1
        lines.append(line)
        at = data.find(mark, at + len(mark))
    return lines if len(lines) == number else None


# --- finding places, with the scanner of the standard library (in C where it skips values) ----------------------

_decode = json.JSONDecoder().raw_decode


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _members(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """(key, where the key begins, where its value begins) of the object at `at`."""
    at = _skip(text, at + 1)
    while text[at] != "}":
        start = at
        key, at = _decode(text, at)
        at = _skip(text, _skip(text, at) + 1)
        yield key, start, at
        at = _skip(text, _decode(text, at)[1])
        if text[at] == ",":
            at = _skip(text, at + 1)


def _elements(text: str, at: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of each element of the array at `at`."""
    at = _skip(text, at + 1)
    while text[at] != "]":
        end = _decode(text, at)[1]
        yield at, end
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _find(text: str, at: int, path: FieldPath, *, value: bool = False) -> int:
    """Where a field begins (its key; with `value` its value), or the deepest part of its path that exists."""
    place = at
    for part in path:
        if isinstance(part, str) and text[at] == "{":
            hit = next(((start, begin) for key, start, begin in _members(text, at) if key == part), None)
        elif isinstance(part, int) and text[at] == "[":
            hit = next(
                ((start, start) for i, (start, _) in enumerate(_elements(text, at)) if i == part), None
            )
        else:
            hit = None
        if hit is None:
            break
        place, at = hit
    return at if value else place


# --- duplicate keys --------------------------------------------------------------------------------------------


class _DuplicateError(ValueError):
    """A key is there twice."""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _DuplicateError
    return value


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


def _duplicates(text: str, line: int = 1) -> Iterator[Flaw]:
    """Every key that is there twice in one object of a valid JSON text."""
    open_: list[set[str] | None] = []
    last = ""
    last_at = counted = 0
    for token in _TOKEN.finditer(text):
        sign = token.group()
        if sign == "{":
            open_.append(set())
        elif sign == "[":
            open_.append(None)
        elif sign in {"}", "]"}:
            open_.pop()
        elif sign == ":":
            keys = open_[-1] if open_ else None
            key = json.loads(last)
            if keys is not None and key in keys:
                line += text.count("\n", counted, last_at)
                counted = last_at
                yield Flaw(line, f"key {key!r} is there twice in one object", "keep one of the two")
            elif keys is not None:
                keys.add(key)
        elif sign != ",":
            last, last_at = sign, token.start()
