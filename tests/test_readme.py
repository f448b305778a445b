"""What the documents show in a console is what happens: every `console` block is run and compared."""

import os
import re
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


LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


@pytest.mark.parametrize("document", [p for p in files() if p.suffix == ".md"], ids=str)
def test_links_within_the_repository_lead_somewhere(document: Path) -> None:
    targets = [t for t in LINK.findall((ROOT / document).read_text()) if "://" not in t]
    dead = [t for t in targets if not (ROOT / document.parent / t).exists()]
    assert not dead


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "docs/decisions/README.md").read_text()
    pages = [p.name for p in files() if p.parent == Path("docs/decisions") and p.name != "README.md"]
    assert [name for name in pages if f"]({name})" not in index] == []
    numbers = [name[:4] for name in pages]
    assert len(numbers) == len(set(numbers)), "two decisions have one number"
