"""Runs the benchmarks one after the other: `python -m bench [NAME...] [--plot DIR]`, each in a process of its own.

Knows: their names. Each is a module of this package with a command line of its own (`python -m bench.NAME --help`).
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import _bars

FOLDER = Path(__file__).parent
NOT_BENCHMARKS = {"__init__", "__main__", "generate"}
DRAWS = {"scaling"}


def names() -> list[str]:
    """The benchmarks there are."""
    return sorted(
        p.stem for p in FOLDER.glob("*.py") if p.stem not in NOT_BENCHMARKS and not p.stem.startswith("_")
    )


def main() -> int:
    """Run those that are named, or all. Exit code 1 if one of them failed to run."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Run benchmarks and print their tables."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which ones (default all): {', '.join(names())}"
    )
    parser.add_argument("--plot", metavar="DIR", help="write SVG charts into DIR")
    args = parser.parse_args()
    unknown = set(args.names) - set(names())
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(
        f"{os.cpu_count()} processors ({platform.machine()}), Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {load}",
        flush=True,
    )
    failed = []
    with tempfile.NamedTemporaryFile(prefix="k8snetc-bars-") as together:
        environment = {**os.environ, _bars.FILE: together.name}
        for name in args.names or names():
            print(f"\n== {name}", flush=True)
            words = ["--plot", args.plot] if args.plot and name in DRAWS else []
            command = [sys.executable, "-m", f"bench.{name}", *words]
            if subprocess.run(command, check=False, env=environment).returncode != 0:
                failed.append(name)
        bars = _bars.read(Path(together.name))
    if bars:
        print(f"\n== asked and measured\n{_bars.table(bars)}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
