"""YAML as Kubernetes reads it: libyaml's grammar, go-yaml v2's scalars and merge keys, as JSON values.

kubectl and the API server read YAML with sigs.k8s.io/yaml, which is go-yaml v2: a translation of libyaml with
YAML 1.1 booleans (`y`, `on`) and octal numbers (`0777`), without sexagesimal numbers (`1:20` is text); then
through JSON. PyYAML's C parser is libyaml itself; the meaning of its events is decided here.

Knows: text, lines, scalars. Must not know: Kubernetes objects, files. Never raises for bad input: it yields `Flaw`s.
The text may be hostile: nesting and the expansion of aliases are bounded.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from k8snetc.compiler.document import FieldPath, Flaw, JsonValue, Tree

# Without libyaml: the same grammar in Python, slower.
Parser: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_DEPTH: Final = 200  # levels of nesting; the deepest field that matters is at 12
FREE_ALIAS_NODES: Final = 100_000  # aliases may always expand to this many nodes...
MAX_ALIAS_RATIO: Final = 10  # ...and beyond to this many times what is written out

# --- scalars -------------------------------------------------------------------------------------------------

_WORDS: Final[dict[str, bool | float | None]] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INTEGER = re.compile(
    r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|0[0-7]*|[1-9][0-9]*)"
)  # Go's strconv.ParseInt with base 0
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_DOT_FLOAT = re.compile(r"\.[0-9]+(?:[eE][-+]?[0-9]+)?")


def _integer(text: str) -> int | None:
    if not _INTEGER.fullmatch(text):
        return None
    sign = -1 if text[0] == "-" else 1
    digits = text.lstrip("+-")
    prefix = digits[:2].lower()
    if prefix in {"0x", "0b", "0o"}:
        value = int(digits[2:], {"0x": 16, "0b": 2, "0o": 8}[prefix])
    elif len(digits) > 1 and digits[0] == "0":
        value = int(digits, 8)
    else:
        value = int(digits)
    value *= sign
    return value if -(1 << 63) <= value < 1 << 64 else None


@lru_cache(maxsize=1 << 16)
def plain_scalar(text: str) -> str | int | float | bool | None:
    """What a plain (unquoted) scalar is to go-yaml v2, after its way through JSON: 80.0 has become 80."""
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if first in "0123456789+-":
        plain = text.replace("_", "")
        integer = _integer(plain)
        if integer is not None:
            return integer
        number = float(plain) if _FLOAT.fullmatch(plain) else None
    else:
        number = float(text) if first == "." and _DOT_FLOAT.fullmatch(text) else None
    if number is None or math.isinf(number):
        return text
    # encoding/json writes a float without fraction as an integer, which an int field then takes.
    return int(number) if number.is_integer() and abs(number) < 1e21 else number


_TAG = "tag:yaml.org,2002:"


class _BadScalarError(ValueError):
    """A scalar that does not fit its tag: what is wrong, what to do."""


def _scalar(event: ScalarEvent) -> str | int | float | bool | None:
    text = str(event.value)
    tag = event.tag
    value: str | int | float | bool | None
    if tag is None or tag == "!":
        value = plain_scalar(text) if event.implicit[0] and tag is None else text
    elif tag == _TAG + "binary":
        try:
            value = base64.b64decode(text, validate=False).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise _BadScalarError(f"{text!r} is no base64 text", "leave !!binary out") from None
    elif tag in {_TAG + "int", _TAG + "float", _TAG + "bool", _TAG + "null"}:
        value = plain_scalar(text)
        wanted: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,)}
        kind = tag[len(_TAG) :]
        fits = value is None if kind == "null" else isinstance(value, wanted[kind])
        if not fits or (isinstance(value, bool) and kind in {"int", "float"}):
            raise _BadScalarError(f"{text!r} is no !!{kind}", f"leave !!{kind} out")
    else:
        value = text  # !!str, !!timestamp and tags that go-yaml does not know: text
    if isinstance(value, float) and not math.isfinite(value):
        raise _BadScalarError(f"the number {text} has no JSON form", "write it in quotes if text is meant")
    return value


def _key(value: object) -> str | None:
    """A mapping's key as JSON has it; None where it has none."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:g}"
    return None


# --- documents -----------------------------------------------------------------------------------------------

