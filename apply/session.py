"""What commands on a node have in common: the state directory open, the target at hand, and what is said meanwhile.

Knows: the terminal. Must not know: the order of an apply (`transaction`), or any back end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import click

from k8snetc.apply import journal, receipts
from k8snetc.apply.options import OnNode
from k8snetc.apply.plan import Plan, live_plan
from k8snetc.apply.receipts import Receipt
from k8snetc.apply.store import Store, open_store
from k8snetc.apply.transaction import before_first
from k8snetc.backends.target import Step, Target
from k8snetc.ir.types import Address, Program


def colourful() -> bool:
    """Whether standard output is a terminal that shows colour (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Progress:
    """A line that is written over, on a terminal only; notes stay."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._shown = not quiet and sys.stderr.isatty()

    def began(self, at: int, total: int, step: Step) -> None:
        """Show the step that runs."""
        if self._shown:
            width = max(20, _columns() - 1)
            click.echo(f"\r\x1b[K[{at + 1}/{total}] {step.title}"[: width + 4], err=True, nl=False)

    def ended(self, at: int, total: int, step: Step) -> None:
        """Take the line away after the last step."""
        if self._shown and at + 1 == total:
            click.echo("\r\x1b[K", err=True, nl=False)

    def note(self, text: str) -> None:
        """Say something that matters also when quiet."""
        click.echo(f"{chr(13)}\x1b[Kk8snetc: {text}" if self._shown else f"k8snetc: {text}", err=True)


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns


@dataclass(frozen=True, slots=True)
class Session:
    """A node as a command sees it."""

    node: OnNode
    target: Target[object]
    store: Store

    def installed(self) -> tuple[Receipt, Program] | None:
        """What was installed last by this back end, with its program."""
        now = receipts.newest(self.store)
        if now is None or now.backend != self.target.name:
            return None
        return now, receipts.program_of(self.store, now.number)

    def interrupted(self) -> str:
        """What was killed half way and isn't undone yet, "" if nothing."""
        left = journal.pending(self.store)
        return left.what if left is not None else ""

    def plan(self, program: Program, names: dict[Address, str], new: str) -> Plan:
        """From what is live to `program`."""
        live = self.target.observe()
        installed = self.installed()
        return live_plan(
            self.target,
            program,
            live=live,
            before=before_first(self.target, self.store) or live,
            installed=installed[1] if installed is not None else None,
            expected=installed[0].state if installed is not None else "",
            names=names,
            new=new,
        )


@contextmanager
def session(node: OnNode) -> Iterator[Session]:
    """Open the state directory for a command. Raises `ApplyError`."""
    target = node.target()
    store = open_store(node.state_dir)
    try:
        yield Session(node, target, store)
    finally:
        store.close()
        with suppress(OSError):  # looking at a node that has nothing leaves nothing
            store.path.rmdir()
