"""Programs and the exact C, tables and hooks that they become, and what is not in the C (`make golden` rewrites)."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from k8snetc.backends.base import EmitOptions, UnsupportedError
from k8snetc.backends.ebpf import BACKEND, build, emit
from k8snetc.backends.ebpf.lower import lower
from k8snetc.ir.parse import parse
from k8snetc.ir.types import Family, Program, Protocol
from k8snetc.ir.verify import verify
from tests.backends.ebpf import support
from tests.support import golden

HERE = Path(__file__).parent / "golden"
CASES = sorted(p.name for p in HERE.iterdir())
IPV4 = (Family.IPV4,)


def code(program: Program) -> str:
    return emit.program(lower(program))


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    source = (HERE / case / "program.ir").read_text()
    artifacts = BACKEND.compile(verify(parse(source)), EmitOptions())
    golden.check_folder(HERE / case, {a.name: a.text for a in artifacts} | {"program.ir": source})


def test_no_code_for_what_no_object_asks() -> None:
    plain = support.services("w1", IPV4)
    assert not re.search(
        r"ipv6|address6|ICMPV6", code(plain).partition("--- tables")[2].replace("address6[4]", "")
    )
    without = replace(
        plain,
        frontends=tuple(
            f
            for f in plain.frontends
            if f.address == support.service(Family.IPV4, 1) and f.protocol == Protocol.TCP
        ),
        rejects=(),
        drops=(),
    )
    text, every = (code(p).partition("--- types")[2] for p in (without, plain))
    for word in (
        "sum_sctp",
        "sources4",
        "affinity4",
        "refusals4",
        "nodeport_first ||",
        "admit4",
        "verdicts4",
    ):
        assert word not in text, word
    for word in ("sum_sctp", "sources4", "affinity4", "refusals4", "nodeport_first ||"):
        assert word in every, word


def test_nothing_to_do_is_nearly_no_code() -> None:
    assert "connections" not in code(Program())


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
@pytest.mark.parametrize("families", [(), IPV4, (Family.IPV6,), tuple(Family)], ids=str)
def test_clang_compiles_it_without_privilege(families: tuple[Family, ...]) -> None:
    program = support.services("w1", families) if families else Program()
    assert build.build(code(program), "-Werror").startswith(b"\x7fELF")


def test_the_order_of_the_program_does_not_matter_to_the_text() -> None:
    program = support.services("w1")
    assert code(program) == code(replace(program, frontends=tuple(reversed(program.frontends))))


def test_every_gap_is_named() -> None:
    program = support.services("w1", IPV4)
    balancers = (
        replace(program.balancers[0], scheduler="mh"),
        replace(program.balancers[1], forwarding="tunnel"),
        *program.balancers[2:],
    )
    with pytest.raises(UnsupportedError) as caught:
        lower(replace(program, balancers=balancers))
    assert [g.what for g in caught.value.gaps] == [
        "balancer all-tcp-4: scheduler mh",
        "balancer local-tcp-4: forwarding by tunnel",
    ]
