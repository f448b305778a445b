"""Artifacts to stdout, to a folder, and against a golden folder.

Knows: how texts are laid out and compared. Must not know: what is in them.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from k8snetc.backends.base import Artifact


def stream(artifacts: Sequence[Artifact]) -> str:
    """One artifact as it is; several one after the other, each after a line that names it."""
    if len(artifacts) == 1:
        return artifacts[0].text
    return "".join(f"# ---- {a.name} ----\n{a.text}" for a in artifacts)


ASSUMED = "Addresses are assumed (--assume-addresses): for review, not for a node."


def marked_assumed(artifacts: Sequence[Artifact]) -> tuple[Artifact, ...]:
    """The artifacts, each with a first line that says that its addresses are made up.

    The line is a comment where the format has any; elsewhere it keeps the file from being loaded.
    """
    return tuple(
        Artifact(a.name, f"{'//' if a.name.endswith(('.c', '.h')) else '#'} {ASSUMED}\n{a.text}")
        for a in artifacts
    )


def write(folder: Path, artifacts: Sequence[Artifact], binaries: Mapping[str, bytes] | None = None) -> None:
    """Write each artifact, and binaries by name, to `folder`, which is made. A file is replaced at once or not at all.

    All are written beside their places first, so that a full disk leaves the old files. Raises `OSError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[tuple[str, Path]] = []
    try:
        contents = {a.name: a.text.encode() for a in artifacts} | dict(binaries or {})
        for name, content in contents.items():
            handle, temporary = tempfile.mkstemp(prefix=".k8snetc-", dir=folder)
            written.append((temporary, folder / name))
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), 0o666 & ~_umask())
        for temporary, place in written:
            os.replace(temporary, place)
    finally:
        for temporary, _ in written:
            Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def differences(folder: Path, artifacts: Sequence[Artifact]) -> Iterator[str]:
    """Unified diffs, golden file to artifact; a file on one side only differs from an empty one.

    Hidden files and folders in `folder` are not looked at. Raises `OSError` if `folder` can't be read.
    """
    golden = {p.name: p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")}
    texts = {a.name: a.text for a in artifacts}
    for name in sorted(golden.keys() | texts.keys()):
        before = golden[name].read_text(encoding="utf-8") if name in golden else ""
        after = texts.get(name, "")
        if before != after or (name in golden) != (name in texts):
            old = f"{folder.name}/{name}" if name in golden else os.devnull
            new = name if name in texts else os.devnull
            yield "".join(_diff(before, after, old, new))


def _diff(before: str, after: str, old: str, new: str) -> Iterator[str]:
    head = f"--- {old}\n+++ {new}\n"
    lines = list(difflib.unified_diff(before.splitlines(True), after.splitlines(True), old, new))
    yield from lines or [head]
