"""A cgroup per node, so that BPF programs attached to it see that node's sockets and no others.

Knows cgroup v2. Must not know who attaches what.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from k8snetc.lab import names


def mount_point() -> Path | None:
    """Where cgroup v2 is mounted; None where it is not."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


def remove(folders: Iterable[Path], patience: float = 2.0) -> None:
    """Remove cgroups once the processes in them are gone; what still has some stays, for the next clean-up."""
    deadline = time.monotonic() + patience
    left = [f for f in folders if f.exists()]
    while left:
        for folder in left:
            with suppress(OSError):
                folder.rmdir()
        left = [f for f in left if f.exists()]
        if not left or time.monotonic() > deadline:
            return
        time.sleep(0.01)


def abandoned() -> list[Path]:
    """Cgroups of labs whose process is gone."""
    root = mount_point()
    if root is None:
        return []
    return sorted(p for p in root.glob(f"{names.PREFIX}-*") if p.is_dir() and names.is_abandoned(p.name))
