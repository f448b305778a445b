"""How fast Services are compiled and restored, and what a connection costs.

    python -m bench.services [--services 10000 --endpoints 10] [--skip-yaml] [--skip-kernel]

First the compiler: wall time and peak memory of `k8snetc compile` as a whole process, the time of each step, lines
emitted. Then, in a lab cluster (root): the time of one restore for each variant of iptables, and the latency of TCP
connects from a pod to another node's pod: direct without any rules, direct with all rules, and to the first and the
last service. The connects are interleaved, so that the ratios hold on a noisy machine; the median counts.

At the end a table: what is asked at 10,000 x 10 on a machine with 2 cores, what was measured, whether that is met.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench import _connects
from bench._bars import Bar, show
from k8snetc.backends.base import EmitOptions
from k8snetc.backends.registry import load
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.install import install_artifacts

NODE_PORTS = 2000
SMALL = Path(__file__).parents[1] / "examples" / "web-shop" / "manifests"


def main() -> None:
    """Generate, compile, restore, connect."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--services", type=int, default=10000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--skip-yaml", action="store_true", help="compile from JSON only")
    parser.add_argument("--skip-kernel", action="store_true", help="no root needed: no restore, no connects")
    args = parser.parse_args()
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory(prefix="k8snetc-bench-") as name:
        _compiler(Path(name), args.services, args.endpoints, bars, yaml=not args.skip_yaml)
    if not args.skip_kernel:
        if os.geteuid() != 0:
            sys.exit("restore and connects need root; leave them out with --skip-kernel")
        _kernel(args.services, args.endpoints, bars)
    print()
    show(bars)


# --- the compiler ---


def _compiler(folder: Path, services: int, endpoints: int, bars: list[Bar], *, yaml: bool) -> None:
    size = f"{services:,} x {endpoints}"
    path = _generate(folder, "json", services, endpoints)
    found = _compile(path, folder / "out")
    bars += [
        Bar(f"compile {size} from JSON", found.wall, "s", 4),
        Bar(f"compile {size} from JSON, memory", found.megabytes, "MB", 700),
        Bar(f"lines of {size}", found.lines, "lines", 130_000),
    ]
    if yaml:
        found = _compile(_generate(folder, "yaml", services, endpoints), folder / "out")
        bars.append(Bar(f"compile {size} from YAML", found.wall, "s", 7))
    ports = min(services, NODE_PORTS)
    path = _generate(folder, "json", services, endpoints, "--dual-stack", "--node-ports", str(ports))
    found = _compile(path, folder / "out")
    both = f"{size} dual-stack, {ports:,} NodePorts"
    bars += [
        Bar(f"compile {both}", found.wall, "s"),
        Bar(f"compile {both}, memory", found.megabytes, "MB"),
        Bar(f"lines of {both}", found.lines, "lines"),
    ]
    small = [_compile(SMALL, folder / "out", quiet=True).wall for _ in range(5)]
    print(f"{SMALL.parent.name}: {min(small):.2f} to {max(small):.2f} s with start-up ({len(small)} runs)")
    bars.append(Bar("compile a small folder, with start-up", sorted(small)[len(small) // 2], "s", 0.5))


def _generate(folder: Path, form: str, services: int, endpoints: int, *more: str) -> Path:
    path = folder / f"cluster.{form}"
    words = ["--services", str(services), "--endpoints", str(endpoints), "--format", form, *more]
    with path.open("w", encoding="utf-8") as out:
        subprocess.run([sys.executable, "-m", "bench.generate", *words], stdout=out, check=True)
    size = f"{path.stat().st_size / 1e6:.0f} MB of {form.upper()}"
    print(" ".join([f"{services} services x {endpoints} endpoints, {size}", *more]))
    return path


@dataclass(frozen=True, slots=True)
class Compiled:
    """A run of the command as a whole process."""

    wall: float
    megabytes: float
    lines: int


def _compile(path: Path, out: Path, *, quiet: bool = False) -> Compiled:
    command = [
        str(Path(sys.executable).with_name("k8snetc")),
        "compile",
        str(path),
        "-b",
        "iptables",
        "-v",
        "-o",
        str(out),
    ]
    start = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode != 0:
        sys.exit(said)
    lines = sum(p.read_bytes().count(b"\n") for p in out.iterdir())
    processor = usage.ru_utime + usage.ru_stime
    found = Compiled(wall, usage.ru_maxrss / 1024, lines)
    if not quiet:
        size = f"peak {found.megabytes:.0f} MB, {lines} lines"
        print(f"  compile  {wall:6.2f} s wall, {processor:.2f} s processor, {size}")
        print("".join(f"  {line}\n" for line in said.splitlines() if " s " in line), end="")
    return found


# --- the kernel ---


def _kernel(services: int, endpoints: int, bars: list[Bar]) -> None:
    program = _connects.program(services, endpoints)
    artifacts = load("iptables").compile(program, EmitOptions())
    lines = sum(a.text.count("\n") for a in artifacts)
    print(f"restore and connect: {services} services x {endpoints} endpoints, {lines} lines")
    for variant, most in (("legacy", 1.5), ("nft", None)):
        with Cluster(_connects.topology()) as cluster, _connects.serving(cluster, endpoints):
            bare = _connects.medians(cluster, [(_connects.SERVER_ADDRESS, _connects.FIRST_PORT)])[0]
            start = time.perf_counter()
            install_artifacts(cluster, "n1", artifacts, variant=variant)
            took = time.perf_counter() - start
            print(f"  {variant:7}{took:6.2f} s to restore everything")
            direct, first, last = _connects.report(cluster, services, bare)
        bars += [
            Bar(f"iptables-{variant}: restore everything", took, "s", most),
            Bar(f"iptables-{variant}: connect to the first service", first / direct, "x direct", 1.5),
            Bar(f"iptables-{variant}: connect to the last service", last / direct, "x direct", 1.5),
            Bar(f"iptables-{variant}: the same, against no rules at all", last / bare, "x direct"),
        ]


if __name__ == "__main__":
    main()
