"""What an apply costs on a node that already runs many services, when one endpoint changes.

    python -m bench.apply [--services 10000 --endpoints 10] [--variant nft] [--repeat 3]

Variants are `legacy` and `nft` (of iptables) and `nftables`.

In a network namespace of its own (root): a first apply, then applies that change one endpoint of one service. Reported
are the lines that are handed to the kernel's tools, the time from lock to verified, and where it goes. What the legacy
tools hand to the kernel is the whole table whatever changed (IPT_SO_SET_REPLACE); the lines count the text.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import sys
import tempfile
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from bench._bars import Bar, show
from bench.generate import Cluster
from k8snetc.apply.connectivity import effects
from k8snetc.apply.store import open_store
from k8snetc.apply.transaction import Outcome, apply, remove
from k8snetc.backends.target import InstallOptions, target_for
from k8snetc.compiler.options import ContextOptions
from k8snetc.compiler.pipeline import Timings, compile_program, no_collector
from k8snetc.ir.types import Program

CLONE_NEWNET = 0x40000000
VARIANTS = ("legacy", "nft", "nftables")


def main() -> None:
    """Compile, install, change one endpoint."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--services", type=int, default=10000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--variant", choices=VARIANTS, action="append")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("an apply needs root")
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        sys.exit(f"no network namespace can be made: {os.strerror(ctypes.get_errno())}")
    with tempfile.TemporaryDirectory(prefix="k8snetc-bench-") as folder:
        program = _program(Path(folder), args.services, args.endpoints)
        size = f"{args.services:,} x {args.endpoints}"
        bars = [
            bar
            for variant in args.variant or VARIANTS
            for bar in _variant(Path(folder) / variant, variant, program, args.repeat, size)
        ]
    show(bars)


def _program(folder: Path, services: int, endpoints: int) -> Program:
    file = folder / "cluster.json"
    objects = list(Cluster(services, endpoints).objects())
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    timings = Timings()
    program = compile_program([str(file)], ContextOptions(node="worker-000"), timings=timings).program
    print(f"{services} services x {endpoints} endpoints: compiled in {sum(timings.steps.values()):.2f} s")
    return program


def moved(program: Program, step: int) -> Program:
    """The program with one endpoint of one balancer at another address."""
    at = len(program.balancers) // 2
    balancer = program.balancers[at]
    first = replace(balancer.endpoints[0], address=ip_address(f"10.255.0.{step + 1}"))
    changed = replace(balancer, endpoints=(first, *balancer.endpoints[1:]))
    return replace(program, balancers=(*program.balancers[:at], changed, *program.balancers[at + 1 :]))


def _variant(state: Path, variant: str, program: Program, repeat: int, size: str) -> list[Bar]:
    if variant == "nftables":
        name, target = variant, target_for(variant, InstallOptions())
    else:
        name = f"iptables-{variant}"
        target = target_for("iptables", InstallOptions(iptables=variant, wait=60))
    store = open_store(state)
    try:
        with no_collector():  # as the commands do
            first = apply(target, program, store)
            changes = [apply(target, moved(program, n), store) for n in range(repeat)]
        _show(f"{name}: first apply", [first])
        _show(f"{name}: one endpoint changed ({repeat} times, median)", changes)
        lines = effects(moved(program, 1), moved(program, 2))
        assert len(lines) == 1, lines
        print(f"  the plan's line: {lines[0].symbol} {lines[0]}")
        _show(f"{name}: remove", [remove(target, store)])
    finally:
        store.close()
    title = f"apply, {name}, {size}"
    return [
        Bar(f"{title}: first, from lock to receipt", _seconds(first), "s"),
        Bar(f"{title}: one endpoint, from lock to receipt", statistics.median(map(_seconds, changes)), "s"),
        Bar(f"{title}: one endpoint, what reaches the kernel", changes[0].size, "lines"),
    ]


def _seconds(outcome: Outcome) -> float:
    return sum(seconds for _, seconds in outcome.timings)


def _show(title: str, outcomes: list[Outcome]) -> None:
    phases = [name for name, _ in outcomes[0].timings]
    each = {p: statistics.median(dict(o.timings)[p] for o in outcomes) for p in phases}
    print(f"{title}: {outcomes[0].size:,} lines to the kernel, {sum(each.values()):.2f} s")
    print("  " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in each.items()))


if __name__ == "__main__":
    main()
