"""`ipvsadm --restore` against netlink from Python (pyroute2), for a full load and for reading it back.

    python -m bench.ipvs [--services 10000 --endpoints 10] [--sample 50]
    # where this kernel has no IPVS:
    .venv/bin/python -m tests.vm run --timeout 3600 -- .venv/bin/python -m bench.ipvs

In a network namespace of its own (root). ipvsadm loads everything; pyroute2 loads `--sample` services more beside that
and reads the servers of as many, since all would take it hours in the emulated machine. Only the ratio per entry means
anything there.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

CLONE_NEWNET = 0x40000000
FIRST_SERVICE, FIRST_SERVER = int(IPv4Address("10.96.0.1")), int(IPv4Address("10.128.0.1"))


def main() -> int:
    """Load, read, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--services", type=int, default=10000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--sample", type=int, default=50, help="services for pyroute2")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("loading needs root")
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        sys.exit(f"no network namespace can be made: {os.strerror(ctypes.get_errno())}")
    # Until an interface is up a namespace knows no kinds of addresses, and IPVS takes none for a server's.
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=60)
    subprocess.run(["modprobe", "-q", "ip_vs_rr"], check=False, timeout=60)
    if not Path("/proc/net/ip_vs").exists():
        print("no IPVS in this kernel: nothing measured (see python -m bench.ipvs --help)")
        return 0
    entries = args.services * (1 + args.endpoints)
    lines = list(_lines(args.services, args.endpoints))
    assert len(lines) == entries

    started = time.perf_counter()
    done = subprocess.run(
        ["ipvsadm", "--restore"], input="\n".join([*lines, ""]), text=True, capture_output=True, check=True
    )
    load = time.perf_counter() - started
    assert not done.stderr, done.stderr[:500]
    started = time.perf_counter()
    text = subprocess.run(["ipvsadm", "-Sn"], capture_output=True, text=True, check=True).stdout
    read = time.perf_counter() - started
    assert text.count("\n") == entries, "not everything is there"
    part, part_read = _pyroute2(args.services, args.endpoints, args.sample)

    sample = args.sample * (1 + args.endpoints)
    print(f"{args.services} services x {args.endpoints}: {entries} entries; of those by pyroute2: {sample}")
    for what, program, netlink in (("load", load, part), ("read", read, part_read)):
        each, other = program / entries * 1000, netlink / sample * 1000
        print(
            f"{what}: ipvsadm {program:.1f} s, {each:.3f} ms an entry; pyroute2 {other:.2f} ms; {other / each:.0f} x"
        )
    return 0


def _lines(services: int, endpoints: int) -> Iterator[str]:
    for number in range(services):
        address = IPv4Address(FIRST_SERVICE + number)
        yield f"-A -t {address}:80 -s rr"
        for at in range(endpoints):
            yield f"-a -t {address}:80 -r {IPv4Address(FIRST_SERVER + number * endpoints + at)}:8080 -m -w 1"


def _pyroute2(there: int, endpoints: int, sample: int) -> tuple[float, float]:
    """Seconds to load so many services more, and to read the servers of as many."""
    from pyroute2 import IPVS, IPVSDest, IPVSService

    with IPVS() as ipvs:
        made = [
            IPVSService(
                addr=str(IPv4Address(FIRST_SERVICE + there + n)),
                port=80,
                protocol=socket.IPPROTO_TCP,
                sched_name="rr",
            )
            for n in range(sample)
        ]
        started = time.perf_counter()
        for number, service in enumerate(made, there):
            ipvs.service("add", service=service)
            for at in range(endpoints):
                server = str(IPv4Address(FIRST_SERVER + number * endpoints + at))
                ipvs.dest(
                    "add", service=service, dest=IPVSDest(addr=server, port=8080, weight=1, fwd_method=0)
                )
        load = time.perf_counter() - started
        started = time.perf_counter()
        found = sum(len(list(ipvs.dest("dump", service=service))) for service in made)
        read = time.perf_counter() - started
    assert found == sample * endpoints, f"{found} servers"
    return load, read


if __name__ == "__main__":
    sys.exit(main())
