"""Which files are read, how Lists open, and on which line everything stands."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from k8snetc.compiler.document import Document
from k8snetc.compiler.load import documents, load

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\n"


def names(found: list[Document]) -> list[str]:
    """The objects' names."""
    out = []
    for document in found:
        metadata = document.value["metadata"]
        assert isinstance(metadata, dict)
        out.append(str(metadata["name"]))
    return out


def one(text: str | bytes, name: str = "a.yaml") -> tuple[list[Document], list[str]]:
    """The documents of one text, and what is said about it."""
    source = documents([(name, text.encode() if isinstance(text, str) else text)])
    return list(source), [str(d) for d in source.diagnostics]


def test_folders_are_read_in_order_and_symlinks_once(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for path in ("z.yaml", "b/a.yml", "b/c.json", "b/notes.txt", ".hidden.yaml"):
        (tmp_path / path).write_text(POD % path.replace("/", "-"))
    (tmp_path / "b/c.json").write_text('{"apiVersion":"v1","kind":"Pod","metadata":{"name":"b-c.json"}}')
    (tmp_path / "b/loop").symlink_to(tmp_path)
    (tmp_path / "y.yaml").symlink_to(tmp_path / "z.yaml")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/x.yaml").write_text(POD % "git")
    os.mkfifo(tmp_path / "fifo.yaml")
    source = load([str(tmp_path)])
    assert sorted(names(list(source))) == ["b-a.yml", "b-c.json", "z.yaml"]
    assert source.diagnostics == []


def test_the_order_of_files_is_that_of_their_names(tmp_path: Path) -> None:
    for name in ("c", "a", "b"):
        (tmp_path / f"{name}.yaml").write_text(POD % name)
    assert names(list(load([str(tmp_path)]))) == ["a", "b", "c"]
    again = [str(tmp_path / "b.yaml"), str(tmp_path)]
    assert names(list(load(again))) == ["b", "a", "c"]


def test_standard_input() -> None:
    source = load(["-", "-"], io.BytesIO((POD % "a").encode()))
    (document,) = source
    assert (document.file, document.line) == ("<stdin>", 1)


def test_an_empty_pipe_is_no_empty_cluster() -> None:
    source = load(["-"], io.BytesIO(b""))
    assert list(source) == []
    assert [str(d) for d in source.diagnostics] == [
        "<stdin>: no objects in it; see whether the command before it failed"
    ]
    empty = load(["-"], io.BytesIO(b'{"apiVersion":"v1","kind":"List","items":[]}'))
    assert (list(empty), empty.diagnostics) == ([], [])


def test_what_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    source = load([str(tmp_path / "none.yaml"), str(tmp_path / "empty"), "https://example.org/x.yaml"])
    assert list(source) == []
    assert [d.what for d in source.diagnostics] == [
        "can't be read: no such file or directory",
        "no manifests in this folder",
        "an address on the web",
    ]


def test_many_documents_and_their_lines() -> None:
    text = f"# top\n---\n{POD % 'a'}---\n---  # nothing\n\n{POD % 'b'}...\n---\n# c\n\n{POD % 'c'}"
    found, said = one(text)
    assert said == []
    assert [(d.line, d.locate(("metadata", "name"))) for d in found] == [(3, 5), (9, 11), (16, 18)]


def test_lists() -> None:
    text = (
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n"
        "- kind: PodList\n  apiVersion: v1\n  items:\n  - metadata:\n      name: b\n  - metadata: {name: c}\n"
    )
    found, said = one(text)
    assert said == []
    assert names(found) == ["a", "b", "c"]
    assert [d.line for d in found] == [4, 10, 12]
    assert found[1].value["kind"] == "Pod"
    assert found[1].locate(("metadata", "name")) == 11


def test_a_crd_whose_name_ends_in_list_is_no_list() -> None:
    found, said = one("apiVersion: example.org/v1\nkind: AllowList\nmetadata: {name: a}\n")
    assert (names(found), said) == (["a"], [])


PODS = {
    "apiVersion": "v1",
    "kind": "List",
    "items": [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "annotations": {"x": 'a\n        {\n"items": [\n'}},
        }
        for name in "abc"
    ],
}


@pytest.mark.parametrize("indent", [None, 0, 1, 2, 4, "\t"])
def test_json_lines_whatever_the_layout(indent: int | str | None) -> None:
    text = json.dumps(PODS, indent=indent)
    found, said = one(text, "a.json")
    assert (names(found), said) == (["a", "b", "c"], [])
    for document, name in zip(found, "abc", strict=True):
        line = text.split("\n")[document.locate(("metadata", "name")) - 1]
        assert f'"name": "{name}"' in line
        starts = [i for i, t in enumerate(text.split("\n"), 1) if t.strip() == "{" or indent is None]
        assert document.line in starts


def test_json_lines_of_a_list_that_names_its_kind_last() -> None:
    text = json.dumps({"apiVersion": "v1", "items": [{"apiVersion": "v1"}], "kind": "List"}, indent=4)
    (document,), _ = one(text, "a.json")
    assert document.line == 4


def test_several_json_values_in_one_file() -> None:
    pod = json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}})
    found, said = one(f"{pod}\n{pod}\n")
    assert ([d.line for d in found], said) == ([1, 2], [])


@pytest.mark.parametrize("text", ['{"a": [{"b": 1, "b": 2}, }', '{"a": 1, "a": 2}\n{"a": x}'])
def test_json_that_is_broken_behind_a_key_that_is_there_twice(text: str) -> None:
    _, said = one(text, "a.json")
    assert any("broken JSON" in line for line in said)


def test_json_keys_that_are_there_twice_however_they_are_written() -> None:
    for text in (
        '{"a": 1,\n"a": 2}',
        '{"a" : 1,\n"a" : 2}',
        '{"\\u0061":1,\n"a":2, "x": "\\u003a"}',
        '{"a":1,\n"a":"\\":"}',
    ):
        found, said = one(text, "a.json")
        assert found == []
        assert said == ["a.json:2: key 'a' is there twice in one object; keep one of the two"]


def test_flow_yaml_is_not_taken_for_broken_json() -> None:
    found, said = one("{apiVersion: v1, kind: Pod, metadata: {name: a}}\n")
    assert (names(found), said) == (["a"], [])


def test_encodings() -> None:
    text = POD % "a"
    for data in (text.encode("utf-8-sig"), text.encode("utf-16"), text.replace("\n", "\r\n").encode()):
        found, said = one(data)
        assert (names(found), said) == (["a"], [])
        assert found[0].locate(("metadata", "name")) == 3


def test_hostile_nesting() -> None:
    deep = 100_000
    for text in ("[" * deep, '{"a":' * deep, "- " * deep, "a: " + "{b: " * 300 + "1" + "}" * 300):
        found, said = one(text)
        assert found == []
        assert len(said) == 1
    assert "nested" in one("[" * deep + "]" * deep, "a.json")[1][0]
