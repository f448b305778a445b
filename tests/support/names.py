"""Names for what tests make in the kernel: unique to this process, short enough for an interface.

Must not touch anything whose name it did not give.
"""

import itertools
import os
import subprocess
from pathlib import Path

INTERFACE_NAME_MAX = 15
_counter = itertools.count()


class Namer:
    """Hands out names and removes the network namespaces that were made under them."""

    def __init__(self) -> None:
        self._given: list[str] = []

    def __call__(self, hint: str = "") -> str:
        """Give a name such as `kt1a2f-0web`, at most 15 characters long (the limit of an interface name)."""
        name = f"kt{os.getpid():x}-{next(_counter):x}{hint}"[:INTERFACE_NAME_MAX]
        if name in self._given:
            raise ValueError(f"{name}: not unique after it was cut")
        self._given.append(name)
        return name

    def clean(self) -> None:
        """Remove the network namespaces that bear a name of ours."""
        for name in self._given:
            if Path("/run/netns", name).exists():
                subprocess.run(["ip", "netns", "delete", name], check=True, timeout=60)
        self._given.clear()
