"""What commands on a node have in common: the state directory open, the target at hand, and what is said meanwhile.

Knows: the terminal. Must not know: the order of an apply (`transaction`), or any back end.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import click

from k8snetc.apply import journal, receipts
from k8snetc.apply.connectivity import Names
from k8snetc.apply.errors import StateError
from k8snetc.apply.options import OnNode
from k8snetc.apply.plan import Plan, live_plan
from k8snetc.apply.receipts import Receipt
from k8snetc.apply.render import clean
from k8snetc.apply.store import Store, open_store
from k8snetc.apply.transaction import base_of_next, before_first, installed
from k8snetc.backends.target import Step, Target
from k8snetc.ir.types import Program


def colourful() -> bool:
    """Whether standard output is a terminal that shows colour (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Progress:
    """A line that is written over, on a terminal only; notes stay.

    A terminal that is gone (the connection broke, or `| head` had enough) stops nobody: least of all putting back.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._shown = not quiet and sys.stderr.isatty()

    def began(self, at: int, total: int, step: Step) -> None:
        """Show the step that runs."""
        if not self._shown:
            return
        with suppress(OSError):
            width = max(20, _columns() - 1)
            click.echo(f"\r\x1b[K[{at + 1}/{total}] {step.title}"[: width + 4], err=True, nl=False)

    def ended(self, at: int, total: int, step: Step) -> None:
        """Take the line away after the last step."""
        if not self._shown or at + 1 != total:
            return
        with suppress(OSError):
            click.echo("\r\x1b[K", err=True, nl=False)

    def note(self, text: str) -> None:
        """Say something that matters also when quiet."""
        with suppress(OSError):
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

    def known(self) -> tuple[Receipt, Program | None] | None:
        """The same, with None for a program that can't be read. Raises `ApplyError` if it is another back end's."""
        now = installed(self.target, self.store)
        if now is None:
            return None
        try:
            return now, receipts.program_of(self.store, now.number)
        except StateError:
            return now, None

    def interrupted(self) -> str:
        """What was killed half way and isn't undone yet, "" if nothing."""
        left = journal.pending(self.store)
        return left.what if left is not None and self.store.holder() is None else ""

    def mention(self, then: str) -> None:
        """Say if a change was killed half way, and what `then` becomes of it; or that one is running."""
        holder = self.store.holder()
        left = self.interrupted()
        if holder is not None:
            who = f" (process {holder})" if holder else ""
            click.echo(f"k8snetc: another k8snetc{who} is changing this node right now", err=True)
        elif left:
            click.echo(f"k8snetc: an interrupted {clean(left)} {then}", err=True)

    def pods(self, receipt: Receipt) -> Names | None:
        """The pods of the manifests that a receipt is about, None if that is not known."""
        return receipts.pods_of(self.store, receipt.number)

    def plan(self, program: Program, names: Names | None, new: str, *, as_is: bool = False) -> Plan:
        """From what the next change starts from, or `as_is` from what is live, to `program`.

        That differs where a change was killed half way. Raises `ApplyError` if another back end is installed here.
        """
        known = self.known()
        live = self.target.observe() if as_is else base_of_next(self.target, self.store)
        return live_plan(
            self.target,
            program,
            live=live,
            before=before_first(self.target, self.store) or live,
            installed=known[1] if known is not None else None,
            expected=known[0].state if known is not None else "",
            names=names,
            was_names=self.pods(known[0]) if known is not None else None,
            new=new,
        )


@contextmanager
def session(node: OnNode) -> Iterator[Session]:
    """Open the state directory for a command. Raises `ApplyError`."""
    target = node.target()
    store = open_store(node.state_dir)
    collects = gc.isenabled()
    gc.disable()  # states are large, hold no cycles and are needed until the end: looking through them takes a third
    try:
        yield Session(node, target, store)
    finally:
        if collects:
            gc.enable()
        store.close()
        with suppress(OSError):  # looking at a node that has nothing leaves nothing
            store.path.rmdir()
