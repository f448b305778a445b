"""What reading gives: documents with their file and line, and flaws. Plain data, no parser and no Kubernetes in it."""

from __future__ import annotations

from dataclasses import dataclass

JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None
FieldPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why something can't be read. `line` is 1-based in its file."""

    line: int
    what: str
    fix: str


@dataclass(slots=True)
class Tree:
    """One value that was read from a text, the line where it begins, and, if it is a List, its items' lines."""

    line: int
    value: JsonValue
    item_lines: tuple[int, ...] = ()

    def locate(self, path: FieldPath) -> int:
        """The line of a field, or of the deepest part of its path that exists. Slow: for error messages."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a file: `value` as JSON has it, and where it stands in the tree that holds it."""

    file: str
    line: int
    value: dict[str, JsonValue]
    tree: Tree
    path: FieldPath = ()

    def locate(self, path: FieldPath) -> int:
        """The line of a field of this object. Slow: for error messages."""
        return self.tree.locate(self.path + path)
