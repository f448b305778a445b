"""The grip on the kernel: what is installed reads back as what was asked for, whatever was there before."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest

from k8snetc.backends.base import UnsupportedError
from k8snetc.backends.nftables import features, library
from k8snetc.backends.nftables.install import target
from k8snetc.backends.nftables.model import Rule, Ruleset
from k8snetc.backends.nftables.netlink import generation
from k8snetc.backends.nftables.observe import observed
from k8snetc.backends.target import InstallError, InstallOptions
from k8snetc.ir.types import Family, Program
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.topology import Topology
from tests.backends.nftables.test_rules import cluster
from tests.support.programs import Generator
from tests.support.unprivileged import unprivileged

pytestmark = pytest.mark.kernel

NODE = "node/w1"


def program(topology: Topology, seed: int) -> Program:
    return Generator(topology, seed).program(services=6 + seed % 9, policy=seed % 3 > 0)


def reach(goal: Ruleset) -> list[str]:
    """Go from what is there to `goal`; what is wrong afterwards. Runs inside a node."""
    grip = target(InstallOptions())
    live = grip.observe()
    if grip.load(grip.dump(live)) != live:
        return ["what is observed does not survive dump and load"]
    goal = grip.grounded(goal, live)
    steps = grip.steps(live, goal)
    differs = bool(grip.changes(live, goal))
    for step in steps:
        step.run()
    seen = grip.observe()
    wrong = [f"{c.symbol} {c.where}: {c.removed} -> {c.added}" for c in grip.changes(seen, goal)]
    if seen != goal or grip.dump(seen) != grip.dump(goal):
        wrong.append("states that do the same are not equal")
    if differs != bool(steps):
        wrong.append(f"changes and steps contradict each other: {differs}, {steps}")
    if grip.steps(seen, goal):
        wrong.append("there are steps left")
    return wrong


def travel(goals: list[Ruleset]) -> list[str]:
    return [f"at {at}: {w}" for at, goal in enumerate(goals) for w in reach(goal)]


@pytest.mark.parametrize("start", range(0, 48, 12))
def test_from_any_program_to_any_other(shared_cluster: Cluster, start: int) -> None:
    grip = target(InstallOptions())
    goals = [grip.desired(program(shared_cluster.topology, s)) for s in range(start, start + 12)]
    assert all(a != b for a, b in pairwise(goals))
    wrong = shared_cluster.call(NODE, travel, [*goals, grip.empty(), goals[0]])
    assert not wrong, "\n".join(wrong[:20])


DAMAGES = (
    "flush ruleset",
    "flush table ip k8snetc",
    "delete table ip6 k8snetc",
    "flush chain ip k8snetc services",
    "flush chain ip k8snetc prerouting\ndelete chain ip k8snetc prerouting",
    "add rule ip k8snetc services counter accept",
    "insert rule ip k8snetc forward accept",
    "add chain ip k8snetc mine { type filter hook input priority 5; policy drop; }",
    "add set ip k8snetc mine { type inet_service; elements = { 7, 9 } }",
    "flush map ip k8snetc services",
    "add element ip k8snetc services { 192.0.2.99 . tcp . 7 : drop }",
    "add element ip k8snetc same-byte { 1 . 2 }",
    "add element ip k8snetc cluster { 192.0.2.0-192.0.2.5 }",
    "delete table ip k8snetc\nadd table ip k8snetc",
    (
        "delete table ip k8snetc\nadd table ip k8snetc\n"
        "add map ip k8snetc services { type ipv4_addr : verdict; flags interval; }"
    ),
    (
        "delete table ip k8snetc\nadd table ip k8snetc\n"
        "add chain ip k8snetc prerouting { type filter hook prerouting priority 7; policy drop; }"
    ),
)


def damaged(goal: Ruleset, damage: str) -> list[str]:
    wrong = reach(goal)
    grip = target(InstallOptions())
    if grip.changes(grip.observe(), goal):
        wrong.append("it is not there")
    library.commit(damage)
    if not grip.changes(grip.observe(), goal):
        wrong.append("nobody saw it")
    return wrong + reach(goal)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_others_did_is_seen_and_repaired(shared_cluster: Cluster, damage: str) -> None:
    # A program that has all of what is damaged.
    for seed in range(100):
        goal = target(InstallOptions()).desired(program(shared_cluster.topology, seed))
        names = {s.name for t in goal.tables for s in t.sets if t.family == 4}
        if {"services", "same-byte", "cluster"} <= names and len(goal.tables) == 2:
            break
    wrong = shared_cluster.call(NODE, damaged, goal, damage)
    assert not wrong, "\n".join(wrong)


def looks() -> list[str]:
    """What is read again, and what isn't because nobody has changed anything. Runs inside a node."""
    library.commit("add table ip k8snetc\nadd set ip k8snetc s { type ipv4_addr; elements = { 1.2.3.4 } }")
    first = observed()
    library.check("add element ip k8snetc s { 1.2.3.5 }")
    wrong = [] if observed(first) is first else ["read again, although nothing changed"]
    library.commit("add table ip somebody-else")
    if observed(first) is first:
        wrong.append("another's transaction was not noticed")
    if observed(first).tables != first.tables:
        wrong.append("ours changed by itself")
    library.commit("add element ip k8snetc s { 1.2.3.5 }")
    if observed(first).tables == first.tables:
        wrong.append("an element more was not noticed")
    library.commit("delete table ip k8snetc\ndelete table ip somebody-else")
    return wrong


