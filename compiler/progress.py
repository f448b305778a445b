"""What a command is doing, on one line of the terminal that is written over and at last taken away.

Knows: the terminal. Must not know: what the steps are. In a pipe, or where nothing takes long, it shows nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threading import Timer

PATIENCE = 0.7  # seconds before anything is shown
_ERASE = "\r\x1b[K"


class Progress:
    """The line on stderr; `quiet`: none. With a `patience` of 0 it is there at once (and there is no thread)."""

    def __init__(self, *, quiet: bool = False, patience: float = PATIENCE) -> None:
        self._able = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._patience = patience
        self._text = ""
        self._visible = False

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While inside, what takes long is shown."""
        timer = self._timer() if self._able else None
        try:
            yield
        finally:
            self._able = False
            if timer is not None:
                timer.cancel()
                timer.join()
            if self._visible:
                sys.stderr.write(_ERASE)
                sys.stderr.flush()

    def step(self, text: str) -> None:
        """Something new began."""
        self._text = text
        if self._able and self._visible:
            self._draw()

    def _timer(self) -> Timer | None:
        if self._patience <= 0:
            self._visible = True
            return None
        import threading

        timer = threading.Timer(self._patience, self._appear)
        timer.daemon = True
        timer.start()
        return timer

    def _appear(self) -> None:
        if self._able:
            self._visible = True
            self._draw()

    def _draw(self) -> None:
        if not self._text:
            return
        import shutil

        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(_ERASE + f"k8snetc: {self._text} ..."[:width])
        sys.stderr.flush()
