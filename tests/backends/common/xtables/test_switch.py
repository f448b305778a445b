"""The plan from one set of tables to another: its end is the goal, and each moment is the old program or the new."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k8snetc.backends.common.xtables.state import State, Table, parse_tables
from k8snetc.backends.common.xtables.switch import MARK, MARKER, RAW, plan
from k8snetc.ir.types import Family

V4 = Family.IPV4
MARKED = f"-m mark --mark {MARK} "
UNMARKED = f"-m mark ! --mark {MARK} "

quickly = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
names = st.sampled_from(["K8SNETC-A", "K8SNETC-B", "K8SNETC-C", "K8SNETC-D"])


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """A table without loops: a chain leads only to chains with a later name."""
    chains: dict[str, tuple[str, ...]] = {}
    for name in sorted(draw(st.sets(names))):
        later = [n for n in ("K8SNETC-B", "K8SNETC-C", "K8SNETC-D") if n > name]
        words = [f"-p {p} -j DROP" for p in ("tcp", "udp")] + [f"-p tcp -j {n}" for n in later]
        chains[name] = tuple(draw(st.lists(st.sampled_from(words), max_size=3)))
    for rules in list(chains.values()):
        for rule in rules:
            target = rule.split()[-1]
            if target.startswith("K8SNETC-"):
                chains.setdefault(target, ())
    bases = draw(st.sets(st.sampled_from(["PREROUTING", "OUTPUT"]))) if chains else set()
    return Table(chains, {b: (f"-j {sorted(chains)[0]}",) for b in sorted(bases)})


@st.composite
def states(draw: st.DrawFn) -> State:
    made = {(V4, t): draw(tables()) for t in ("nat", "filter", "raw")}
    return State({k: t for k, t in made.items() if t})


def commit(state: State, text: str) -> State:
    """What iptables-restore --noflush does with one table; refuses what the kernel refuses."""
    lines = text.splitlines()
    key = (V4, lines[0][1:])
    table = state.table(key)
    chains = {n: list(r) for n, r in table.chains.items()}
    hooks = {n: list(r) for n, r in table.hooks.items()}
    for line in lines[1:-1]:
        word, _, rest = line.partition(" ")
        chain, _, rule = rest.partition(" ")
        match word:
            case "-A":
                chains[chain].append(rule)
            case "-D":
                hooks[chain].remove(rule)
            case "-I":
                hooks.setdefault(chain, []).insert(0, rule.removeprefix("1 "))
            case "-X":
                assert not chains.pop(chain), f"{chain} is not empty"
            case _:
                chains[line[1:].partition(" ")[0]] = []
    for rules in (*chains.values(), *hooks.values()):
        for rule in rules:
            target = rule.split()[-1]
            assert not target.startswith("K8SNETC-") or target in chains, f"{target} is missing"
    after = Table({n: tuple(r) for n, r in chains.items()}, {n: tuple(r) for n, r in hooks.items() if r})
    made = {**state.tables, key: after}
    return State({k: t for k, t in made.items() if t})


def behaviour(state: State, name: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What packets meet in a table: all rules as one flat list a hook, the jumps followed, names of chains gone."""
    marked = MARKER in state.table((V4, RAW)).chains
    table = state.table((V4, name))

    def flat(rules: tuple[str, ...]) -> Iterator[str]:
        for rule in rules:
            words = rule
            if words.startswith((MARKED, UNMARKED)):
                if words.startswith(MARKED) != marked:
                    continue
                words = words.removeprefix(MARKED).removeprefix(UNMARKED)
            target = words.split()[-1]
            if target.startswith("K8SNETC-"):
                if target != MARKER:
                    head = words.removesuffix(target).removesuffix("-j ")
                    yield from (f"{head}{r}" for r in flat(table.chains[target]))
            else:
                yield words

    met = ((b, tuple(flat(r))) for b, r in sorted(table.hooks.items()))
    return tuple((b, r) for b, r in met if r)