def test_rules_are_read_again_only_after_a_transaction(shared_cluster: Cluster) -> None:
    assert not shared_cluster.call(NODE, looks)
    places = {shared_cluster.call(node, generation)[0] for node in ("node/w1", "node/w2")}
    assert len(places) == 2, "one node's rules must not be taken for another's"


def test_others_tables_are_left_alone(shared_cluster: Cluster) -> None:
    foreign = (
        "table inet firewalld { set s { type ipv4_addr; elements = { 1.2.3.4 } }\n"
        "chain filter_INPUT { type filter hook input priority filter + 10; policy accept; ip saddr @s drop\n }\n }\n"
        "table ip nat { chain DOCKER { ip daddr 172.17.0.1 drop\n }\n }\n"
    )
    shared_cluster.run(NODE, ["nft", "-f", "-"], input=foreign)
    shared_cluster.run(NODE, ["iptables-nft", "-A", "INPUT", "-p", "tcp", "--dport", "7", "-j", "DROP"])
    before = shared_cluster.run(NODE, ["nft", "list", "ruleset"]).stdout
    grip = target(InstallOptions())
    goals = [grip.desired(program(shared_cluster.topology, 4)), grip.empty()]
    assert not shared_cluster.call(NODE, travel, goals)
    assert shared_cluster.run(NODE, ["nft", "list", "ruleset"]).stdout == before


def refused() -> str:
    try:
        library.commit("add rule ip k8snetc nowhere drop")
    except InstallError as e:
        return str(e)
    return ""


def test_a_refusal_says_what_and_what_to_do(shared_cluster: Cluster) -> None:
    message = shared_cluster.call(NODE, refused)
    assert "nftables did not take the new rules" in message
    assert "plan again" in message


def test_check_changes_nothing(shared_cluster: Cluster) -> None:
    shared_cluster.call(NODE, library.check, "add table ip k8snetc")
    assert shared_cluster.run(NODE, ["nft", "list", "ruleset"]).stdout == ""
    with pytest.raises(InstallError):
        shared_cluster.call(NODE, library.check, "add rule ip nowhere nothing drop")


