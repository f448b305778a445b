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
ROW = re.compile(r"^\| (?!-|rule \||\*\*|---)(.+) \| (.+) \| (.+) \|$", re.MULTILINE)


def rows() -> list[tuple[str, str, str]]:
    """Rule, source, tests."""
    return [(m[1], m[2], m[3]) for m in ROW.finditer(DOCUMENT.read_text())]


def named() -> list[str]:
    """Every test that a row names."""
    return sorted({name.strip() for _, _, tests in rows() for name in tests.split(",")})


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
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    heads = [line for line in lines if line.startswith(("| rule |", "| **"))]
    assert len(lines) == len(rows()) + len(heads)
    assert len(rows()) > 100
    assert all(rule.strip() and source.strip() and tests.strip() for rule, source, tests in rows())


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
