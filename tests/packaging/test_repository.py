"""What is committed stands for itself: it names no machine's folders and no package host."""

import os
import re
import tomllib
from pathlib import Path

from tests.support.repository import ROOT, files

LOCKS = ("requirements.lock", "requirements-dev.lock")


def texts() -> dict[Path, str]:
    found = {}
    for path in files():
        try:
            found[path] = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
    return found


def test_no_file_names_the_folder_it_was_written_in() -> None:
    """Not the checkout, nor a folder beside it (a parent that is common to all machines says nothing)."""
    common = {
        Path("/"),
        Path("/tmp"),
        Path("/root"),
        Path("/home"),
        Path("/srv"),
        Path("/opt"),
        Path("/builds"),
    }
    here = [p for p in (ROOT, ROOT.parent) if p not in common]
    pattern = re.compile("|".join(rf"(?<![\w.-]){re.escape(str(p))}(?:/|\b)" for p in here))
    named = [f"{path}: {m.group()}" for path, text in texts().items() for m in pattern.finditer(text)]
    assert not named


def test_no_file_names_a_package_host() -> None:
    """Where packages come from is the business of whoever installs them (pip.conf, sources.list)."""
    # In pieces, so that this file does not name one.
    hosts = ("pypi" + ".org", "python" + "hosted.org", "deb." + "debian.org", "snapshot." + "debian.org")
    flags = ("--index" + "-url", "--extra-index" + "-url", "--find" + "-links", "--trusted" + "-host")
    allowed = {Path("scripts/lock")}  # names the flags that keep addresses out of the lock files
    named = [
        f"{path}: {word}"
        for path, text in texts().items()
        for word in (*hosts, *flags)
        if word in text and path not in allowed
    ]
    assert not named


def test_lock_files_are_pinned_hashed_and_without_addresses() -> None:
    for name in LOCKS:
        text = (ROOT / name).read_text()
        assert "://" not in text
        pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert pins
        for pin in pins:
            assert re.fullmatch(r"[a-z0-9._-]+==[^ ]+( ; [^\\]+)? \\", pin), f"{name}: {pin}"
        assert len(pins) == len(re.findall(r"^[^ #].*\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE))


def test_lock_files_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    def pinned(name: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / name).read_text(), re.MULTILINE))

    def asked(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=!~;\[ ]", r, maxsplit=1)[0].lower().replace("_", "-") for r in requirements}

    runtime = asked(project["project"]["dependencies"])
    assert runtime <= pinned("requirements.lock"), "run: make lock"
    assert runtime | asked(project["dependency-groups"]["dev"]) <= pinned("requirements-dev.lock"), (
        "run: make lock"
    )
    assert pinned("requirements.lock") <= pinned("requirements-dev.lock")


def test_the_namespace_has_no_folder_of_its_own() -> None:
    """A folder `k8snetc/` at the top would hide the installed packages."""
    assert not (ROOT / "k8snetc").exists()


def test_scripts_are_executable() -> None:
    for path in files():
        if (ROOT / path).read_bytes()[:2] == b"#!":
            assert os.access(ROOT / path, os.X_OK), path


def test_the_version_stands_in_one_place() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    sources = [p for p, text in texts().items() if p.suffix == ".py" and f'"{version}"' in text]
    assert not sources, "read the version with importlib.metadata"


def test_the_index_lists_every_decision() -> None:
    folder = Path("docs", "decisions")
    pages = sorted(p.name for p in files() if p.parent == folder and p.name != "README.md")
    listed = re.findall(
        r"^\| \[(\d{4})\]\((\d{4}-[\w-]+\.md)\) \| ", (ROOT / folder / "README.md").read_text(), re.MULTILINE
    )
    assert sorted(name for _, name in listed) == pages, "each once"
    assert all(name.startswith(f"{number}-") for number, name in listed)
    numbers = [number for number, _ in listed]
    assert len(set(numbers)) == len(numbers)


def test_decisions_that_are_cited_exist() -> None:
    pages = {p.name[:4] for p in files() if p.parent == Path("docs", "decisions")}
    cited = {
        (str(path), number)
        for path, text in texts().items()
        for number in re.findall(r"decisions/(\d{4})", text)
    }
    assert not [(path, number) for path, number in sorted(cited) if number not in pages]
