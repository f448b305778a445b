"""YAML as go-yaml v2 reads it, and so kubectl and the API server."""

from __future__ import annotations

import pytest

from k8snetc.compiler.document import Flaw, JsonValue
from k8snetc.compiler.read_yaml import read


def value(text: str) -> JsonValue:
    """The value of the one document."""
    (tree,) = read(text)
    assert not isinstance(tree, Flaw), tree
    return tree.value


def flaws(text: str) -> list[str]:
    """What is said about a text."""
    return [f"{f.line}: {f.what}" for f in read(text) if isinstance(f, Flaw)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y", True),
        ("Y", True),
        ("yes", True),
        ("on", True),
        ("True", True),
        ("n", False),
        ("No", False),
        ("OFF", False),
        ("yES", "yES"),
        ("~", None),
        ("", None),
        ("Null", None),
        ("80", 80),
        ("+80", 80),
        ("-0", 0),
        ("010", 8),
        ("-010", -8),
        ("08", 8),  # no octal number, so a float, which is 8 in JSON
        ("0080", 80),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b101", 5),
        ("1_000", 1000),
        ("80.0", 80),
        ("1e3", 1000),
        ("1.", 1),
        (".5", 0.5),
        ("1.20", 1.2),
        ("1:20", "1:20"),
        ("1:20:30", "1:20:30"),
        ("1.2.3", "1.2.3"),
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("0x", "0x"),
        ("1e", "1e"),
        ("99999999999999999999", 100000000000000000000),
        ("'80'", "80"),
        ('"y"', "y"),
        ('"\\u00e9"', "é"),
        ("!!str 80", "80"),
        ('!!int "80"', 80),
        ("!!float 1", 1),
        ("!!binary aGVsbG8=", "hello"),
        ("!custom 80", "80"),
        ("! 80", "80"),
        ("nan", "nan"),
        ("a # b", "a"),
        ("a#b", "a#b"),
    ],
)
def test_scalars(text: str, expected: JsonValue) -> None:
    found = value(f"a: {text}\n")
    assert found == {"a": expected}
    assert isinstance(found, dict)
    assert type(found["a"]) is type(expected)


@pytest.mark.parametrize(
    ("key", "expected"), [("y", "true"), ("1", "1"), ("010", "8"), ("1.5", "1.5"), ("'y'", "y")]
)
def test_keys_become_text(key: str, expected: str) -> None:
    assert value(f"{key}: 1") == {expected: 1}


def test_blocks() -> None:
    assert value("a: |\n  x\n   y\nb: >-\n  x\n  y\n") == {"a": "x\n y\n", "b": "x y"}


def test_anchors_and_merges() -> None:
    text = "base: &b {x: 1, y: 2}\nc: *b\nd: {<<: *b, x: 3}\ne: {<<: [{x: 8}, *b], z: 4}\n"
    assert value(text) == {
        "base": {"x": 1, "true": 2},
        "c": {"x": 1, "true": 2},
        "d": {"x": 3, "true": 2},
        "e": {"x": 8, "true": 2, "z": 4},
    }


def test_a_quoted_merge_key_is_a_key() -> None:
    assert value("'<<': 1") == {"<<": 1}


def test_billion_laughs() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert flaws("\n".join(lines)) == ["5: aliases that expand to far more than the file holds"]


def test_many_small_aliases_are_fine() -> None:
    text = "base: &b {x: 1}\nitems:\n" + "- *b\n" * 10_000
    found = value(text)
    assert isinstance(found, dict)
    assert found["items"] == [{"x": 1}] * 10_000


def test_an_error_does_not_hide_the_next_document() -> None:
    assert flaws("a: 1\na: 2\n---\nb: [\n---\nc: {\n") == [
        "2: key 'a' is there twice in one mapping",
        "5: broken YAML: did not find expected node content while parsing a flow node",
        "7: broken YAML: did not find expected node content while parsing a flow node",
    ]


def test_lines_of_fields() -> None:
    (tree,) = read("# c\na:\n  b:\n  - c: 1\n    d: 2\n  -\n    e: 3\n")
    assert not isinstance(tree, Flaw)
    assert tree.line == 2
    assert [
        tree.locate(p) for p in [("a",), ("a", "b", 0, "d"), ("a", "b", 1, "e"), ("a", "b", 7), ("x",)]
    ] == [
        2,
        5,
        7,
        3,
        2,
    ]
