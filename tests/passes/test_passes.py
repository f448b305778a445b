"""Each pass turns `before.ir` into `after.ir` of the folder that has its name; the meaning stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from k8snetc.ir.parse import parse
from k8snetc.ir.passes import PASSES, run_passes, stages
from k8snetc.ir.text import text_of
from k8snetc.ir.verify import InvalidProgramError, verify

HERE = Path(__file__).parent
CASES = sorted(p.parent.relative_to(HERE).as_posix() for p in HERE.glob("*/*/before.ir"))


def test_every_pass_has_a_case() -> None:
    assert {c.split("/")[0].replace("_", "-") for c in CASES} == {name for name, _ in PASSES}


@pytest.mark.parametrize("case", CASES)
def test_before_becomes_after(case: str) -> None:
    run = dict(PASSES)[case.split("/", maxsplit=1)[0].replace("_", "-")]
    before = verify(parse((HERE / case / "before.ir").read_text()))
    after = verify(run(before))
    assert text_of(after) == (HERE / case / "after.ir").read_text()
    assert run(after) == after, "a pass that has run finds nothing more to do"


def test_stages_are_named_in_order() -> None:
    program = parse("node { families ipv4 }\n")
    assert [name for name, _ in stages(program)] == ["lower", *(name for name, _ in PASSES)]
    assert run_passes(program) == program


def test_a_broken_program_is_refused_with_everything_that_is_wrong() -> None:
    text = """node { families ipv4 }
    frontend cluster-ip ipv4 10.96.0.1:80/tcp sources "s" { any -> "b" }
    reject "r"
    """
    with pytest.raises(InvalidProgramError, match=r"no known balancer: b.*no known set: s.*unknown set: r"):
        verify(parse(text))


def test_what_a_pass_leaves_alone_is_not_verified_again() -> None:
    text = """node { families ipv4 }
    frontend cluster-ip ipv4 10.96.0.1:80/tcp { any -> reject }
    frontend cluster-ip ipv4 10.96.0.2:80/tcp { any -> reject }
    """
    program = verify(parse(text))
    assert [after.frontends is program.frontends for _, after in stages(program)] == [True] * (
        len(PASSES) + 1
    )

    twice = replace(program, frontends=program.frontends * 2)
    with pytest.raises(InvalidProgramError, match="two frontends"):
        verify(twice, since=program)
    assert verify(replace(twice, drops=()), since=twice).drops == ()


@pytest.mark.parametrize("part", ["balancers", "frontends", "sets", "rejects", "drops", "enforcements"])
def test_a_pass_that_breaks_any_part_is_found_out(part: str) -> None:
    text = """node { families ipv4 }
    balancer "b" ipv4 tcp { 10.1.0.1:80 }
    frontend cluster-ip ipv4 10.96.0.1:80/tcp sources "s" { any -> "b" }
    set "s" ipv4 { 10.0.0.0/8 }
    reject "s"
    drop "s"
    enforce "e" ipv4 ingress { pods 10.1.0.1 isolated { allow peers "s" } }
    """
    program = verify(parse(text))
    broken = {
        "balancers": (),
        "frontends": program.frontends * 2,
        "sets": (),
        "rejects": ("t",),
        "drops": ("t",),
        "enforcements": program.enforcements * 2,
    }
    with pytest.raises(InvalidProgramError):
        verify(replace(program, **{part: broken[part]}), since=program)  # type: ignore[arg-type]  # see `broken`
