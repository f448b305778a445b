"""The harness that runs the documents' console sessions finds what is wrong with them."""

from pathlib import Path

import pytest

from tests.support import console


def written(folder: Path, body: str, words: str = "") -> Path:
    path = folder / "x.md"
    path.write_text(f"# Title\n\n```console{words}\n{body}```\n\ntext\n")
    return path


def test_commands_outputs_and_exit_status(tmp_path: Path) -> None:
    path = written(tmp_path, "$ echo a \\\n> b\na b\n\n$ false\n[exit 1]\n")
    (session,) = console.sessions(path)
    assert session.commands == (
        console.Command(4, "echo a \\\nb", ("a b",), 0),
        console.Command(8, "false", (), 1),
    )
    assert [console.run(c, tmp_path) for c in session.commands] == [(("a b",), 0), ((), 1)]


def test_other_blocks_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.md"
    path.write_text("```sh\n$ rm -rf /\n```\n\n    $ indented\n")
    assert list(console.sessions(path)) == []


def test_root_is_marked(tmp_path: Path) -> None:
    assert [s.needs_root for s in console.sessions(written(tmp_path, "$ true\n", " root"))] == [True]


@pytest.mark.parametrize(("body", "words"), [("", ""), ("output\n", ""), ("$ true\n", " skip")])
def test_a_block_that_can_not_be_run_is_an_error(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(console.MalformedSessionError, match=r"x\.md:\d+: "):
        list(console.sessions(written(tmp_path, body, words)))


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "a\nb", False),
        ("a", "", False),
        ("", "a", False),
        ("a...c", "abbc", True),
        ("a...c", "ab\nc", False),
        ("...\nb", "a\na\nb", True),
        ("a\n...\nz", "a\nz", True),
        ("a\n...\nz", "a\nb\ny", False),
        ("a.c", "abc", False),
    ],
)
def test_matching(expected: str, actual: str, same: bool) -> None:
    assert console.matches(tuple(expected.splitlines()), tuple(actual.splitlines())) is same


def test_stderr_is_shown_and_stdin_is_closed(tmp_path: Path) -> None:
    command = console.Command(1, "cat; echo out; echo err >&2; exit 3", (), 0)
    assert console.run(command, tmp_path) == (("out", "err"), 3)


def test_rewriting_changes_only_the_output(tmp_path: Path) -> None:
    path = written(tmp_path, "$ echo new\nold\nolder\n\n$ exit 2\n\n$ echo same\nsame\n")
    for number in range(3):
        command = [c for s in console.sessions(path) for c in s.commands][number]
        console.rewrite(command, path, *console.run(command, tmp_path))
    assert path.read_text() == (
        "# Title\n\n```console\n$ echo new\nnew\n\n$ exit 2\n[exit 2]\n\n$ echo same\nsame\n```\n\ntext\n"
    )


def test_rewriting_does_not_fill_in_what_was_left_out(tmp_path: Path) -> None:
    (session,) = console.sessions(written(tmp_path, "$ echo a\n...b\n"))
    with pytest.raises(ValueError, match="by hand"):
        console.rewrite(session.commands[0], session.path, ("a",), 0)