_SEPARATOR = re.compile(r"^---(?=[ \t\r\n]|\Z)([^\n]*)", re.MULTILINE)
_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{\{-?\s*\w|\{%")
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def split(text: str) -> Iterator[tuple[int, str]]:
    """The documents of a stream as (first line, text), split at `---` lines as kubectl splits them.

    So an error in one document does not hide the others.
    """
    line = 1
    start = 0
    if not text.startswith("---") and "\n---" not in text:
        yield line, text
        return
    for match in _SEPARATOR.finditer(text):
        yield line, text[start : match.start()]
        line += text.count("\n", start, match.start())
        start = match.start() + 3  # what stands behind --- on its line belongs to the document
    yield line, text[start:]


@dataclass(slots=True)
class YamlTree(Tree):
    """A document that knows, if asked, on which line each of its fields stands: it is then read once more."""

    text: str = ""
    first: int = 1
    _lines: dict[FieldPath, int] | None = field(default=None, repr=False)

    def locate(self, path: FieldPath) -> int:
        """The line of a field, or of the deepest part of its path that exists."""
        if self._lines is None:
            builder = _Builder(self.first, record=True)
            for _ in builder.run(self.text):
                break
            self._lines = builder.lines
        for end in range(len(path), -1, -1):
            found = self._lines.get(path[:end])
            if found is not None:
                return found
        return self.line


def read(text: str) -> Iterator[Tree | Flaw]:
    """The documents of a YAML stream, in order, with the flaws of those that can't be read. Empty ones are left out."""
    for first, part in split(text):
        yield from read_one(first, part)


def read_one(first: int, part: str) -> Iterator[Tree | Flaw]:
    """The same for what stands between two `---`, of which `first` is the first line."""
    if not part.strip():
        return
    builder = _Builder(first)
    for line, value in builder.run(part):
        if value is not None:
            yield YamlTree(line, value, tuple(builder.item_lines), text=part, first=first)
    yield from builder.flaws


class _Stop(Exception):  # noqa: N818 - not an error: a flaw has been noted, the rest of the document is not read
    """The rest of the document can't be read."""


class _Frame:
    """A mapping or sequence that is being read; `key` is the mapping's key whose value comes next."""

    __slots__ = ("anchor", "key", "merged", "path", "size", "value")

    def __init__(
        self, value: dict[str, JsonValue] | list[JsonValue], anchor: str | None, path: FieldPath
    ) -> None:
        self.value = value
        self.anchor = anchor
        self.path = path
        self.key: str | None = None
        self.merged: set[str] | None = None  # keys that came by a merge: the mapping may give them again
        self.size = 1  # in nodes, aliases expanded


_MERGE: Final = "\0<<"  # stands for the merge key; no key of a document has a NUL


class _Builder:
    """Events to values: one pass with a stack of its own, so that no depth of nesting can exhaust Python's."""

    def __init__(self, first: int, *, record: bool = False) -> None:
        self.flaws: list[Flaw] = []
        self.item_lines: list[int] = []
        self.lines: dict[FieldPath, int] = {}
        self._first = first
        self._text = ""
        self._record = record
        self._stack: list[_Frame] = []
        self._root: JsonValue = None
        self._anchors: dict[str, tuple[JsonValue, int]] = {}
        self._open: set[str] = set()  # anchors of what is being read
        self._direct = 0
        self._expanded = 0

    def run(self, text: str) -> Iterator[tuple[int, JsonValue]]:
        """Each document of the text as (line, value). Flaws are left in `flaws`."""
        self._text = text
        parser = Parser(text)
        line = self._first
        event: Event | None = None
        try:
            while (event := parser.get_event()) is not None:
                if isinstance(event, ScalarEvent):
                    line = self._enter(event, line)
                    self._direct += 1
                    value = _scalar(event)
                    if event.anchor:
                        self._anchors[event.anchor] = (value, 1)
                    self._put(event, value, 1)
                elif isinstance(event, MappingStartEvent | SequenceStartEvent):
                    line = self._enter(event, line)
                    self._open_container(event)
                elif isinstance(event, MappingEndEvent | SequenceEndEvent):
                    self._close_container(event)
                elif isinstance(event, AliasEvent):
                    line = self._enter(event, line)
                    self._alias(event)
                elif isinstance(event, DocumentEndEvent):
                    yield line, self._root
        except _BadScalarError as error:
            self._flaw(event, *error.args)
        except _Stop:
            pass
        except yaml.YAMLError as error:
            self.flaws.append(_explain(error, text, self._first))
        finally:
            parser.dispose()

    def _line(self, event: Event) -> int:
        return self._first + (event.start_mark.line if event.start_mark else 0)

    def _flaw(self, event: Event | None, what: str, fix: str) -> None:
        self.flaws.append(Flaw(self._first if event is None else self._line(event), what, fix))

    def _enter(self, event: Event, line: int) -> int:
        """Note where a node begins that is a document or one of a List's items."""
        depth = len(self._stack)
        if depth == 0:
            line = self._line(event)
            self.item_lines = []
            self._anchors.clear()
            if self._record:
                self.lines[()] = line
        elif depth == 2 and self._stack[1].path == ("items",) and isinstance(self._stack[1].value, list):
            self.item_lines.append(self._line(event))
        return line

    def _child_path(self) -> FieldPath:
        if not self._stack:
            return ()
        top = self._stack[-1]
        if isinstance(top.value, list):
            return (*top.path, len(top.value))
        return (*top.path, top.key or "")

    def _open_container(self, event: MappingStartEvent | SequenceStartEvent) -> None:
        self._direct += 1
        if len(self._stack) >= MAX_DEPTH:
            self._flaw(
                event, f"more than {MAX_DEPTH} levels of nesting", "no manifest is that deep: check the file"
            )
            raise _Stop
        if self._stack and self._wants_key():
            template = _template(self._text, self._first)
            if template is None:
                self._flaw(
                    event, "a mapping or list as a key", "keys are text; put {} in plain text into quotes"
                )
            else:
                self.flaws.append(template)
            raise _Stop
        path = self._child_path()
        if path == ("items",):
            self.item_lines = []
        if self._record and self._stack and isinstance(self._stack[-1].value, list):
            self.lines[path] = self._line(event)
        if event.anchor:
            self._open.add(event.anchor)
        value: dict[str, JsonValue] | list[JsonValue] = {} if isinstance(event, MappingStartEvent) else []
        self._stack.append(_Frame(value, event.anchor, path))

    def _close_container(self, event: Event) -> None:
        frame = self._stack.pop()
        if frame.anchor:
            self._open.discard(frame.anchor)
            self._anchors[frame.anchor] = (frame.value, frame.size)
        self._put(event, frame.value, frame.size)

    def _alias(self, event: AliasEvent) -> None:
        name = str(event.anchor)
        if name in self._open:
            self._flaw(event, f"the value of anchor {name!r} contains itself", "write the value out")
            raise _Stop
        if name not in self._anchors:
            self._flaw(
                event,
                f"alias *{name} has no anchor before it",
                f"mark the value with &{name}, or quote the text",
            )
            raise _Stop
        value, size = self._anchors[name]
        self._expanded += size
        if self._expanded > max(FREE_ALIAS_NODES, MAX_ALIAS_RATIO * self._direct):
            self._flaw(event, "aliases that expand to far more than the file holds", "write the values out")
            raise _Stop
        self._put(event, value, size)

    def _wants_key(self) -> bool:
        top = self._stack[-1]
        return isinstance(top.value, dict) and top.key is None

    def _put(self, event: Event, value: JsonValue, size: int) -> None:
        """Add a whole value to what is being read: as document, item, key or value of a key."""
        if not self._stack:
            self._root = value
            return
        top = self._stack[-1]
        top.size += size
        if isinstance(top.value, list):
            if self._record:
                self.lines.setdefault((*top.path, len(top.value)), self._line(event))
            top.value.append(value)
        elif top.key is None:
            self._put_key(event, top, value)
        elif top.key == _MERGE:
            top.key = None
            self._merge(event, top, value)
        else:
            top.value[top.key] = value
            top.key = None

    def _put_key(self, event: Event, top: _Frame, value: JsonValue) -> None:
        assert isinstance(top.value, dict)
        key = value if isinstance(value, str) else _key(value)
        if key is None:
            self._flaw(event, "a key that is no text", "write a name before the colon, in quotes if need be")
            raise _Stop
        if key == "<<" and isinstance(event, ScalarEvent) and event.implicit[0]:
            top.key = _MERGE
            return
        if key in top.value:
            if top.merged is not None and key in top.merged:
                top.merged.discard(key)
            else:
                self._flaw(event, f"key {key!r} is there twice in one mapping", "keep one of the two")
        elif self._record:
            self.lines[(*top.path, key)] = self._line(event)
        top.key = key

    def _merge(self, event: Event, top: _Frame, value: JsonValue) -> None:
        """go-yaml v2: a merge sets its keys where it stands; of several mappings the first wins."""
        assert isinstance(top.value, dict)
        sources = value if isinstance(value, list) else [value]
        for source in reversed(sources):
            if not isinstance(source, dict):
                self._flaw(
                    event,
                    "<< merges something that is no mapping",
                    "give an alias of a mapping, or a list of them",
                )
                raise _Stop
            top.value.update(source)
            top.merged = (top.merged or set()) | source.keys()


def _explain(error: yaml.YAMLError, text: str, first: int) -> Flaw:
    """libyaml's complaint, in words that say what to do."""
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", "") or getattr(error, "reason", "") or "it is no YAML")
    if mark is None:
        bad = _CONTROL.search(text)
        line = first + (text.count("\n", 0, bad.start()) if bad else 0)
        sign = f"U+{ord(bad.group()):04X}" if bad else "something that is no text"
        return Flaw(line, f"the control character {sign}", "manifests are plain text: remove it")
    line = first + int(mark.line)
    template = _template(text, first)
    if template:
        return template
    lines = text.split("\n")
    if int(mark.line) < len(lines) and "\t" in lines[int(mark.line)]:
        return Flaw(line, "a tab where YAML wants spaces", "indent with spaces")
    context = str(getattr(error, "context", "") or "")
    detail = f"{problem} {context}".strip()
    return Flaw(
        line, f"broken YAML: {detail}", "check quotes, colons and indentation on this line and the one before"
    )


def _template(text: str, first: int) -> Flaw | None:
    match = _TEMPLATE.search(text)
    if match is None:
        return None
    line = first + text.count("\n", 0, match.start())
    return Flaw(
        line,
        "this is a template, not a manifest",
        "render it first, as with `helm template`, and give the result",
    )
