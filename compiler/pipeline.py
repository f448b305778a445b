"""From paths to a program: load, validate, assume, resolve, lower, passes. The order of things, once.

Knows: which step follows which, and how long each took. Must not know: what a step does inside, the
command line, or any back end.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, BinaryIO

from k8snetc.ir.passes import run_passes, stages
from k8snetc.ir.types import Program

if TYPE_CHECKING:
    from k8snetc.compiler.diagnostics import Diagnostic
    from k8snetc.compiler.facts import NodeContext
    from k8snetc.compiler.manifests import Manifests
    from k8snetc.compiler.manifests_service import Service
    from k8snetc.compiler.options import ContextOptions

Watch = Callable[[str, Program], None]


@dataclass(slots=True)
class Timings:
    """Seconds that each step took, in order. For benchmarks and `-v`. `began` is told the name of each step."""

    steps: dict[str, float] = field(default_factory=dict)
    began: Callable[[str], None] | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure one step."""
        if self.began is not None:
            self.began(name)
        start = time.perf_counter()
        yield
        self.steps[name] = self.steps.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Compiled:
    """A program with what it was made of."""

    program: Program
    manifests: Manifests
    node: NodeContext


def compile_program(
    paths: Sequence[str],
    options: ContextOptions,
    *,
    assume: bool = False,
    stdin: BinaryIO | None = None,
    watch: Watch | None = None,
    timings: Timings | None = None,
) -> Compiled:
    """The optimised program for the node that `options` name.

    `assume` makes addresses up where manifests have none. `watch` sees the program after lowering and
    after each pass. Raises `InputError` with every diagnostic of the first step that fails.
    """
    timings = timings or Timings()
    manifests = read(paths, options, assume=assume, stdin=stdin, timings=timings)
    return compile_manifests(manifests, options, watch=watch, timings=timings)


def read(
    paths: Sequence[str],
    options: ContextOptions,
    *,
    assume: bool = False,
    stdin: BinaryIO | None = None,
    timings: Timings | None = None,
) -> Manifests:
    """The validated manifests, with `assume` also what a cluster would have added. Raises `InputError`."""
    timings = timings or Timings()
    with no_collector():
        with timings.step("import"):
            from k8snetc.compiler.context import node_ports_out_of_range
            from k8snetc.compiler.load import load
            from k8snetc.compiler.manifests import validate
            from k8snetc.compiler.resolve import without_address

        def unfit(services: Sequence[Service]) -> Iterator[Diagnostic]:
            yield from node_ports_out_of_range(services, options)
            if not assume:
                yield from without_address(services)

        with timings.step("load"):  # documents stream through, so loading and validating are one step
            manifests = validate(load(paths, stdin or sys.stdin.buffer), unfit=unfit)
        if assume:
            with timings.step("assume"):
                from k8snetc.compiler import assume as assumption

                node_ports = options.service_node_port_range or assumption.NODE_PORTS
                manifests = assumption.assume(manifests, node_ports=node_ports)
    return manifests


def compile_manifests(
    manifests: Manifests,
    options: ContextOptions,
    *,
    watch: Watch | None = None,
    timings: Timings | None = None,
) -> Compiled:
    """The optimised program for the node that `options` name. Raises `InputError`; see `compile_program`."""
    timings = timings or Timings()
    with no_collector():
        compiled = _lowered(manifests, options, timings)
        with timings.step("passes"):
            if watch is None:
                return replace(compiled, program=run_passes(compiled.program))
            for name, program in stages(compiled.program):
                watch(name, program)
                compiled = replace(compiled, program=program)
            return compiled


def _lowered(manifests: Manifests, options: ContextOptions, timings: Timings) -> Compiled:
    """The program before any pass."""
    with timings.step("import"):
        from k8snetc.compiler.context import node_context
        from k8snetc.compiler.lower import lower
        from k8snetc.compiler.resolve import resolve
    with timings.step("resolve"):
        node = node_context(manifests, options)
        facts = resolve(manifests, node, assumed=manifests.assumed)
    with timings.step("lower"):
        program = lower(facts)
    return Compiled(program, manifests, node)


@contextmanager
def no_collector(*, freeze: bool = False) -> Iterator[None]:
    """Without the cycle collector: millions of small values are made, none in cycles, all still needed.

    `freeze`: nor will it look through them later (each is still freed when nothing refers to it any more). That is for
    a process that compiles once: cycles that exist by then, whoever made them, stay until it ends.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if freeze:
                gc.freeze()
            gc.enable()
