"""Where the process begins: what must hold before anything else is imported.

Knows: signals and standard streams. Must not know: the command line, which it imports last, because that takes time
in which somebody may press Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command line and exit. Interrupted while it is still being imported, the process ends without a word."""
    handler = signal.getsignal(signal.SIGINT)
    patient = handler is signal.default_int_handler  # else it is ignored (nohup, a shell's background job)
    if patient:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_missing_streams()
    # Whatever is installed beside us has no business in a process that root runs; looking for it also takes time.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from k8snetc.compiler.cli import run

    if patient:
        signal.signal(signal.SIGINT, handler)
    code = run()
    if patient:
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # nothing is left to undo, so no traceback at exit either
    sys.exit(code)


def _open_missing_streams() -> None:
    """A closed standard stream (`<&-`) becomes an empty one: else the next file opened would take its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the process ends
            setattr(sys, name, stream)
