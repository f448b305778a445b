"""Label selectors: their meaning, their string form, and an index that answers them for many objects at once.

Knows: apimachinery's label selector rules. Must not know: what carries the labels (pods, namespaces, nodes), or
pydantic. Sets of objects are integers whose bit i is object i: a union of 50,000 pods is one machine operation a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

Labels = Mapping[str, str]
Bits = int

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


class SelectorError(ValueError):
    """A selector that Kubernetes would not accept; the text says why."""


class Operator(StrEnum):
    """The operators of `matchExpressions`. NOT_IN and DOES_NOT_EXIST also match an absent key."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """One condition on one label key. `values` is sorted and unique; empty for the two existence operators."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (problem := label_key_problem(self.key)) is not None:
            raise SelectorError(problem)
        listed = self.operator in (Operator.IN, Operator.NOT_IN)
        if listed != bool(self.values):
            need = "needs at least one value" if listed else "takes no values"
            raise SelectorError(f"operator {self.operator.value} of label {self.key!r} {need}")
        for value in self.values:
            if (problem := label_value_problem(value)) is not None:
                raise SelectorError(problem)

    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels meets the condition. `""` is a present value."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.DOES_NOT_EXIST:
                return self.key not in labels

    def __str__(self) -> str:
        values = ",".join(self.values)
        match self.operator:
            case Operator.IN:
                return f"{self.key}={values}" if len(self.values) == 1 else f"{self.key} in ({values})"
            case Operator.NOT_IN:
                return f"{self.key}!={values}" if len(self.values) == 1 else f"{self.key} notin ({values})"
            case Operator.EXISTS:
                return self.key
            case Operator.DOES_NOT_EXIST:
                return f"!{self.key}"


def requirement(key: str, operator: Operator, values: Iterable[str] = ()) -> Requirement:
    """A requirement with its values in canonical order."""
    return Requirement(key, operator, tuple(sorted(set(values))))


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold; none at all selects everything (the `{}` of the API, not its null)."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels is selected."""
        return all(r.matches(labels) for r in self.requirements)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


EVERYTHING = Selector()


def selector(requirements: Iterable[Requirement]) -> Selector:
    """A selector with its requirements in canonical order, so that equal meanings compare equal more often."""
    return Selector(tuple(sorted(set(requirements))))


def label_key_problem(key: str) -> str | None:
    """Why `key` is no label key (optional DNS subdomain, slash, name of at most 63 characters), or None."""
    prefix, slash, name = key.rpartition("/")
    if not _NAME.fullmatch(name):
        return f"{key!r} is no label key: the name is 1 to 63 of A-Z a-z 0-9 - _ . and starts and ends alphanumeric"
    if slash and not (0 < len(prefix) <= 253 and _DOMAIN.fullmatch(prefix)):
        return f"{key!r} is no label key: what stands before the slash must be a DNS subdomain"
    return None


def label_value_problem(value: str) -> str | None:
    """Why `value` is no label value (empty, or as a name of at most 63 characters), or None."""
    if value and not _NAME.fullmatch(value):
        return f"{value!r} is no label value: at most 63 of A-Z a-z 0-9 - _ . and alphanumeric at both ends"
    return None


# --- the string form ----------------------------------------------------------------------------------------


@cache
def _grammar() -> Lark:
    from lark import Lark

    text = Path(__file__).with_name("selectors.lark").read_text(encoding="utf-8")
    return Lark(text, start="selector", parser="lalr", maybe_placeholders=False)


def parse_selector(text: str) -> Selector:
    """Read `app=web,tier in (a,b),!x,x!=y`. Raises `SelectorError` that points at the place."""
    from lark.exceptions import UnexpectedInput, UnexpectedToken

    try:
        tree = _grammar().parse(text)
    except UnexpectedInput as error:
        ended = isinstance(error, UnexpectedToken) and error.token.type == "$END"
        rest = "" if ended else text[error.pos_in_stream :]
        where = f"at {rest!r}" if rest else "at its end"
        raise SelectorError(f"the label selector {text!r} can't be read {where}") from error
    return selector(_requirement(child) for child in tree.children if not isinstance(child, str))


def _requirement(tree: Tree[Token]) -> Requirement:
    key, *rest = tree.children
    values: list[str] = []
    for node in rest:
        if not isinstance(node, str):
            parts = node.children if node.data == "values" else [node]
            values.extend("".join(map(str, p.children)) for p in parts if not isinstance(p, str))
    operator = {
        "exists": Operator.EXISTS,
        "absent": Operator.DOES_NOT_EXIST,
        "equals": Operator.IN,
        "differs": Operator.NOT_IN,
        "among": Operator.IN,
        "beyond": Operator.NOT_IN,
    }[tree.data]
    return requirement(str(key), operator, values)


# --- many objects at once -------------------------------------------------------------------------------------


def bits_of(positions: Iterable[int], size: int) -> Bits:
    """The set of these positions, each below `size`."""
    raw = bytearray((size >> 3) + 1)
    for at in positions:
        raw[at >> 3] |= 1 << (at & 7)
    return int.from_bytes(raw, "little")


def positions_of(bits: Bits) -> Iterator[int]:
    """The positions in a set, ascending. Linear in the set's words plus its members."""
    text = bin(bits)[:1:-1]
    at = text.find("1")
    while at >= 0:
        yield at
        at = text.find("1", at + 1)


class LabelIndex:
    """Which of many labelled objects a selector selects: set algebra over label -> objects, no object looked at."""

    __slots__ = ("_answers", "_by_key", "_positions", "everything", "size")

    def __init__(self, labels: Sequence[Labels]) -> None:
        self.size = len(labels)
        self.everything: Bits = (1 << self.size) - 1
        self._positions: dict[str, dict[str, list[int]]] = {}
        for at, one in enumerate(labels):
            for key, value in one.items():
                self._positions.setdefault(key, {}).setdefault(value, []).append(at)
        self._by_key: dict[tuple[str, str | None], Bits] = {}
        self._answers: dict[Requirement, Bits] = {}

    def select(self, wanted: Selector) -> Bits:
        """The objects that `wanted` selects."""
        found = self.everything
        for condition in wanted.requirements:
            found &= self._meeting(condition)
        return found

    def has(self, key: str, value: str | None = None) -> Bits:
        """The objects that carry the key (with that value, if one is given)."""
        known = self._by_key.get((key, value))
        if known is None:
            values = self._positions.get(key, {})
            positions = (
                values.get(value, ()) if value is not None else (p for v in values.values() for p in v)
            )
            known = self._by_key[key, value] = bits_of(positions, self.size)
        return known

    def _meeting(self, condition: Requirement) -> Bits:
        known = self._answers.get(condition)
        if known is None:
            found = 0
            for value in condition.values or (None,):
                found |= self.has(condition.key, value)
            if condition.operator in (Operator.NOT_IN, Operator.DOES_NOT_EXIST):
                found = self.everything & ~found
            known = self._answers[condition] = found
        return known
