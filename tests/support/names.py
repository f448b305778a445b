"""Names for what tests make in the kernel: unique to this process, short enough for an interface.

Must not touch anything whose name it did not give.
"""

import itertools
import os
import re
import subprocess
from pathlib import Path

INTERFACE_NAME_MAX = 15
NETNS_FOLDER = Path("/run/netns")
_PREFIX = "kt"
_OURS = re.compile(rf"{_PREFIX}([0-9a-f]+)-[0-9a-f]+.*")
_counter = itertools.count()


def _delete_namespace(name: str) -> None:
    done = subprocess.run(["ip", "netns", "delete", name], check=False, timeout=60)
    if done.returncode and (NETNS_FOLDER / name).exists():  # else somebody beside us was first
        done.check_returncode()


def remove_stale() -> None:
    """Remove the network namespaces whose name says that they belong to a test process that is no more."""
    for path in NETNS_FOLDER.glob(f"{_PREFIX}*"):
        ours = _OURS.fullmatch(path.name)
        if ours and not Path("/proc", str(int(ours[1], 16))).exists():
            _delete_namespace(path.name)


class Namer:
    """Hands out names and removes the network namespaces that were made under them."""

    def __init__(self) -> None:
        self._given: list[str] = []

    def __call__(self, hint: str = "") -> str:
        """Give a name such as `kt1a2f-0web`, at most 15 characters long (the limit of an interface name)."""
        name = f"{_PREFIX}{os.getpid():x}-{next(_counter):x}{hint}"[:INTERFACE_NAME_MAX]
        if name in self._given:
            raise ValueError(f"{name}: not unique after it was cut")
        self._given.append(name)
        return name

    def clean(self) -> None:
        """Remove the network namespaces that bear a name of ours."""
        for name in self._given:
            if (NETNS_FOLDER / name).exists():
                _delete_namespace(name)
        self._given.clear()
