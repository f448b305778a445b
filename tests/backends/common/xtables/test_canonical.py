"""Rules that say the same in other words."""

from __future__ import annotations

import pytest

from k8snetc.backends.common.xtables.canonical import aligned, canonical, uncommented
from k8snetc.backends.common.xtables.changes import changes
from k8snetc.backends.common.xtables.state import State, Table
from k8snetc.ir.types import Family

SAME = [
    ("-p tcp -s 10.0.0.1 -j ACCEPT", "-s 10.0.0.1/32 -p tcp -j ACCEPT"),
    ("--source 10.1.2.3/8 --jump DROP", "-s 10.0.0.0/8 -j DROP"),
    ("-d fd00:0::1 -j DROP", "-d fd00::1/128 -j DROP"),
    (
        "-m statistic --mode random --probability 0.33333333349 -j X",
        "-m statistic --mode random --probability 0.3333333335 -j X",
    ),
    ("-m mark --mark 0x4000/0x4000 -j X", "-m mark --mark 0x00004000/0x4000 -j X"),
    ("-j MARK --set-mark 0x1", "-j MARK --set-xmark 0x1/0xffffffff"),
    ('-m comment --comment "web" -j X', "-m comment --comment web -j X"),
]
DIFFERENT = [
    ("-s 10.0.0.1 -j ACCEPT", "-s 10.0.0.1 -j DROP"),
    ("-s 10.0.0.1 -j ACCEPT", "! -s 10.0.0.1 -j ACCEPT"),
    ("-m mark --mark 0x1 -j X", "-m mark ! --mark 0x1 -j X"),
    ('-m comment --comment "-j A" -j X', '-m comment --comment "-j B" -j X'),
    (
        "-m statistic --mode random --probability 0.33333333349 -j X",
        "-m statistic --mode random --probability 0.33334 -j X",
    ),
    ("-m set --match-set A src -m set --match-set B src -j X", "-m set --match-set A src -j X"),
    ("-j X -s 10.0.0.1", "-j X"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_same(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


def test_a_comment_is_nothing_but_a_comment() -> None:
    assert canonical('-m comment --comment "a \\"b -j X" -j Y')[-1] == ("-j", False, ("Y",))


def test_what_is_no_rule_is_equal_to_itself_only() -> None:
    assert canonical('"unclosed') == canonical('"unclosed')
    assert canonical('"unclosed') != canonical('"other')


def test_aligned_takes_the_words_of_the_goal_and_keeps_what_differs() -> None:
    key = (Family.IPV4, "nat")
    live = State(
        {key: Table({"K8SNETC-A": ("-p tcp -s 10.0.0.1 -j DROP", "-j A")}, {"OUTPUT": ("--jump K",)})}
    )
    goal = State(
        {key: Table({"K8SNETC-A": ("-s 10.0.0.1/32 -p tcp -j DROP", "-j B")}, {"OUTPUT": ("-j K",)})}
    )
    table = aligned(live, goal).table(key)
    assert table.chains["K8SNETC-A"] == ("-s 10.0.0.1/32 -p tcp -j DROP", "-j A")
    assert table.hooks["OUTPUT"] == ("-j K",)


WEB, API = "-d 10.0.0.1/32 -p tcp%s -g K8SNETC-B-1", "-d 10.0.0.2/32 -p tcp%s -g K8SNETC-B-2"
COMMENTS = (
    " -m comment --comment shop/web:http",
    ' -m comment --comment "shop/web:http a.yaml:3"',
    ' -m comment --comment "a \\"quoted\\" -m comment --comment \\\\"',
)


@pytest.mark.parametrize("comment", COMMENTS)
def test_rules_are_read_without_their_comment(comment: str) -> None:
    assert uncommented(WEB % comment) == WEB % ""
    assert uncommented(f"{comment[1:]} -j DROP") == "-j DROP"
    assert uncommented(WEB % "") == WEB % ""


def test_a_comment_alone_is_no_difference() -> None:
    """Manifests that moved to another folder, or got a line more above, are the same manifests."""
    key = (Family.IPV4, "nat")
    live = State({key: Table({"K8SNETC-A": (WEB % COMMENTS[0], API % COMMENTS[1])})})
    goal = State({key: Table({"K8SNETC-A": (WEB % COMMENTS[1], API % COMMENTS[2])})})
    assert aligned(live, goal) == goal
    assert changes(aligned(live, goal), goal) == ()


def test_beside_a_change_a_comment_alone_is_no_difference_either() -> None:
    key = (Family.IPV4, "nat")
    live = State({key: Table({"K8SNETC-A": (WEB % COMMENTS[0],)})})
    goal = State({key: Table({"K8SNETC-A": (API % COMMENTS[2], WEB % COMMENTS[1])})})
    found = changes(aligned(live, goal), goal)
    assert [(c.removed, c.added) for c in found] == [((), (API % COMMENTS[2],))]
    swapped = State({key: Table({"K8SNETC-A": (WEB % COMMENTS[2], API % COMMENTS[2])})})
    assert changes(aligned(swapped, goal), goal), "the order of rules counts"
