"""Errors and warnings about the input: collected, sorted, printed once.

Knows: file, line, what is wrong, what to do. Must not know: where the words come from.
The form is `file:line: what; what to do`, the form that editors and CI systems make clickable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """An ERROR stops everything (exit 2, nothing written); a WARNING is for `lint` and stderr."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One finding. `line` is 1-based, 0 where a file has no lines (it can't be read)."""

    file: str
    line: int
    what: str
    fix: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        mark = "" if self.severity is Severity.ERROR else "warning: "
        return f"{place}: {mark}{self.what}; {self.fix}"


class InputError(Exception):
    """The input can't be compiled. Carries every diagnostic of every file."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(sorted(set(diagnostics)))
        super().__init__("\n".join(str(d) for d in self.diagnostics))
