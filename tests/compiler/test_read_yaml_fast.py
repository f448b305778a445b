"""The fast way to read YAML gives what the faithful one gives, or leaves the text to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from k8snetc.compiler import read_yaml, read_yaml_fast
from k8snetc.compiler.document import AtOnce, Flaw, JsonValue, Tree
from k8snetc.compiler.read_json_list import Items


@pytest.fixture(autouse=True, scope="module")
def _always_worth_it() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read_yaml_fast, "WORTH", 0)
        patch.setattr(read_yaml_fast, "CHUNK", 300)
        yield


Read = tuple[list[tuple[JsonValue, int]], list[Flaw]]


def objects(found: Iterator[Tree | Flaw]) -> Read:
    """What was read as (value, line), Lists opened; and the flaws."""
    values: list[tuple[JsonValue, int]] = []
    flaws: list[Flaw] = []
    for tree in found:
        if isinstance(tree, Flaw):
            flaws.append(tree)
        elif isinstance(tree.value, dict) and isinstance(tree.value.get("items"), list):
            items = tree.value["items"]
            assert isinstance(items, list)
            rest = {k: v for k, v in tree.value.items() if k != "items"}
            values.extend(
                ({**rest, "item": item}, line) for item, line in zip(items, tree.item_lines, strict=True)
            )
        else:
            values.append((tree.value, tree.line))
    return values, flaws


def check(text: str) -> None:
    """Both ways give the same values and lines, and flaws for the same texts."""
    slow, slow_flaws = objects(read_yaml.read(text))
    fast, fast_flaws = objects(read_yaml_fast.read(text))
    assert bool(fast_flaws) == bool(slow_flaws)
    if not slow_flaws:
        assert repr(fast) == repr(slow)


# Scalars near the border of what the two readers take alike.
BORDER = """
y n yes no on off true false null ~ True NULL .inf .nan nan NaN inf Infinity infinity e1 E1 0 -0 +1 -1 00 08 010
0o7 0x1F 0b1 1_000 1e3 1E5 1e-3 12e03 .5 5. -.5 1.0 1.10 1.2.3 10.0.0.0/8 10.0.0.1:80 1:20 1:20:30 fd00::1 fd00::
2001:db8::1 ::1 100m 128Mi 1Gi 30s 5d 123456789012345678 1234567890123456789 99999999999999999999
2026-01-01 2026-01-01T00:00:00Z a b:c b: c:d:e / /a/b ./x a=b @x `x %x &a *a !x !!str | > - -- -a ? ?a [] {} [a] {a:
'a' 'it''s' "a" "a\\tb" "a\\u00e9" "\\x41" '' "" # #a a#b << 12345678-1234-1234-1234-123456789012
00000000-0000-0000-0000-000000000000 1e345678-1234-1234-1234-123456789012 12345678-1234-1234-1234-1234567890e2
0x0 0X1f 1e 1E 1d 1f 0xg _ _1 1_ infinite nano onyx yes.no null/void true-ish 0d 0m 0Ki 1.5Gi 00m 0.0.0
"""
SCALARS = st.one_of(
    st.sampled_from([*BORDER.split(), "", "a b", "y n", "1 2", "{a: 1}", "a: b", "a #b", "nan nan", "e 1"]),
    st.text("abny01239.:/-_ #'\"x+eE~", min_size=1, max_size=8),
    st.integers().map(str),
    st.floats(allow_nan=False).map(str),
)
KEYS = st.one_of(
    st.sampled_from(["a", "b", "c", "app", "y", "n", "on", "null", "nan", "1", "a.b/c-d", "_x", "items"]),
    SCALARS,
)


@st.composite
def lines(draw: st.DrawFn) -> str:
    """A line as it may stand in YAML, indented anyhow."""
    indent = " " * draw(st.sampled_from([0, 0, 0, 1, 2, 2, 2, 3, 4, 4, 6]))
    form = draw(
        st.sampled_from(
            ["{k}: {v}", "{k}:", "- {v}", "- {k}: {v}", "- {k}:", "{k}: |", "{k}: |-", "{v}", "# {v}"]
        )
    )
    return indent + form.format(k=draw(KEYS), v=draw(SCALARS))


SIMPLE_KEYS = st.sampled_from(["a", "b", "c", "d"])
SIMPLE_LINES = st.builds(
    lambda indent, form, k, v: " " * indent + form.format(k=k, v=v),
    st.sampled_from([0, 0, 0, 1, 2, 2, 2, 3, 4, 4]),
    st.sampled_from(["{k}: {v}", "{k}:", "- {v}", "- {k}: {v}", "- {k}:", "{k}: |", "---", "# {v}", ""]),
    SIMPLE_KEYS,
    st.sampled_from(["1", "x", "'q'", "{}", "10.0.0.1"]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(lines(), max_size=8))
def test_any_lines(some: list[str]) -> None:
    check("\n".join(some) + "\n")


@settings(max_examples=300, deadline=None)
@given(st.lists(SIMPLE_LINES, max_size=10))
@example(["a: 1", "---", "b:", "  c: 1", " d: 2"])
def test_harmless_lines_in_any_order(some: list[str]) -> None:
    check("\n".join(some) + "\n")
    check(
        "items:\n- a: 0\n"
        + "\n".join(f"  {line}" if line else "" for line in some)
        + "\n- b: 1\nkind: List\n"
    )
    check("items:\n- a: 0\n" + "\n".join(some) + "\n- b: 1\nkind: List\n")


@settings(max_examples=300, deadline=None)
@given(SCALARS, KEYS)
def test_every_scalar_as_value_key_and_item(value: str, key: str) -> None:
    check(f"a: {value}\nb: 1\n---\n{key}: 1\n---\nc:\n- {value}\n- x: {value}\n")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=12), SCALARS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(SIMPLE_KEYS, st.text(max_size=6)), inner, max_size=4),
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.dictionaries(SIMPLE_KEYS, JSON, min_size=1, max_size=4), min_size=1, max_size=5),
    st.booleans(),
)
def test_what_programs_print(values: list[dict[str, object]], as_list: bool) -> None:
    if as_list:
        text = yaml.safe_dump({"apiVersion": "v1", "items": values, "kind": "List"}, sort_keys=False)
    else:
        text = yaml.safe_dump_all(values)
    check(text)


def test_the_fast_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the tests above would compare the faithful way with itself."""
    texts: list[str] = []
    rapid = read_yaml_fast._rapid

    def spy(text: str, number: int, at_once: AtOnce | None = None) -> Items | None:
        texts.append(text)
        return rapid(text, number, at_once)

    monkeypatch.setattr(read_yaml_fast, "_rapid", spy)
    check("items:\n- a: 1\n  b: y\n- c:\n  - 10.0.0.1\n  d: |\n    text\nkind: List\n")
    check("# Source\na: 1\n---\nb: &x 1\n---\nc: 'q'\n")
    assert texts == [
        "- c:\n  - 10.0.0.1\n  d: |\n    text\n",
        "---\n# Source\na: 1\n---\nc: 'q'\n---\n{}\n---\n{}\n",
    ]


def test_lines_of_fields() -> None:
    text = "apiVersion: v1\nitems:\n- a:\n    b: 1\n- c: 2\n  d:\n  - e\n  - f: 3\nkind: List\n"
    (tree,) = read_yaml_fast.read(text)
    assert isinstance(tree, Tree)
    assert tree.item_lines == (3, 5)
    assert tree.locate(("items", 0, "a", "b")) == 4
    assert tree.locate(("items", 1, "d", 1, "f")) == 8
    assert tree.locate(("items", 1, "d", 9)) == 6


def test_aliases_between_items_are_left_to_the_faithful_way() -> None:
    check("items:\n- a: &x 1\n- b: *x\nkind: List\n")


def test_a_key_that_is_there_twice() -> None:
    (flaw,) = (f for f in read_yaml_fast.read("items:\n- a: 1\n  a: 2\nkind: List\n") if isinstance(f, Flaw))
    assert flaw.line == 3
