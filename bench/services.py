"""How fast Services are compiled and restored, and what a connection costs.

    python -m bench.services [--services 10000 --endpoints 10] [--skip-yaml] [--skip-kernel]

First the compiler: wall time and peak memory of `k8snetc compile` as a whole process, the time of each step, lines
emitted. Then, in a lab cluster (root): the time of one restore for each variant of iptables, and the latency of TCP
connects from a pod to another node's pod: direct without any rules, direct with all rules, and to the first and the
last service. The connects are interleaved, so that the ratios hold on a noisy machine; the median counts.

Bars at 10,000 x 10 on 2 cores: compile under 4 s and 700 MB from JSON, under 7 s from YAML; at most 130,000 lines;
legacy restore under 1.5 s; connect to any service at most 1.5 times direct.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import _connects
from k8snetc.backends.base import EmitOptions
from k8snetc.backends.registry import load
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.install import install_artifacts


def main() -> None:
    """Generate, compile, restore, connect."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--services", type=int, default=10000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--skip-yaml", action="store_true", help="compile from JSON only")
    parser.add_argument("--skip-kernel", action="store_true", help="no root needed: no restore, no connects")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="k8snetc-bench-") as name:
        folder = Path(name)
        for form in ("json",) if args.skip_yaml else ("json", "yaml"):
            path = _generate(folder, form, args.services, args.endpoints)
            _compile(path, folder / "out")
        if args.skip_kernel:
            return
        if os.geteuid() != 0:
            sys.exit("restore and connects need root; leave them out with --skip-kernel")
        _kernel(args.services, args.endpoints)


def _generate(folder: Path, form: str, services: int, endpoints: int) -> Path:
    path = folder / f"cluster.{form}"
    words = ["--services", str(services), "--endpoints", str(endpoints), "--format", form]
    with path.open("w", encoding="utf-8") as out:
        subprocess.run([sys.executable, "-m", "bench.generate", *words], stdout=out, check=True)
    print(
        f"{services} services x {endpoints} endpoints, {path.stat().st_size / 1e6:.0f} MB of {form.upper()}"
    )
    return path


def _compile(path: Path, out: Path) -> None:
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
    size = f"peak {usage.ru_maxrss / 1024:.0f} MB, {lines} lines"
    print(f"  compile  {wall:6.2f} s wall, {processor:.2f} s processor, {size}")
    print("".join(f"  {line}\n" for line in said.splitlines() if " s " in line), end="")


# --- the kernel ---


def _kernel(services: int, endpoints: int) -> None:
    program = _connects.program(services, endpoints)
    artifacts = load("iptables").compile(program, EmitOptions())
    lines = sum(a.text.count("\n") for a in artifacts)
    print(f"restore and connect: {services} services x {endpoints} endpoints, {lines} lines")
    for variant in ("legacy", "nft"):
        with Cluster(_connects.topology()) as cluster, _connects.serving(cluster, endpoints):
            bare = _connects.medians(cluster, [(_connects.SERVER_ADDRESS, _connects.FIRST_PORT)])[0]
            start = time.perf_counter()
            install_artifacts(cluster, "n1", artifacts, variant=variant)
            print(f"  {variant:7}{time.perf_counter() - start:6.2f} s to restore everything")
            _connects.report(cluster, services, bare)


if __name__ == "__main__":
    main()
