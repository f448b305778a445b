"""The passes keep the meaning of services: the interpreter says the same before and after each, on every packet."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8snetc.compiler.options import context_options
from k8snetc.compiler.pipeline import compile_manifests, read
from k8snetc.ir.interpret import Interpreter, Packet, Result, Sender
from k8snetc.ir.parse import parse
from k8snetc.ir.passes import PASSES
from k8snetc.ir.text import text_of
from k8snetc.ir.types import Address, Family, Program, Protocol, Refusal
from k8snetc.ir.verify import verify
from tests.support.lab import small
from tests.support.programs import BALANCER_IPS, CLUSTER_IPS, Generator
from tests.support.repository import ROOT

T = TypeVar("T")
TOPOLOGY = small()


def packets(program: Program) -> list[Packet]:
    """Every kind of sender, to everything that means something to the program and to a little that does not."""
    out = []
    for family in program.node.families:
        base, outside = CLUSTER_IPS[family], BALANCER_IPS[family]
        own = [a for a in program.node.addresses if a.version == family]
        pods = [a for p in TOPOLOGY.pods for a in p.addresses if a.version == family]
        clients = [a for c in TOPOLOGY.clients for a in c.addresses if a.version == family]
        senders = [
            *((Sender.POD, a) for a in pods[:2]),
            *((Sender.NODE, a) for a in own),
            *((Sender.EXTERNAL, a) for a in (*clients[:1], *pods[2:3])),
        ]
        ports = {(f.protocol, f.port) for f in program.frontends if f.family is family}
        ends = {(b.protocol, e.port) for b in program.balancers if b.family is family for e in b.endpoints}
        asked = [*sorted(ports | ends, key=str), (Protocol.TCP, 999), (None, 0)]
        addresses = {f.address for f in program.frontends if f.family is family and f.address is not None}
        addresses |= {type(own[0])(base + 60), type(own[0])(outside + 60), *own, *pods}
        for sender, source in senders:
            for to in sorted(addresses, key=int):
                out += [Packet(sender, source, to, protocol, port, "pod1") for protocol, port in asked]
    return out


Said = tuple[Refusal | None, frozenset[tuple[Address, int, bool, bool, bool]]]


def said(result: Result) -> Said:
    """What the interpreter says, without how it came to it."""
    return result.refusal, frozenset(
        (d.address, d.port, d.translated, d.masqueraded, d.denied is None) for d in result.deliveries
    )


def verdicts(program: Program, asked: list[Packet]) -> list[Said]:
    interpreter = Interpreter(program)
    return [said(interpreter.run(packet)) for packet in asked]


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=20, deadline=None)
def test_every_pass_keeps_every_verdict(seed: int, policy: bool) -> None:
    program = Generator(TOPOLOGY, seed).program(services=5, policy=policy)
    asked = packets(program)
    expected = verdicts(program, asked)
    assert any(r is None and d for r, d in expected), "some packets arrive"
    for name, run in PASSES:
        program = verify(run(program))
        assert verdicts(program, asked) == expected, name
        assert parse(text_of(program)) == program, name


FOLDERS = {
    **{f"examples/{p.name}": p / "manifests" for p in (ROOT / "examples").iterdir() if p.is_dir()},
    **{f"corpus/{p.name}": p for p in (ROOT / "tests" / "corpus").iterdir() if p.is_dir()},
}


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_real_manifests_keep_their_meaning_and_their_text(folder: str) -> None:
    """As `--print-between-passes` shows them: each stage parses back, and none changes a verdict."""
    options = context_options({})
    seen: list[tuple[str, Program]] = []
    manifests = read([str(FOLDERS[folder])], options, assume=True)
    compile_manifests(manifests, options, watch=lambda name, program: seen.append((name, program)))
    assert [name for name, _ in seen] == ["lower", *(name for name, _ in PASSES)]
    asked = some(seen[0][1])
    expected = verdicts(seen[0][1], asked)
    assert any(d for _, d in expected)
    for name, program in seen:
        text = text_of(program)
        again = parse(text)
        assert again == program, name
        assert text_of(again) == text, f"{name}: origins too"
    assert verdicts(seen[-1][1], asked) == expected


def some(program: Program) -> list[Packet]:
    """Pods and an outside client to frontends and endpoints; a sample of each, evenly spread."""
    out = []
    for family in program.node.families:
        ends = [e for b in program.balancers if b.family is family for e in b.endpoints]
        places = [f for f in program.frontends if f.family is family and f.address is not None]
        stranger = ip_address({Family.IPV4: "203.0.113.250", Family.IPV6: "2001:db8:ffff::250"}[family])
        senders = [(Sender.EXTERNAL, stranger), *((Sender.POD, e.address) for e in spread(ends, 6))]
        for sender, source in senders:
            for f in spread(places, 40):
                assert f.address is not None
                out += [Packet(sender, source, f.address, f.protocol, p) for p in (f.port, 1)]
            for e in spread(ends, 40):
                out += [
                    Packet(sender, source, e.address, Protocol.TCP, e.port),
                    Packet(sender, source, e.address, None),
                ]
    return out


def spread(things: list[T], most: int) -> list[T]:
    """At most that many, from everywhere in the list."""
    return things[:: max(1, len(things) // most)][:most]
