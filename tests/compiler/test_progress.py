"""On a terminal, what takes long is shown and taken away; elsewhere nothing is written."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time

SLOW = """
import time
from k8snetc.compiler.progress import Progress
progress = Progress(patience={patience})
with progress.shown():
    progress.step("load")
    time.sleep({wait})
    progress.step("lower")
print("done")
"""


def on_terminal(patience: float, wait: float) -> str:
    """What a program with two steps, the first of which takes `wait` seconds, writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", SLOW.format(patience=patience, wait=wait)],
        stderr=theirs,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm"},
    ):
        os.close(theirs)
        said = b""
        try:
            while data := os.read(ours, 1000):
                said += data
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    return said.decode()


def test_long_work_is_shown_and_taken_away() -> None:
    said = on_terminal(patience=0.05, wait=1.0)
    assert "k8snetc: load ..." in said
    assert "k8snetc: lower ..." in said
    assert said.endswith("\r\x1b[K")


def test_at_once_where_it_is_known_to_take_long() -> None:
    assert "k8snetc: lower ..." in on_terminal(patience=0, wait=0)


def test_short_work_shows_nothing() -> None:
    assert on_terminal(patience=30, wait=0) == ""


def test_a_pipe_gets_nothing() -> None:
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SLOW.format(patience=0.01, wait=0.3)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert time.monotonic() - begin > 0.3, "it had the time to show something"
    assert done.stderr == ""
