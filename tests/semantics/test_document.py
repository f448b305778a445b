"""docs/semantics.md: every row names its source and its test, and every test that it names exists."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.semantics.cases import CASES
from tests.semantics.policy_cases import CASES as POLICY_CASES
from tests.support.repository import ROOT

DOCUMENT = ROOT / "docs" / "semantics.md"
LOWER = "tests/compiler/test_lower.py"
NO_TEST = "-"
"""Of a difference that is only told, in the table of those: nothing that is promised is without a test."""


def rows() -> list[tuple[str, str, str]]:
    """What each row says, why or whence, and its tests; without heads and the rows that divide a table."""
    lines = DOCUMENT.read_text().splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line, below in zip(lines, [*lines[1:], ""], strict=True)
        if line.startswith("| ") and not line.startswith("| **") and not below.startswith("|---")
    ]
    assert all(len(row) == 3 for row in cells), [row for row in cells if len(row) != 3]
    return [(rule, source, tests) for rule, source, tests in cells]


def named() -> list[str]:
    """Every test that a row names."""
    return sorted({n.strip() for _, _, tests in rows() if tests != NO_TEST for n in tests.split(",")})


@cache
def functions(path: str) -> frozenset[str]:
    return frozenset(re.findall(r"^def (test_\w+)\(", (ROOT / path).read_text(), re.MULTILINE))


def exists(name: str) -> bool:
    """Whether there is a test of that name."""
    kind, _, rest = name.partition(":")
    match kind:
        case "case":
            return rest in {c.name for c in CASES}
        case "policy":
            return rest in {c.name for c in POLICY_CASES}
        case "lower":
            return f"test_{rest}" in functions(LOWER)
        case _:
            path, _, function = name.partition("::")
            return Path(ROOT, path).is_file() and (not function or function in functions(path))


@pytest.mark.parametrize("name", named())
def test_a_test_that_is_named_exists(name: str) -> None:
    assert exists(name)


def test_every_row_has_a_source_and_a_test() -> None:
    assert len(rows()) > 100
    assert all(rule and source and tests for rule, source, tests in rows())
    assert len([tests for _, _, tests in rows() if tests == NO_TEST]) <= 1


def test_every_case_holds_a_rule() -> None:
    """A case that no row names is a rule that nobody can read about."""
    known = set(named())
    assert {f"case:{c.name}" for c in CASES} <= known
    assert {f"policy:{c.name}" for c in POLICY_CASES} <= known


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:tests|docs|examples)/[\w./-]+)`", DOCUMENT.read_text())))
)
def test_a_file_that_the_text_names_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_check_can_fail() -> None:
    assert not exists("case:no-such-case")
    assert not exists("lower:nothing")
    assert not exists("tests/semantics/test_behaviour.py::test_nothing")
    assert not exists("tests/nowhere.py")
