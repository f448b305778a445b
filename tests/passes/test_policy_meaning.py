"""The passes keep the meaning of policies: the interpreter says the same before and after each, on every packet."""

from __future__ import annotations

from ipaddress import IPv4Address
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8snetc.ir.addresses import Members, cover, merge
from k8snetc.ir.interpret import Interpreter, Packet, Sender
from k8snetc.ir.parse import parse
from k8snetc.ir.passes import PASSES
from k8snetc.ir.text import text_of
from k8snetc.ir.types import (
    AddressSet,
    Direction,
    Enforcement,
    Family,
    Node,
    PortRange,
    Program,
    Protocol,
    Rule,
    Verdict,
)
from k8snetc.ir.verify import verify

BASE = int(IPv4Address("10.0.0.0"))
PODS = [IPv4Address(BASE + i) for i in (1, 2, 3)]
SETS = ("a", "b", "c")
PORTS = (0, 1, 2, 3, 65535)

ranges = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 7)).map(lambda r: (BASE + min(r), BASE + max(r))), max_size=3
)
# Not minimal on purpose: single addresses, which a pass may join.
prefixes = ranges.map(
    lambda rs: tuple(p for a, b in merge(rs) for x in range(a, b + 1) for p in cover(Family.IPV4, [(x, x)]))
) | st.just(cover(Family.IPV4, [(0, 2**32 - 1)]))
ports = st.lists(st.sampled_from([(0, 0), (0, 2), (1, 2), (2, 2), (3, 65535), (1, 65535)]), max_size=2).map(
    lambda rs: tuple(PortRange(*r) for r in merge(rs))
)


def rule(verdicts: st.SearchStrategy[Verdict]) -> st.SearchStrategy[Rule]:
    peers = st.none() | st.sampled_from(SETS)
    return st.one_of(
        st.builds(Rule, verdicts, peers),
        st.builds(Rule, verdicts, peers, st.sampled_from([Protocol.TCP, Protocol.UDP]), ports),
    )


tier = st.lists(rule(st.sampled_from(Verdict)), max_size=4).map(tuple)
allows = st.lists(rule(st.just(Verdict.ALLOW)), max_size=5).map(tuple)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    sets = tuple(AddressSet(name, Family.IPV4, draw(prefixes)) for name in SETS)
    enforcements = []
    for direction in Direction:
        for pod in PODS:
            isolated = draw(st.booleans())
            rules = draw(allows) if isolated else ()
            name = f"{direction.value} {pod}"
            enforcements.append(
                Enforcement(name, Family.IPV4, direction, (pod,), isolated, rules, draw(tier), draw(tier))
            )
    return Program(Node(families=(Family.IPV4,)), sets=sets, enforcements=tuple(enforcements))


def verdicts(program: Program) -> list[bool]:
    interpreter = Interpreter(program)
    peers = [IPv4Address(BASE + i) for i in range(9)]
    out = []
    for source, destination in product(peers, peers):
        if source not in PODS and destination not in PODS:
            continue
        sender = Sender.POD if source in PODS else Sender.EXTERNAL
        for protocol, port in product((*Protocol, None), PORTS):
            packet = Packet(sender, source, destination, protocol, port if protocol else 0)
            out.append(bool(interpreter.run(packet).arrivals))
    return out


@given(programs())
@settings(max_examples=40, deadline=None)
def test_every_pass_keeps_every_verdict(program: Program) -> None:
    expected = verdicts(verify(program))
    for name, run in PASSES:
        program = verify(run(program))
        assert verdicts(program) == expected, name
        assert parse(text_of(program)) == program, name


@pytest.mark.parametrize("count", [300])
def test_sets_after_the_passes_are_minimal(count: int) -> None:
    prefixes = tuple(p for i in range(count) for p in cover(Family.IPV4, [(BASE + i, BASE + i)]))
    pods = (PODS[0],)
    enforcement = Enforcement("e", Family.IPV4, Direction.EGRESS, pods, rules=(Rule(Verdict.ALLOW, "s"),))
    program = Program(sets=(AddressSet("s", Family.IPV4, prefixes),), enforcements=(enforcement,))
    for _, run in PASSES:
        program = run(program)
    assert len(program.sets[0].prefixes) == bin(count).count("1")
    members = Members(Family.IPV4, program.sets[0].prefixes)
    assert [BASE + i in members for i in (-1, 0, count - 1, count)] == [False, True, True, False]
