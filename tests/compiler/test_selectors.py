"""Label selectors: the string form, the meaning, and the index, which must agree with the meaning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8snetc.compiler.selectors import (
    EVERYTHING,
    LabelIndex,
    Operator,
    Requirement,
    Selector,
    SelectorError,
    bits_of,
    parse_selector,
    positions_of,
    requirement,
    selector,
)


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("", {}, True),
        ("  ", {"a": "b"}, True),
        ("app=web", {"app": "web"}, True),
        ("app==web", {"app": "web"}, True),
        ("app = web", {"app": "db"}, False),
        ("app=", {"app": ""}, True),
        ("app=", {}, False),
        ("app", {"app": ""}, True),
        ("app", {}, False),
        ("!app", {}, True),
        ("! app", {"app": ""}, False),
        ("app!=web", {}, True),
        ("app!=web", {"app": "web"}, False),
        ("app!=", {"app": ""}, False),
        ("tier in (a,b)", {"tier": "b"}, True),
        ("tier in (a, b)", {}, False),
        ("tier in (a,)", {"tier": ""}, True),
        ("tier in ()", {"tier": ""}, True),
        ("tier notin (a,b)", {}, True),
        ("tier notin (a,b)", {"tier": "a"}, False),
        ("app=web,tier in (a,b),!x,x!=y", {"app": "web", "tier": "a"}, True),
        ("app=web,tier in (a,b),!x,x!=y", {"app": "web", "tier": "a", "x": "z"}, False),
        ("in in (in,notin)", {"in": "notin"}, True),
        ("notin=in", {"notin": "in"}, True),
        ("in,notin", {"in": "1"}, False),
        ("kubernetes.io/metadata.name=shop", {"kubernetes.io/metadata.name": "shop"}, True),
        ("a.b/c-d_e.f in (1.2-3_4)", {"a.b/c-d_e.f": "1.2-3_4"}, True),
    ],
)
def test_the_string_form_means_what_kubectl_means(text: str, labels: dict[str, str], expected: bool) -> None:
    assert parse_selector(text).matches(labels) is expected


@pytest.mark.parametrize(
    "text",
    ["=", "app=web,", ",app", "app in", "app in web", "app in (a", "!", "!!a", "a b", "a=b c", "app=-x", "a//b=c",
     "/a", "a/", "app=" + "x" * 64, "x" * 64, "A.B/c=d", "app in (a)(b)", "app=ü", "app>=3", "app=web)"],
)  # fmt: skip
def test_what_kubectl_refuses_is_refused(text: str) -> None:
    with pytest.raises(SelectorError):
        parse_selector(text)


def test_an_error_points_at_the_place() -> None:
    with pytest.raises(SelectorError, match=r"'app=web tier' can't be read at 'tier'"):
        parse_selector("app=web tier")
    with pytest.raises(SelectorError, match="at its end"):
        parse_selector("app in (a")


@pytest.mark.parametrize(
    ("operator", "values"),
    [(Operator.IN, ()), (Operator.NOT_IN, ()), (Operator.EXISTS, ("a",)), (Operator.DOES_NOT_EXIST, ("a",))],
)
def test_operators_and_values_must_fit(operator: Operator, values: tuple[str, ...]) -> None:
    with pytest.raises(SelectorError, match="value"):
        Requirement("app", operator, values)


keys = st.sampled_from(["a", "b", "in", "x/y"])
values = st.sampled_from(["", "a", "b", "notin"])
labels = st.dictionaries(keys, values)
requirements = st.one_of(
    st.builds(
        requirement,
        keys,
        st.sampled_from([Operator.IN, Operator.NOT_IN]),
        st.lists(values, min_size=1, max_size=3),
    ),
    st.builds(requirement, keys, st.sampled_from([Operator.EXISTS, Operator.DOES_NOT_EXIST])),
)
selectors = st.builds(selector, st.lists(requirements, max_size=4))


@given(selectors)
def test_print_and_parse_are_inverse(one: Selector) -> None:
    assert parse_selector(str(one)) == one


@given(st.lists(labels, max_size=12), st.lists(selectors, max_size=5))
def test_the_index_agrees_with_one_by_one_matching(
    objects: list[dict[str, str]], wanted: list[Selector]
) -> None:
    index = LabelIndex(objects)
    for one in (*wanted, EVERYTHING):
        expected = [at for at, labels in enumerate(objects) if one.matches(labels)]
        assert list(positions_of(index.select(one))) == expected


@given(st.sets(st.integers(0, 300)))
def test_bits_hold_positions(positions: set[int]) -> None:
    assert list(positions_of(bits_of(positions, 301))) == sorted(positions)
