"""How cost grows with the number of services: time to compile, lines, and what a connection costs.

    python -m bench.scaling [--services 1000 2500 5000 10000] [--skip-kernel] [--plot DIR]

For each size: seconds and memory of the compiler (each run a process of its own), lines and seconds of each back end;
at the largest size also for dual-stack, for 2,000 NodePorts, and for both. Then in a lab cluster (root), for each back
end that this kernel can run: the latency of TCP connects to the last service, as a multiple of a direct connect past
the same rules; the connects are interleaved, so that the ratio holds on a noisy machine. `--plot DIR` draws each table
as SVG. The bars are in bench.services and bench.nftables.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench import _connects
from bench._plot import chart
from bench.generate import Cluster as Generated
from bench.generate import write
from k8snetc.backends.base import EmitOptions
from k8snetc.backends.registry import load
from k8snetc.backends.target import InstallOptions
from k8snetc.compiler.options import ContextOptions
from k8snetc.compiler.pipeline import Timings, compile_program, no_collector
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.handle import LabError
from k8snetc.lab.install import install_program

BACKENDS = ("iptables", "nftables", "ipvs", "ebpf")
INSTALLED = {
    "iptables-legacy": ("iptables", "legacy"),
    "iptables-nft": ("iptables", "nft"),
    "nftables": ("nftables", ""),
    "ebpf": ("ebpf", ""),
}
NODE_PORTS = 2000
VARIANTS: dict[str, tuple[bool, int]] = {  # dual-stack, NodePorts
    "dual-stack": (True, 0),
    "NodePorts": (False, NODE_PORTS),
    "dual-stack, NodePorts": (True, NODE_PORTS),
}

Lines = dict[str, list[tuple[float, float]]]


@dataclass(slots=True)
class Measured:
    """One compile: seconds to the optimised program, then per back end seconds to the text, and its lines; memory."""

    program: float
    emit: dict[str, float] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    megabytes: float = 0.0


def main() -> None:
    """Measure, print tables, draw them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--services", type=int, nargs="+", default=[1000, 2500, 5000, 10000])
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--skip-kernel", action="store_true", help="no root needed: no connects")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="write SVG charts into DIR")
    parser.add_argument("--measure", metavar="FILE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(asdict(_measure(args.measure))))
        return
    sizes = sorted(set(args.services))
    charts = _compile(sizes, args.endpoints)
    if not args.skip_kernel:
        if os.geteuid() != 0:
            sys.exit("connects need root; leave them out with --skip-kernel")
        charts["connect"] = _connect(sizes, args.endpoints)
    if args.plot:
        _draw(args.plot, args.endpoints, charts)


def _draw(folder: Path, endpoints: int, charts: dict[str, Lines]) -> None:
    titles = {
        "compile": (f"Compiling services x {endpoints} endpoints from JSON", "seconds"),
        "lines": (f"Lines for services x {endpoints} endpoints", "lines"),
        "connect": ("TCP connect to the last service, against a direct connect", "times direct"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in charts.items():
        title, up = titles[name]
        path = folder / f"{name}.svg"
        path.write_text(chart(title, "services", up, lines), encoding="utf-8")
        print(f"wrote {path}")


# --- the compiler ---


def _compile(sizes: list[int], endpoints: int) -> dict[str, Lines]:
    seconds: Lines = defaultdict(list)
    counts: Lines = defaultdict(list)
    print(f"compile, {endpoints} endpoints each: seconds from JSON to the program, then per back end; lines")
    print(f"  {'services':>32} {'program':>8} {'peak':>8} " + " ".join(f"{b:>18}" for b in BACKENDS))
    for services in sizes:
        found = _run(Generated(services, endpoints))
        _row(f"{services}", found)
        for backend in BACKENDS:
            seconds[backend].append((services, found.program + found.emit[backend]))
            counts[backend].append((services, found.lines[backend]))
    for name, (dual_stack, node_ports) in VARIANTS.items():
        ports = min(node_ports, sizes[-1])
        made = Generated(sizes[-1], endpoints, dual_stack=dual_stack, node_ports=ports)
        _row(f"{sizes[-1]} {name}", _run(made))
    return {"compile": dict(seconds), "lines": dict(counts)}


def _row(name: str, found: Measured) -> None:
    each = (f"{found.emit[b]:6.2f} s {found.lines[b]:9,}" for b in BACKENDS)
    print(f"  {name:>32} {found.program:6.2f} s {found.megabytes:5.0f} MB " + " ".join(each), flush=True)


def _run(made: Generated) -> Measured:
    """Compile in a process of its own, so that memory is that of one compile."""
    with tempfile.TemporaryDirectory(prefix="k8snetc-bench-") as folder:
        path = Path(folder) / "cluster.json"
        with path.open("w", encoding="utf-8") as out:
            write(made.objects(), out, "json")
        words = [sys.executable, "-m", "bench.scaling", "--measure", str(path)]
        said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Measured(**json.loads(said))


def _measure(path: str) -> Measured:
    timings = Timings()
    with no_collector(freeze=True):  # as the command does
        program = compile_program([path], ContextOptions(), timings=timings).program
    found = Measured(sum(timings.steps.values()))
    for name in BACKENDS:
        backend = load(name)
        start = time.perf_counter()
        artifacts = backend.compile(program, EmitOptions())
        found.emit[name] = time.perf_counter() - start
        found.lines[name] = sum(a.text.count("\n") for a in artifacts)
    found.megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


# --- the kernel ---


def _connect(sizes: list[int], endpoints: int) -> Lines:
    """Per back end, connects to the last service as multiples of direct ones."""
    lines: Lines = defaultdict(list)
    print("connect: microseconds, direct past the rules and to the last service; their ratio")
    for name, (backend, variant) in INSTALLED.items():
        try:
            for services in sizes:
                direct, last = _connect_once(backend, variant, services, endpoints)
                lines[name].append((services, last / direct))
                print(
                    f"  {name:>16} {services:6} services: direct {direct:6.1f} us, last {last:6.1f} us, "
                    f"{last / direct:.2f} x direct",
                    flush=True,
                )
        except (LabError, OSError) as error:  # a connect that is not answered, too
            print(f"  {name:>16} {services:6} services: FAILED: {error}")
    return dict(lines)


def _connect_once(backend: str, variant: str, services: int, endpoints: int) -> tuple[float, float]:
    program = _connects.program(services, endpoints)
    with (
        Cluster(_connects.topology(), with_cgroups=backend == "ebpf") as cluster,
        _connects.serving(cluster, endpoints),
    ):
        install_program(cluster, "n1", backend, program, InstallOptions(iptables=variant))
        places = [
            (_connects.SERVER_ADDRESS, _connects.FIRST_PORT),
            (str(_connects.service_address(services - 1)), 80),
        ]
        direct, last = _connects.medians(cluster, places)
        return direct, last


if __name__ == "__main__":
    main()
