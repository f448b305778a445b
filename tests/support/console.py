"""Console sessions in Markdown: commands with the output they must have.

    ```console
    $ k8snetc --version
    k8snetc ...
    ```

Knows how to find, run and compare them. A line that starts with `$ ` is a command for bash, `> ` continues it, and what
follows is its output (stdout and stderr as a terminal shows them). `...` stands for any text within a line, and alone
on a line for any number of lines. `[exit 1]` as the last line states an exit status; without it the command must
succeed. All sessions of one file share a working folder. The word `root` after `console` marks a session that needs
root and the kernel.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_EXIT = re.compile(r"\[exit (\d+)\]")


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a session, with the output that the document shows."""

    line: int
    """Where the command starts in its file; the first line is 1."""
    text: str
    output: tuple[str, ...]
    status: int


@dataclass(frozen=True, slots=True)
class Session:
    """A fenced `console` block."""

    path: Path
    line: int
    needs_root: bool
    commands: tuple[Command, ...]


class MalformedSessionError(ValueError):
    """A block that says `console` and can not be run as one."""


def sessions(path: Path) -> Iterator[Session]:
    """Find the console sessions of a Markdown file.

    Raises:
        MalformedSessionError: a block that is not closed, empty, or starts with output; a word after `console` that
            means nothing.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        words = lines[number].strip().split()
        start = number + 1
        number += 1
        if not words or not words[0].startswith("```"):
            continue
        body = []
        while number < len(lines) and lines[number].strip() != "```":
            body.append(lines[number])
            number += 1
        if number == len(lines):
            raise MalformedSessionError(f"{path}:{start}: the block is not closed")
        number += 1
        if words[0] == "```console":
            if words[1:] not in ([], ["root"]):
                raise MalformedSessionError(
                    f"{path}:{start}: {' '.join(words[1:])!r}: only `root` may follow"
                )
            yield Session(path, start, words[1:] == ["root"], tuple(_commands(path, start + 1, body)))


def _commands(path: Path, first: int, body: list[str]) -> Iterator[Command]:
    if not body or not body[0].startswith("$ "):
        raise MalformedSessionError(f"{path}:{first}: a session starts with `$ ` and a command")
    starts = [i for i, line in enumerate(body) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(body)], strict=True):
        rest = body[start + 1 : end]
        text = [body[start][2:]]
        while rest and rest[0].startswith("> "):
            text.append(rest.pop(0)[2:])
        while rest and not rest[-1]:
            rest.pop()
        stated = _EXIT.fullmatch(rest[-1]) if rest else None
        if stated:
            rest.pop()
        yield Command(first + start, "\n".join(text), tuple(rest), int(stated[1]) if stated else 0)


def matches(expected: tuple[str, ...], actual: tuple[str, ...]) -> bool:
    """Whether output is what a document shows, with `...` for what it leaves out."""
    parts = [
        r"(?:.*\n)*?" if line == "..." else "[^\n]*?".join(map(re.escape, line.split("..."))) + r"\n"
        for line in expected
    ]
    return re.fullmatch("".join(parts), "".join(f"{line}\n" for line in actual)) is not None


def run(command: Command, folder: Path, timeout: float = 240) -> tuple[tuple[str, ...], int]:
    """Run a command as a user would in `folder`; give its output, without trailing blank lines, and its status."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.text],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        timeout=timeout,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "COLUMNS": "100",
            "NO_COLOR": "1",
        },
    )
    lines = [line.rstrip() for line in done.stdout.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines), done.returncode


def rewrite(command: Command, path: Path, output: tuple[str, ...], status: int) -> None:
    """Put what a command printed now in place of what its document shows.

    Raises:
        ValueError: the shown output leaves something out with `...`: a person has to decide what.
    """
    if any("..." in line for line in command.output):
        raise ValueError(f"{path}:{command.line}: the shown output has `...`: correct it by hand")
    lines = path.read_text(encoding="utf-8").split("\n")
    start = command.line + command.text.count("\n")
    end = start
    while not lines[end].startswith("$ ") and lines[end].strip() != "```":
        end += 1
    new = [*output, *([f"[exit {status}]"] if status else [])]
    blank = [""] if end > start and lines[end].startswith("$ ") and not lines[end - 1] else []
    lines[start:end] = [*new, *blank]
    path.write_text("\n".join(lines), encoding="utf-8")
