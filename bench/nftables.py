"""How fast nftables rules are installed, read back and changed, and what a connection costs.

    python -m bench.nftables [--services 10000 --endpoints 10] [--skip-connects]

In a lab cluster (root): the time of each phase of a full installation through the back end's own steps, of reading
back, and of a change of one endpoint on top, and how much of the latter is the transaction; then the latency of TCP
connects from a pod to another node's pod, as bench.services does it, beside what connection tracking alone and
empty nat chains cost, which whoever translates connections pays. On a busy machine the processor's time counts: it
holds the kernel's part of each system call.

Then the same without connects at 50,000 x 5, where only the figures are asked for. Bars at 10,000 x 10 on 2 cores: full
installation (from the program to verified) under 3 s; the transaction for one endpoint under 50 ms; connect to any
service at most 1.4 times direct.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time

from bench import _connects
from bench._bars import Bar, show
from k8snetc.backends.base import EmitOptions
from k8snetc.backends.nftables import BACKEND
from k8snetc.backends.nftables.install import target
from k8snetc.backends.target import InstallOptions
from k8snetc.ir.types import Program
from k8snetc.lab.cluster import Cluster

NODE = "node/n1"
LARGE = (50_000, 5)
Phases = dict[str, tuple[float, float]]
"""By phase: seconds on the clock and of the processor."""


def main() -> None:
    """Install, read back, change, connect."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=5, help="how often one endpoint changes")
    parser.add_argument("--skip-connects", action="store_true", help="only install, read back and change")
    parser.add_argument("--skip-large", action="store_true", help="without 50,000 services")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("this needs root, because it makes network namespaces")
    bars = _measure(args.services, args.endpoints, args.repeat, connects=not args.skip_connects)
    if not args.skip_large:
        bars += _measure(*LARGE, 1, connects=False, asked=False)
    show(bars)


def _measure(services: int, endpoints: int, repeat: int, *, connects: bool, asked: bool = True) -> list[Bar]:
    program = _connects.program(services, endpoints)
    changed = _connects.program(services, endpoints, changed=True)
    start = time.perf_counter()
    text = BACKEND.compile(program, EmitOptions())[0].text
    took = time.perf_counter() - start
    size = f"{text.count(chr(10))} lines, {len(text) / 1e6:.1f} MB"
    print(f"{services} services x {endpoints} endpoints: {size}; lower and emit {took:.2f} s")
    title = f"{services:,} x {endpoints}"
    with Cluster(_connects.topology()) as cluster, _connects.serving(cluster, endpoints):
        place = [(_connects.SERVER_ADDRESS, _connects.FIRST_PORT)]
        bare, others = _without_ours(cluster, place) if connects else (0.0, {})
        full, one, nothing = cluster.call(NODE, _install, program, changed, repeat)
        for name, phases in (
            ("full installation", full),
            ("one endpoint changed", one),
            ("nothing changed", nothing),
        ):
            print(f"  {name}")
            for phase, (wall, busy) in phases.items():
                print(f"    {phase:24} {wall * 1000:8.1f} ms, processor {busy * 1000:8.1f} ms")
        title = f"nftables, {title}"
        bars = [
            Bar(f"{title}: full installation", _whole(full)[0], "s", 3 if asked else None),
            Bar(f"{title}: the same, processor", _whole(full)[1], "s"),
            Bar(f"{title}: its transaction", _transaction(full)[0], "s"),
            Bar(
                f"{title}: transaction for one endpoint",
                _transaction(one)[0] * 1e3,
                "ms",
                50 if asked else None,
            ),
            Bar(f"{title}: one endpoint, from program to verified", _whole(one)[0], "s"),
            Bar(f"{title}: the same, processor", _whole(one)[1], "s"),
        ]
        if connects:
            for name, took in others.items():
                print(f"    {name:40} {took:6.1f} us, {took / bare:.2f} x without rules")
            direct, *services_ = _connects.report(cluster, services, bare)
            bars.append(
                Bar(f"{title}: connect, past the same rules", max(services_) / direct, "x direct", 1.4)
            )
            bars.append(
                Bar(f"{title}: connect, to a node without rules", max(services_) / bare, "x direct", 1.4)
            )
            bars += [Bar(f"{title}: {n}, to the same", t / bare, "x direct") for n, t in others.items()]
    return bars


TRACKED = """table ip bench {
\tchain forward {
\t\ttype filter hook forward priority filter; policy accept;
\t\tct state established,related accept
\t}
}
"""
NAT = """table ip bench-nat {
\tchain prerouting { type nat hook prerouting priority dstnat; policy accept; }
\tchain postrouting { type nat hook postrouting priority srcnat; policy accept; }
\tchain output { type nat hook output priority -100; policy accept; }
}
"""


def _without_ours(cluster: Cluster, place: list[_connects.Place]) -> tuple[float, dict[str, float]]:
    """What a direct connect costs without any rules, and with what rules like ours need: microseconds.

    They take turns, a third of the connects each time, so that whatever else runs disturbs all of them.
    """
    tracked, nat = "direct, connections tracked, one rule", "direct, and nat chains without a rule"
    found: dict[str, list[float]] = {"": [], tracked: [], nat: []}
    for _ in range(3):
        for name, text in (("", ""), (tracked, TRACKED), (nat, TRACKED + NAT)):
            cluster.run(NODE, ["nft", "-f", "-"], input=f"flush ruleset\n{text}")
            found[name] += _connects.medians(cluster, place, _connects.CONNECTS // 3)
    cluster.run(NODE, ["nft", "flush", "ruleset"])
    medians = {name: statistics.median(times) for name, times in found.items()}
    return medians.pop(""), medians


def _whole(phases: Phases) -> tuple[float, float]:
    return sum(wall for wall, _ in phases.values()), sum(busy for _, busy in phases.values())


def _transaction(phases: Phases) -> tuple[float, float]:
    return next(both for name, both in phases.items() if name.startswith("transaction"))


def _install(program: Program, changed: Program, repeat: int) -> tuple[Phases, Phases, Phases]:
    """Runs on the node: all of it, one endpoint (median of `repeat` times), nothing."""
    gc.disable()  # as the commands do
    full = _apply(program)
    ones = [_apply((changed, program)[at % 2]) for at in range(repeat)]
    middle = {
        name: (statistics.median(o[name][0] for o in ones), statistics.median(o[name][1] for o in ones))
        for name in ones[0]
    }
    return full, middle, _apply((changed, program)[(repeat - 1) % 2])


def _apply(program: Program) -> Phases:
    """Each time as in a process of its own: a target remembers what it has read and lowered."""
    grip = target(InstallOptions())
    times: Phases = {}
    start = time.perf_counter(), time.process_time()

    def phase(name: str) -> None:
        nonlocal start
        now = time.perf_counter(), time.process_time()
        times[name] = now[0] - start[0], now[1] - start[1]
        start = now

    goal = grip.desired(program)
    phase("lower")
    live = grip.observe()
    phase("observe")
    steps = grip.steps(live, goal)
    phase("compare")
    for step in steps:
        step.run()
    phase(f"transaction of {sum(s.size for s in steps)}")
    left = grip.changes(grip.observe(), goal)
    phase("verify")
    if left:
        raise AssertionError(left[:3])
    return times


if __name__ == "__main__":
    main()
