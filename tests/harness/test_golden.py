"""The comparison with golden files fails where it must, and rewrites only when told."""

from pathlib import Path

import pytest

from tests.support import golden


@pytest.fixture(autouse=True)
def comparing(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about comparing, also while other golden files are rewritten."""
    monkeypatch.setattr(golden, "UPDATE", False)


def test_equal_passes_and_different_fails_with_a_diff(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    golden.check_file(path, "one\ntwo\n")
    with pytest.raises(AssertionError, match=r"(?s)-two\n\+2\n.*make golden"):
        golden.check_file(path, "one\n2\n")


@pytest.mark.parametrize("actual", ["one\n", "one\r\ntwo\n", "one\ntwo", "one\ntwo\n\n"])
def test_every_byte_counts(tmp_path: Path, actual: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    with pytest.raises(AssertionError):
        golden.check_file(path, actual)


def test_a_missing_file_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="does not exist"):
        golden.check_file(tmp_path / "none", "")


def test_a_folder_holds_exactly_the_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    golden.check_folder(tmp_path, {"a": "1"})
    with pytest.raises(AssertionError, match="no longer produced"):
        golden.check_folder(tmp_path, {})
    with pytest.raises(AssertionError, match="does not exist"):
        golden.check_folder(tmp_path, {"a": "1", "sub/b": "2"})


def test_updating_writes_and_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "UPDATE", True)
    (tmp_path / "old").write_text("1")
    golden.check_folder(tmp_path, {"sub/b": "2\r\n"})
    assert not (tmp_path / "old").exists()
    assert (tmp_path / "sub/b").read_bytes() == b"2\r\n"
