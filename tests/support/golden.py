"""Golden files: what is produced now must equal, byte for byte, what is committed.

`make golden` (K8SNETC_UPDATE_GOLDEN=1) rewrites them instead; continuous integration never may.
"""

import difflib
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

UPDATE = "K8SNETC_UPDATE_GOLDEN" in os.environ
MAX_DIFF_LINES = 200


def check_file(expected: Path, actual: str) -> None:
    """Compare `actual` with the file `expected`, or write the file when golden files are being rewritten."""
    if UPDATE:
        expected.parent.mkdir(parents=True, exist_ok=True)
        expected.write_bytes(actual.encode())
        return
    if not expected.is_file():
        raise AssertionError(f"{expected} does not exist: review and commit what `make golden` writes")
    committed = expected.read_bytes()
    if committed != actual.encode():
        check_text(
            str(expected), committed.decode(errors="backslashreplace").splitlines(), actual.splitlines()
        )
        raise AssertionError(f"{expected}: differs in line ends only")


def check_folder(expected: Path, actual: Mapping[str, str]) -> None:
    """Compare a folder with the files it must hold, by name; a file too many is as wrong as one too few."""
    there = {p.relative_to(expected).as_posix() for p in expected.rglob("*") if p.is_file()}
    for name in sorted(there - actual.keys()):
        if not UPDATE:
            raise AssertionError(f"{expected / name} is no longer produced: `make golden` removes it")
        (expected / name).unlink()
    for name, text in sorted(actual.items()):
        check_file(expected / name, text)


def check_text(title: str, committed: Sequence[str], actual: Sequence[str]) -> None:
    """Fail with a diff when two lists of lines differ."""
    lines = difflib.unified_diff(committed, actual, f"{title} (committed)", f"{title} (now)", lineterm="")
    shown = list(itertools.islice(lines, MAX_DIFF_LINES))
    if shown:
        more = ["... (more)"] if len(shown) == MAX_DIFF_LINES else []
        raise AssertionError(
            "\n".join([*shown, *more, "if this change is meant: make golden, review, commit"])
        )
