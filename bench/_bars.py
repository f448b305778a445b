"""What was asked and what was measured, side by side, in one table at the end.

Knows: rows. Must not know: what is measured. A benchmark calls `bar` for each figure that has a bar (or is read beside
those that have); run alone it prints its table with `table`, under `python -m bench` all rows come together at the end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "K8SNETC_BENCH_BARS"
"""Environment variable: the file that rows are added to, where somebody else prints them."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure in its unit. `most` is the bar; None: none was set."""

    what: str
    measured: float
    unit: str
    most: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the bar is met."""
        return "" if self.most is None else "yes" if self.measured <= self.most else "NO"


def show(bars: Sequence[Bar]) -> None:
    """Print the rows, or leave them for the one who prints those of all benchmarks."""
    together = os.environ.get(FILE)
    if together:
        with Path(together).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(b)) + "\n" for b in bars)
    elif bars:
        print(table(bars))


def read(path: Path) -> list[Bar]:
    """The rows that benchmarks left."""
    return [Bar(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def table(bars: Sequence[Bar]) -> str:
    """All rows, aligned."""
    head = ("", "asked", "measured", "met")
    rows = [
        (b.what, "" if b.most is None else _number(b.most, b.unit), _number(b.measured, b.unit), b.verdict)
        for b in bars
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(4)]
    lines = []
    for what, asked, measured, met in (head, *rows):
        line = f"  {what:{widths[0]}}  {asked:>{widths[1]}}  {measured:>{widths[2]}}  {met}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _number(value: float, unit: str) -> str:
    digits = 0 if value >= 100 or unit in {"lines", "MB"} else 2
    return f"{value:,.{digits}f} {unit}".rstrip()
