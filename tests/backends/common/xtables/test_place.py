"""Rules of others that come before ours and let packets past policy make the node differ, and nothing else does."""

from __future__ import annotations

import pytest

from k8snetc.backends.common.xtables import place
from k8snetc.backends.common.xtables.changes import changes
from k8snetc.backends.common.xtables.kernel import Tools
from k8snetc.backends.common.xtables.state import State, Table, parse_tables, print_state, read_state
from k8snetc.backends.common.xtables.switch import Restore, plan
from k8snetc.backends.target import InstallOptions
from k8snetc.ir.types import Family

V4, V6 = Family
HOOK = "-j K8SNETC-FORWARD"
CUT = "-m connmark --mark 0x1000/0x1000 -j DROP"
POD = "-s 10.244.1.0/24 -j ACCEPT"
POLICY = Table({"K8SNETC-FORWARD": (CUT, "-j K8SNETC-P")}, {"FORWARD": (HOOK,)})
NO_POLICY = Table({"K8SNETC-FORWARD": ("-m mark --mark 0x4000/0x4000 -j ACCEPT",)}, {"FORWARD": (HOOK,)})
NAT = Table({"K8SNETC-SERVICES": ("-j RETURN",)}, {"PREROUTING": ("-j K8SNETC-SERVICES",)})

SAVED = """# Generated
*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -j ACCEPT
-A PREROUTING -j K8SNETC-SERVICES
COMMIT
*filter
:FORWARD ACCEPT [0:0]
:EMPTY - [0:0]
:COUNTS - [0:0]
:GUARD - [0:0]
:CNI-FORWARD - [0:0]
:DEEP - [0:0]
:K8SNETC-FORWARD - [0:0]
:K8SNETC-P - [0:0]
-A FORWARD {}
-A FORWARD -j K8SNETC-FORWARD
-A FORWARD -s 192.0.2.9/32 -j ACCEPT
-A COUNTS -s 10.0.0.0/8
-A COUNTS -j RETURN
-A COUNTS -g GUARD
-A GUARD -s 192.0.2.1/32 -j DROP
-A CNI-FORWARD -d 10.244.1.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DEEP -j COUNTS
-A DEEP -g CNI-FORWARD
-A K8SNETC-FORWARD -m connmark --mark 0x1000/0x1000 -j DROP
-A K8SNETC-FORWARD -j K8SNETC-P
COMMIT
"""

OPEN = (
    "-s 10.244.1.0/24 -j ACCEPT",
    "-j CNI-FORWARD",
    "-j DEEP",
    "-j RETURN",
    "-g EMPTY",
    "-j NFQUEUE --queue-num 0",
    "-j UNHEARDOF --of x",
    '-m comment --comment "-j DROP" -j ACCEPT',
    "-m comment --comment -j -j ACCEPT",
)
CLOSED = (
    "-s 192.0.2.1/32 -j DROP",
    "-p tcp -j REJECT --reject-with tcp-reset",
    "-s 10.0.0.0/8",
    '-j LOG --log-prefix "x -j ACCEPT "',
    "-j MARK --set-xmark 0x1/0x1",
    "-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
    "-j EMPTY",
    "-j COUNTS",
    "-j GUARD",
)


@pytest.mark.parametrize("rule", OPEN)
def test_what_lets_packets_past_policy(rule: str) -> None:
    assert place.ahead(SAVED.format(rule), ["FORWARD"]) == {"FORWARD": (rule,)}


@pytest.mark.parametrize("rule", CLOSED)
def test_what_does_not(rule: str) -> None:
    assert place.ahead(SAVED.format(rule), ["FORWARD"]) == {}


def test_only_hooks_that_lead_to_policy_are_looked_at() -> None:
    tables = parse_tables(V4, SAVED.format(POD))
    assert place.judging(tables[V4, "filter"]) == {"FORWARD"}
    assert place.judging(tables[V4, "nat"]) == frozenset()
    assert place.judging(NO_POLICY) == frozenset()


def test_between_two_hooks_is_before_one() -> None:
    text = SAVED.format(f"{HOOK}\n-A FORWARD {POD}")
    assert place.ahead(text, ["FORWARD"]) == {"FORWARD": (POD,)}


def state(table: Table, family: Family = V4, *ahead: str) -> State:
    tables = {(family, "filter"): table, (family, "nat"): NAT}
    return State(tables, ahead={(family, "FORWARD"): ahead} if ahead else {})


@pytest.mark.parametrize("family", Family)
def test_it_is_a_change_in_words_and_one_commit_mends_it(family: Family) -> None:
    live, goal = state(POLICY, family, POD), state(POLICY, family)
    (change,) = changes(live, goal)
    assert change.symbol == "~"
    assert change.where == (
        f"filter IPv{family} FORWARD: `{POD}` comes before our rules, which have to be first: "
        "network policy never judges what it lets past"
    )
    assert changes(goal, live) == (change,), "the drift since the last apply"
    text = f"*filter\n-D FORWARD {HOOK}\n-I FORWARD 1 {HOOK}\nCOMMIT\n"
    mended = Restore(family, f"filter (IPv{family}): put our rules first", text, 2)
    assert plan(live, goal) == (mended,)
    tools = Tools(InstallOptions())
    for together in (True, False):
        (step,) = tools.growing(live, goal, together=together)
        assert (step.title, step.size) == (mended.title, mended.lines)
    assert not plan(goal, goal)


def test_many_rules_are_counted() -> None:
    (change,) = changes(state(POLICY, V4, "-j A", "-j B", "-j C"), state(POLICY))
    assert "`-j A`, `-j B` and 1 more come before our rules" in change.where


def test_where_policy_is_reached_for_the_first_time_the_hook_is_put_first() -> None:
    (restore,) = plan(state(NO_POLICY), state(POLICY))
    assert restore.text.endswith(f"-D FORWARD {HOOK}\n-I FORWARD 1 {HOOK}\nCOMMIT\n")
    (restore,) = plan(state(POLICY), state(NO_POLICY))
    assert "FORWARD 1" not in restore.text


def test_a_plan_of_several_tables_puts_the_hook_first_in_its_first_commit() -> None:
    live, goal = state(POLICY, V4, POD), State({(V4, "filter"): POLICY})
    others = State({(V4, "mangle"): NAT, (V4, "filter"): POLICY})
    for end in (goal, others):
        commits = [r.text for r in plan(live, end)]
        moving = [at for at, text in enumerate(commits) if f"-I FORWARD 1 {HOOK}" in text]
        assert moving == [next(at for at, text in enumerate(commits) if text.startswith("*filter"))]


def test_the_state_tells_and_nobody_wants_it_back() -> None:
    live, goal = state(POLICY, V4, POD), state(POLICY)
    assert print_state(live) != print_state(goal)
    assert read_state(print_state(live)) == goal
