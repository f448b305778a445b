"""What reading gives: documents with their file and line, and flaws. Plain data, no parser and no Kubernetes in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None
FieldPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why something can't be read. `line` is 1-based in its file."""

    line: int
    what: str
    fix: str


class Shortcut(NamedTuple):
    """An object that was read at once: its `value` without those fields that are `made`, of what they mean, already.

    `colons` is their number in the object's JSON without blanks: fewer than in its text if a key is there twice.
    """

    value: dict[str, JsonValue]
    made: Mapping[str, object]
    colons: int


class Cut(NamedTuple):
    """The YAML text of a List's item without what is `made` of it already; the fields that are made are empty lists."""

    rest: str
    made: Mapping[str, object]


class AtOnce(NamedTuple):
    """Reads objects that are there by the ten thousand; whatever may have an error in it is left to others (None).

    `json` reads an object from its JSON text (UTF-8). `yaml` cuts out of the YAML text of a List's item, with the dash,
    what it can read; the rest, if it is harmless (`read_yaml_fast`), is to be an object of `kind`, else nothing holds.
    """

    kind: str
    json: Callable[[bytes], Shortcut | None]
    yaml: Callable[[str], Cut | None]


@dataclass(slots=True)
class Tree:
    """One value that was read from a text, the line where it begins, and, if it is a List, its items' lines.

    `made` is what `Shortcut.made` says of some of the items, by their number.
    """

    line: int
    value: JsonValue
    item_lines: tuple[int, ...] = ()
    made: Mapping[int, Mapping[str, object]] = field(default_factory=dict)

    def locate(self, path: FieldPath) -> int:
        """The line of a field, or of the deepest part of its path that exists. Slow: for error messages."""
        raise NotImplementedError

    def item(self, number: int) -> JsonValue:
        """An item of the List, whole: read once more where a part of it was made already. Slow: for error messages."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a file: `value` as JSON has it, and where it stands in the tree that holds it.

    Fields that are `made` already, of what they mean, are not in the value.
    """

    file: str
    line: int
    value: dict[str, JsonValue]
    tree: Tree
    path: FieldPath = ()
    made: Mapping[str, object] | None = None

    def locate(self, path: FieldPath) -> int:
        """The line of a field of this object. Slow: for error messages."""
        return self.tree.locate(self.path + path)

    def whole(self) -> Document:
        """The same with nothing made."""
        number = self.path[-1]
        assert isinstance(number, int)  # only items of Lists are read at once
        value = self.tree.item(number)
        assert isinstance(value, dict)
        return replace(self, value=value, made=None)
