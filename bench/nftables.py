"""How fast nftables rules are installed, read back and changed, and what a connection costs.

    python -m bench.nftables [--services 10000 --endpoints 10] [--skip-connects]

In a lab cluster (root): the time of each phase of a full installation through the back end's own steps, of reading
back, and of a change of one endpoint on top, and how much of the latter is the transaction; then the latency of TCP
connects from a pod to another node's pod, as bench.services does it. On a busy machine the processor's time counts: it
holds the kernel's part of each system call.

Bars at 10,000 x 10 on 2 cores: full installation under 3 s; the transaction for one endpoint under 50 ms; connect to
any service at most 1.4 times direct. 50,000 x 5 still loads.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from bench import _connects
from k8snetc.backends.base import EmitOptions
from k8snetc.backends.nftables import BACKEND
from k8snetc.backends.nftables.install import NftablesTarget, target
from k8snetc.backends.target import InstallOptions
from k8snetc.ir.types import Program
from k8snetc.lab.cluster import Cluster

NODE = "node/n1"


def main() -> None:
    """Install, read back, change, connect."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--services", type=int, default=10000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--skip-connects", action="store_true", help="only install, read back and change")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("this needs root, because it makes network namespaces")
    program = _connects.program(args.services, args.endpoints)
    changed = _connects.program(args.services, args.endpoints, changed=True)
    start = time.perf_counter()
    text = BACKEND.compile(program, EmitOptions())[0].text
    took = time.perf_counter() - start
    size = f"{text.count(chr(10))} lines, {len(text) / 1e6:.1f} MB"
    print(f"{args.services} services x {args.endpoints} endpoints: {size}; lower and emit {took:.2f} s")
    with Cluster(_connects.topology()) as cluster, _connects.serving(cluster, args.endpoints):
        place = [(_connects.SERVER_ADDRESS, _connects.FIRST_PORT)]
        bare = 0.0 if args.skip_connects else _connects.medians(cluster, place)[0]
        print(cluster.call(NODE, _install, program, changed))
        if not args.skip_connects:
            _connects.report(cluster, args.services, bare)


def _install(program: Program, changed: Program) -> str:
    """Runs on the node. What took how long, in lines."""
    grip = target(InstallOptions())
    lines = ["  full installation", *_apply(grip, program), "  one endpoint changed", *_apply(grip, changed)]
    lines += ["  nothing changed", *_apply(grip, changed)]
    return "\n".join(lines)


def _apply(grip: NftablesTarget, program: Program) -> list[str]:
    times: dict[str, tuple[float, float]] = {}
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
    return [
        f"    {name:24} {wall * 1000:8.1f} ms, processor {busy * 1000:8.1f} ms"
        for name, (wall, busy) in times.items()
    ]


if __name__ == "__main__":
    main()