def seen(state: State) -> tuple[object, ...]:
    return tuple(behaviour(state, t) for t in ("raw", "nat", "filter"))


@quickly
@given(states(), states())
def test_every_moment_is_the_old_program_or_the_new_one(old: State, new: State) -> None:
    state = old
    switched = False
    for restore in plan(old, new):
        state = commit(state, restore.text)
        now = seen(state)
        if not switched and now != seen(old):
            switched = True
        assert now == (seen(new) if switched else seen(old))
    assert state == new


@quickly
@given(states(), states(), states(), st.data())
def test_a_plan_starts_from_any_moment_of_another(
    old: State, new: State, other: State, data: st.DataObject
) -> None:
    """Killed after any commit, the next plan (back, on, or elsewhere) is as atomic as the first."""
    commits = plan(old, new)
    state = old
    for restore in commits[: data.draw(st.integers(0, len(commits)))]:
        state = commit(state, restore.text)
    goal = data.draw(st.sampled_from([old, new, other]))
    before = seen(state)
    switched = False
    for restore in plan(state, goal):
        state = commit(state, restore.text)
        now = seen(state)
        switched = switched or now != before
        assert now == (seen(goal) if switched else before)
    assert state == goal


def test_second_names_tell_chains_of_the_same_lines_apart() -> None:
    """A killed plan left `A -> B` beside `A -> old B` under a second name, which the way back must spare."""
    leads = ("-p tcp -j K8SNETC-B",)
    hooked = {"PREROUTING": ("-j K8SNETC-A",)}
    drops = Table({"K8SNETC-D": ("-p tcp -j DROP",)}, {"PREROUTING": ("-j K8SNETC-D",)})
    full = Table({"K8SNETC-A": leads, "K8SNETC-B": ("-p tcp -j DROP",)}, hooked)
    old = State({(V4, "nat"): drops, (V4, "filter"): full})
    idle = {"nat": Table({"K8SNETC-D": ()}, {}), "filter": Table({"K8SNETC-A": leads, "K8SNETC-B": ()}, {})}
    new = State({(V4, name): table for name, table in idle.items()})
    state = old
    for restore in plan(old, new)[:2]:  # both tables have both sides, nothing is marked yet
        state = commit(state, restore.text)
    assert seen(state) == seen(old)
    for restore in plan(state, old):
        state = commit(state, restore.text)
        assert seen(state) == seen(old), restore.title
    assert state == old


def test_one_table_changes_in_one_commit() -> None:
    old = State({(V4, "nat"): Table({"K8SNETC-A": ("-p tcp -j DROP",)}, {"OUTPUT": ("-j K8SNETC-A",)})})
    new = State({(V4, "nat"): Table({"K8SNETC-A": ("-p udp -j DROP",)}, {"OUTPUT": ("-j K8SNETC-A",)})})
    (restore,) = plan(old, new)
    assert restore.text == "*nat\n:K8SNETC-A - [0:0]\n-A K8SNETC-A -p udp -j DROP\nCOMMIT\n"


def test_nothing_to_do() -> None:
    same = State({(V4, "nat"): Table({"K8SNETC-A": ()}, {})})
    assert plan(same, same) == ()


def test_foreign_lines_are_passed_over() -> None:
    text = (
        "# x\n*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:K8SNETC-A - [3:4]\n"
        "-A PREROUTING -j KUBE-SERVICES\n-A PREROUTING -j K8SNETC-A\n-A K8SNETC-A -p tcp -j DROP\nCOMMIT\n"
    )
    assert parse_tables(V4, text) == {
        (V4, "nat"): Table({"K8SNETC-A": ("-p tcp -j DROP",)}, {"PREROUTING": ("-j K8SNETC-A",)})
    }


def test_text_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no line of iptables-save"):
        parse_tables(V4, "table ip nat {")