def test_without_privilege_the_error_says_so() -> None:
    code = (
        "from k8snetc.backends.nftables import library\n"
        "try:\n    library.listing()\nexcept Exception as e:\n    print(e)\n"
    )
    done = subprocess.run(
        unprivileged(sys.executable, "-c", code),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "root" in done.stdout or "Permission" in done.stdout + done.stderr


def test_this_node_has_every_feature(shared_cluster: Cluster) -> None:
    probes = [(f, family) for f in (*features.FEATURES, features.FULLY_RANDOM) for family in Family]
    lacking = [
        (f.name, family) for f, family in probes if not shared_cluster.call(NODE, features.can, f, family)
    ]
    assert not lacking


def desired_without(name: str, wanted: Program) -> list[str]:
    """What `desired` refuses where the kernel doesn't know the expression of a feature."""
    broken = tuple(
        replace(f, body=f.body + "\nchain d { ct original frobnicate 7\n }") if f.name == name else f
        for f in features.FEATURES
    )
    features.FEATURES = broken  # in a child process of its own
    try:
        target(InstallOptions()).desired(wanted)
    except UnsupportedError as e:
        return [g.what + " " + g.hint for g in e.gaps]
    return []


def test_a_missing_feature_is_named(shared_cluster: Cluster) -> None:
    for feature in features.FEATURES:
        for seed in range(100):
            wanted = program(shared_cluster.topology, seed)
            if feature.sign in str(target(InstallOptions()).desired(wanted)):
                break
        found = shared_cluster.call(NODE, desired_without, feature.name, wanted)
        assert found, feature
        assert all(feature.name in f and feature.option in f for f in found)


def without_random_ports(wanted: Program) -> tuple[str, str]:
    """What `desired` makes of it where the kernel can't choose ports at random, and what it makes of it here."""
    usual = str(target(InstallOptions()).desired(wanted))
    body = features.FULLY_RANDOM.body + "\nchain d { ct original frobnicate 7\n }"
    features.FULLY_RANDOM = replace(features.FULLY_RANDOM, body=body)
    return str(target(InstallOptions()).desired(wanted)), usual


def test_random_ports_are_done_without_where_they_are_missing(shared_cluster: Cluster) -> None:
    lesser, usual = shared_cluster.call(NODE, without_random_ports, cluster(2, 2))
    assert " fully-random" in usual
    assert usual.replace(" fully-random", "") == lesser


SPELLINGS = (
    ("meta mark | 0x00004000", "mark or 0x4000"),
    ("reject", "reject with icmp type port-unreachable"),
    ("fib daddr type local", "fib daddr type 2"),
)
"""Words of ours, and others that mean the same."""


def respelled(goal: Ruleset) -> Ruleset:
    """The same rules in other words, as another version of nft might print them."""

    def text(line: str) -> str:
        for usual, other in SPELLINGS:
            line = line.replace(usual, other)
        return line

    v4 = tuple(
        replace(
            t,
            chains=tuple(replace(c, rules=tuple(Rule(text(r.text)) for r in c.rules)) for c in t.chains),
        )
        for t in goal.tables
        if t.family is Family.IPV4
    )
    return replace(goal, tables=v4 + tuple(t for t in goal.tables if t.family is not Family.IPV4))


def other_words(goal: Ruleset) -> list[str]:
    """Install what another version would have written, and see that it is recognised. Runs inside a node."""
    grip = target(InstallOptions())
    odd = respelled(goal)
    for step in grip.steps(grip.observe(), odd):
        step.run()
    live = grip.observe()
    wrong = [f"{c.symbol} {c.where}: {c.removed} -> {c.added}" for c in grip.changes(live, odd)]
    wrong += [f"step: {s.title}" for s in grip.steps(live, odd)]
    different = replace(odd, tables=tuple(replace(t, chains=t.chains[:-1]) for t in odd.tables))
    if not grip.changes(live, different) or not grip.steps(live, different):
        wrong.append("a chain too many was not seen")
    return wrong


def test_other_words_for_the_same_are_no_difference(shared_cluster: Cluster) -> None:
    for seed in range(100):
        goal = target(InstallOptions()).desired(program(shared_cluster.topology, seed))
        text = str(goal)
        if "mark | 0x" in text and "reject" in text and "fib daddr" in text:
            break
    assert respelled(goal) != goal
    wrong = shared_cluster.call(NODE, other_words, goal)
    assert not wrong, "\n".join(wrong)
