"""A large List in JSON, item by item, so that no tree of all its values is ever there at once.

Knows: JSON text, places in it, and that somebody reads items of some kinds at once (`Shortcut`). Must not know: which,
or what they mean. It reads what is certainly in order; all else is left to `read_json`, which says what is wrong.

msgspec finds the items (it checks the grammar of what it passes, but not UTF-8, nor that a number is finite); orjson
or the shortcut reads each. Keys that are there twice show in the number of colons, as in `read_json`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import orjson

from k8snetc.compiler.counting import occurrences
from k8snetc.compiler.document import AtOnce, JsonValue

_GAP: Final = re.compile(rb"[ \t\r\n]*,[ \t\r\n]*")
_ITEMS: Final = re.compile(rb'"items"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*\Z')
_ESCAPED_COLON: Final = b"\\u003"


class _List(msgspec.Struct):
    items: list[msgspec.Raw]


class Items(NamedTuple):
    """Items of a List: their values, and by number what was made of some (`Shortcut.made`)."""

    values: list[JsonValue]
    made: Mapping[int, Mapping[str, object]]


class Found(NamedTuple):
    """A List: its value, what was made of some items, the place of each item in bytes, and the line of each."""

    value: dict[str, JsonValue]
    made: Mapping[int, Mapping[str, object]]
    places: Sequence[tuple[int, int]]
    lines: tuple[int, ...]


def read(data: bytes, at_once: AtOnce) -> Found | None:
    """The List that a text is; None if it is none, or anything about it is doubtful."""
    if not _is_utf8(data):
        return None
    try:
        raw = msgspec.json.decode(data, type=_List).items
    except (msgspec.DecodeError, RecursionError):
        return None
    if not raw:
        return None
    first = bytes(raw[0])
    start = data.find(first)
    gap = _GAP.match(data, start + len(first))
    between = gap.group() if gap else b","
    places = _places(data, start, raw, between)
    if places is None or not _ITEMS.search(data[max(0, start - 1000) : start]):
        return None
    # With what is around them these are the items, unless another list of the same is there as well.
    frame = read_items([data[:start] + data[places[-1][1] :]])
    value = frame.values[0] if frame else None
    if not isinstance(value, dict) or value.get("items") != []:
        return None
    lines: list[int] = []
    items = read_items(_texts(data, places, between.count(b"\n"), lines), at_once)
    if items is None:
        return None
    return Found({**value, "items": items.values}, items.made, places, tuple(lines))


def read_items(texts: Iterable[bytes], at_once: AtOnce | None = None) -> Items | None:
    """The values of these JSON texts; None if one is broken or a key may be there twice."""
    values: list[JsonValue] = []
    made: dict[int, Mapping[str, object]] = {}
    for number, text in enumerate(texts):
        short = at_once.json(text) if at_once is not None else None
        if short is not None:
            value: JsonValue = short.value
            made[number] = short.made
            colons = short.colons
        else:
            if _ESCAPED_COLON in text:
                return None
            try:
                value = orjson.loads(text)
            except orjson.JSONDecodeError:
                return None
            colons = occurrences(orjson.dumps(value), b":")
        if colons != occurrences(text, b":"):
            return None
        values.append(value)
    return Items(values, made)


def split(data: bytes) -> list[bytes] | None:
    """The texts of an array's elements; None if it is none. The elements may hold broken UTF-8 or infinite numbers."""
    try:
        return [bytes(raw) for raw in msgspec.json.decode(data, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, RecursionError):
        return None


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _places(
    data: bytes, start: int, items: Iterable[msgspec.Raw], between: bytes
) -> list[tuple[int, int]] | None:
    """Where the items are (first byte, byte after the last) if what stands between them is always the same."""
    places: list[tuple[int, int]] = []
    for item in items:
        if places:
            start = places[-1][1]
            if not data.startswith(between, start):
                return None
            start += len(between)
        places.append((start, start + len(memoryview(item))))
    return places


def _texts(
    data: bytes, places: Iterable[tuple[int, int]], lines_between: int, lines: list[int]
) -> Iterator[bytes]:
    """The items' texts; their lines are appended to `lines`. Counted while a text is in the processor's cache."""
    line = last = 0
    for start, end in places:
        line += data.count(b"\n", 0, start) + 1 if not last else lines_between
        last = end
        text = data[start:end]
        lines.append(line)
        yield text
        line += occurrences(text, b"\n")
