"""Run a program of the system without a shell: the one seam between k8snetc and other programs.

Knows: argument lists, standard input, exit codes. Must not know: what any program does.

A child gets its own process group, so that Ctrl-C reaches k8snetc and not the child: what was begun is ended, and
k8snetc decides what follows. A child inherits the lock that its parent holds (`holding`), so that a child that outlives
a killed parent keeps the next `apply` waiting until it is done.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_held: ContextVar[tuple[int, ...]] = ContextVar("held", default=())

TIMEOUT = 120.0
"""Seconds after which a child is killed: far more than the largest restore takes, less than for ever."""


class CommandError(Exception):
    """A program failed, is missing, or took too long. `output` is what it said on standard error."""

    def __init__(self, argv: Sequence[str], code: int | None, output: str) -> None:
        self.argv = tuple(argv)
        self.code = code
        self.output = output.strip()
        how = "could not be run" if code is None else f"failed with exit code {code}"
        super().__init__(f"`{' '.join(argv)}` {how}: {self.output or 'it said nothing'}")


@contextmanager
def holding(descriptor: int) -> Iterator[None]:
    """Children that are started inside inherit this file descriptor (a lock's)."""
    token = _held.set((*_held.get(), descriptor))
    try:
        yield
    finally:
        _held.reset(token)


def run(argv: Sequence[str], stdin: str = "", timeout: float = TIMEOUT, *, quiet: bool = False) -> str:
    """Run to the end and return standard output. Raises `CommandError` for everything but exit code 0.

    `quiet`: for a program whose exit code tells only of its last line; what it says on standard error is a failure.
    """
    done = _run(argv, stdin.encode("utf-8", "surrogateescape"), timeout, quiet=quiet)
    return done.decode("utf-8", "surrogateescape")


def run_bytes(argv: Sequence[str], stdin: bytes = b"", timeout: float = TIMEOUT) -> bytes:
    """As `run`, for input and output that are no text."""
    return _run(argv, stdin, timeout)


def _run(argv: Sequence[str], stdin: bytes, timeout: float, *, quiet: bool = False) -> bytes:
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
            pass_fds=_held.get(),
            process_group=0,
        )
    except FileNotFoundError as e:
        raise CommandError(argv, None, f"{argv[0]} is not installed") from e
    except subprocess.TimeoutExpired as e:
        raise CommandError(argv, None, f"no end after {timeout:g} seconds") from e
    except OSError as e:
        raise CommandError(argv, None, str(e)) from e
    if done.returncode or (quiet and done.stderr.strip()):
        raise CommandError(argv, done.returncode, done.stderr.decode("utf-8", "replace"))
    return done.stdout
