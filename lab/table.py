"""The table of results, for people. The words carry the meaning; colour only repeats it.

Knows rich. Must not know how results come about.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from k8snetc.lab.outcome import Row

_MOST_NAMES = 3
_WIDE = 240
_STYLES = {"answered": "green", "refused": "yellow", "timeout": "yellow"}


def print_rows(rows: Sequence[Row]) -> None:
    """Print to standard output: as wide as the terminal, or as the content where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDE
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("SERVICE", "TARGET", "FROM", "OUTCOME", "BY", "SEES"):
        table.add_column(title, overflow="fold")
    last = ("", "")
    for row in rows:
        name, target = ("", "") if (row.service, row.target) == last else (row.service, row.target)
        last = (row.service, row.target)
        table.add_row(
            Text(name),
            Text(target),
            Text(_names(row.clients)),
            _outcome(row),
            Text(row.endpoints),
            Text(row.source),
        )
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        console.out(line.rstrip(), highlight=False)


def _names(clients: Sequence[str]) -> str:
    if len(clients) <= _MOST_NAMES:
        return ", ".join(clients)
    return f"{', '.join(clients[: _MOST_NAMES - 1])} and {len(clients) - _MOST_NAMES + 1} more"


def _outcome(row: Row) -> Text:
    if row.expected:
        return Text(f"{row.outcome}  DIFFERS: expected {row.expected}", "bold red")
    return Text(row.outcome, _STYLES.get(row.outcome, ""))
