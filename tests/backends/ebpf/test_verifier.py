"""The kernel's verifier takes every golden program and every combination of families and parts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from k8snetc.backends.ebpf import bpf_objects, build, emit, state
from k8snetc.backends.ebpf.lower import lower
from k8snetc.ir.parse import parse
from k8snetc.ir.types import Family, Program
from tests.backends.ebpf import support
from tests.backends.ebpf.test_emit import CASES, HERE

pytestmark = pytest.mark.kernel


def load(program: Program) -> dict[str, int]:
    """The length of each loaded program, in instructions."""
    made = bpf_objects.Object(build.build(emit.program(lower(program)), "-Werror"), "k8snetc")
    try:
        for name in made.map_names:
            if name.startswith("connections"):
                made.size(name, 64)
        made.load()
        return {name: made.instructions(name) for name in made.programs}
    finally:
        made.close()


@pytest.mark.parametrize("case", CASES)
def test_golden_programs(case: str) -> None:
    assert load(parse(Path(HERE / case / "program.ir").read_text()))


@pytest.mark.parametrize("families", [(Family.IPV4,), (Family.IPV6,), tuple(Family)], ids=str)
@pytest.mark.parametrize("make", [support.services, support.policies, support.both])
def test_parts(make: Callable[[str, tuple[Family, ...]], Program], families: tuple[Family, ...]) -> None:
    sizes = load(make("w1", families))
    assert state.PACKETS in sizes


def test_less_asked_is_less_code() -> None:
    sizes = [
        load(make("w1", families))[state.PACKETS]
        for make, families in itertools.product(
            (support.policies, support.services, support.both), ((Family.IPV4,), tuple(Family))
        )
    ]
    policy4, policy, services4, services, both4, both = sizes
    assert policy4 < services4 < both4 < both
    assert policy4 < policy < services < both
