"""What the machine that runs the tests can do. Knows the kernel's features; must not change anything."""

import os
import shutil
from functools import cache
from pathlib import Path

PROGRAMS = (
    "ip",
    "iptables-legacy-restore",
    "iptables-nft-restore",
    "ipset",
    "nft",
    "conntrack",
    "clang",
    "bpftool",
)


@cache
def kernel_lacks() -> str | None:
    """Why tests of the marker `kernel` can not run here, or None when they can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [
        p for p in PROGRAMS if shutil.which(p, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None
    ]
    if missing:
        return f"these programs are missing: {', '.join(missing)} (make setup installs them)"
    if not Path("/proc/self/ns/net").exists():
        return "the kernel has no network namespaces"
    return None


def kernel_release() -> tuple[int, int]:
    """Major and minor number of the running kernel, as (6, 18)."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()))
