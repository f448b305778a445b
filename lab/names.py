"""Names of the lab's namespaces and cgroups, and who owns them.

A name tells its owner: `k8snetc-<pid>-<start time of that process, base 36>-<number>-<place>`. So what a killed run
left behind can be told from what a living one uses, without any state on disk. Must not touch any other name.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import string
from pathlib import Path

PREFIX = "k8snetc"
NETNS_DIR = Path("/run/netns")
_DIGITS = string.digits + string.ascii_lowercase
_OWNED = re.compile(rf"{PREFIX}-([1-9][0-9]*)-([0-9a-z]+)-([0-9]+)(?:-.*)?", re.DOTALL)
_LONGEST = 200
_counter = itertools.count(1)


def _base36(number: int) -> str:
    text = ""
    while True:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
        if not number:
            return text


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc(5), field 22 of stat); None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def new_lab() -> str:
    """A prefix for everything one new lab of this process owns."""
    started = start_time(os.getpid())
    assert started is not None
    return f"{PREFIX}-{os.getpid()}-{_base36(started)}-{next(_counter)}"


def netns_name(lab: str, place: str) -> str:
    """The name of a place's network namespace, as `ip netns` shows it."""
    # A namespace of Kubernetes has no dot in its name, so the dot keeps `a/b-c` and `a-b/c` apart.
    kind, _, rest = place.partition("/")
    name = f"{lab}-{kind}-{rest.replace('/', '.')}" if rest else f"{lab}-{kind}"
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def is_abandoned(name: str) -> bool:
    """Whether a name is a lab's whose process is gone."""
    owned = _OWNED.fullmatch(name)
    if owned is None:
        return False
    started = start_time(int(owned[1]))
    return started is None or _base36(started) != owned[2]


def netns_names() -> list[str]:
    """All named network namespaces of the machine."""
    try:
        return sorted(p.name for p in NETNS_DIR.iterdir())
    except FileNotFoundError:
        return []
