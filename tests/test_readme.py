"""What the documents show in a console is what happens: every `console` block is run and compared."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support import console, golden
from tests.support.repository import ROOT, files

DOCUMENTS = [
    p for p in files() if p.suffix == ".md" and (p.parts[0] in {"docs", "examples"} or p == Path("README.md"))
]


def with_sessions() -> list[object]:
    """One test per document that has sessions; marked `kernel` when one of them needs root."""
    found: list[object] = []
    for path in DOCUMENTS:
        blocks = tuple(console.sessions(ROOT / path))
        marks = [pytest.mark.kernel] if any(b.needs_root for b in blocks) else []
        if blocks:
            found.append(pytest.param(path, id=path.as_posix(), marks=marks))
    return found


@pytest.mark.parametrize("document", with_sessions())
def test_golden_console_sessions(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{ROOT}/.venv/bin{os.pathsep}{os.environ['PATH']}")
    # A document's commands stand at the top of the checkout; what they write stays out of it.
    if (ROOT / "examples").is_dir():
        shutil.copytree(ROOT / "examples", tmp_path / "examples")
    if document.parts[0] == "examples" and document.parent != Path("examples"):
        tmp_path = tmp_path / document.parent  # an example's own README speaks from its folder
    # Again and again from the file: a rewritten output moves the commands below it.
    done = 0
    while commands := [c for s in console.sessions(ROOT / document) for c in s.commands][done:]:
        command = commands[0]
        output, status = console.run(command, tmp_path)
        if status != command.status or not console.matches(command.output, output):
            if golden.UPDATE:
                console.rewrite(command, ROOT / document, output, status)
            else:
                golden.check_text(
                    f"{document}:{command.line}: $ {command.text}",
                    [*command.output, f"[exit {command.status}]"],
                    [*output, f"[exit {status}]"],
                )
        done += 1


def test_the_readme_shows_a_session() -> None:
    assert any(console.sessions(ROOT / "README.md"))
