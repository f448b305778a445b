"""The command `monitor`: packets that policy denies, while they are denied.

Knows: its options and output. Must not know: where the packets are told of (`backends.watch`), nor change anything.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click

from k8snetc.apply import receipts
from k8snetc.apply.denied import Teller
from k8snetc.apply.errors import ApplyError
from k8snetc.apply.options import STATE_DIR
from k8snetc.apply.render import clean
from k8snetc.apply.signals import Stop, deferred
from k8snetc.apply.store import Store, open_store
from k8snetc.backends.watch import DeniedPacket, Watcher, watcher_for

_PATIENCE = 0.5  # seconds between two looks at the clock and at what was missed


@click.command("monitor")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How it is printed; json is one object a line.",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N packets.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="End after S seconds.")
@click.option(
    "--rate",
    type=click.IntRange(10, 100_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="Packets a second that are told at most; how many more there were is said.",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=STATE_DIR,
    show_default=True,
    metavar="DIR",
    help="Where the receipts are kept.",
)
def monitor_command(
    *, form: str, count: int | None, seconds: float | None, rate: int, state_dir: Path
) -> int:
    """Show packets that policy denies: when, from whom to whom, and which policies did not let them pass.

    For what the ebpf back end installed. Ends with Ctrl-C. Nothing is changed; one monitor at a time.

    \b
    Exit codes: 0 ended as asked, 2 and above errors.
    """
    if os.geteuid() != 0:
        raise ApplyError("monitor reads tables of the kernel: run it as root")
    store = open_store(state_dir)
    try:
        now = receipts.newest(store)
        if now is None:
            raise ApplyError("nothing is installed here by k8snetc; apply manifests first")
        watcher = watcher_for(now.backend, rate)
        if watcher is None:
            raise ApplyError(f"{now.backend} runs here, and only the ebpf back end tells of single packets")
        with deferred() as stop, watcher:
            _Monitor(store, watcher, form).run(stop, count, seconds)
    finally:
        store.close()
    return 0


class _Monitor:
    """Prints what a watcher tells, in the words of the program that runs now."""

    def __init__(self, store: Store, watcher: Watcher, form: str) -> None:
        self._store = store
        self._watcher = watcher
        self._form = form
        self._receipt = -1
        self._missed = 0
        self._teller = self._learn()

    def run(self, stop: Stop, count: int | None, seconds: float | None) -> None:
        """Until somebody asks to stop, so many packets are told, or so much time has passed."""
        until = None if seconds is None else time.monotonic() + seconds
        told = 0
        click.echo("k8snetc: watching; Ctrl-C ends it", err=True)
        while not stop and (count is None or told < count):
            left = _PATIENCE if until is None else min(_PATIENCE, until - time.monotonic())
            if left <= 0:
                break
            for packet in self._watcher.poll(left):
                if count is None or told < count:
                    self._print(packet)
                    told += 1
            self._mention_missed()

    def _learn(self) -> Teller:
        """The program of the newest receipt."""
        now = receipts.newest(self._store)
        if now is None:
            raise ApplyError("the ebpf back end was removed from this node meanwhile")
        if now.number != self._receipt:
            self._receipt = now.number
            program = receipts.program_of(self._store, now.number)
            self._watcher.know(e.name for e in program.enforcements)
            self._teller = Teller(program, receipts.pods_of(self._store, now.number) or {})
        return self._teller

    def _print(self, packet: DeniedPacket) -> None:
        if not self._watcher.name(packet):  # another program may run since
            self._learn()
        told = self._teller.tell(packet, self._watcher.name(packet))
        click.echo(json.dumps(told.document()) if self._form == "json" else clean(told.text()))

    def _mention_missed(self) -> None:
        missed = self._watcher.missed()
        if missed > self._missed:
            more, self._missed = missed - self._missed, missed
            if self._form == "json":
                click.echo(json.dumps({"format_version": 1, "missed": more}))
            else:
                click.echo(f"k8snetc: {more:,} more packets were denied; --rate shows more", err=True)
