"""Ctrl-C in the middle of a change: finish the step, then decide. Knows signals; must not know what is changed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKED_TO_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Whether somebody asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def deferred() -> Iterator[Stop]:
    """Inside, the signals that ask a process to stop only set the flag. Outside the main thread nothing changes."""
    stop = Stop()

    def note(number: int, _frame: FrameType | None) -> None:
        stop.signal = signal.Signals(number)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    old = {s: signal.signal(s, note) for s in ASKED_TO_STOP}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
