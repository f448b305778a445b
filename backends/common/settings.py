"""Kernel settings (sysctl values) that a program needs: read, and changed in steps.

Knows: /proc/sys. Must not know: which settings, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from k8snetc.backends.target import InstallError, Step


def read_settings(names: Sequence[str]) -> dict[str, str]:
    """The values of kernel settings; one that this kernel doesn't have is left out."""
    return {n: p.read_text("ascii").strip() for n in names if (p := _path(n)).is_file()}


def setting_steps(live: Mapping[str, str], goal: Mapping[str, str]) -> tuple[list[Step], list[Step]]:
    """Steps for settings: those that open something (a larger number), to be taken late, and those that close it."""
    opening: list[Step] = []
    closing: list[Step] = []
    for name, value in sorted(goal.items()):
        now = live.get(name)
        if now is None:
            raise InstallError(f"this kernel has no setting {name}, which the program needs")
        if now != value:
            opens = not (now.isdigit() and value.isdigit() and int(value) < int(now))
            (opening if opens else closing).append(setting_step(name, now, value))
    return opening, closing


def setting_step(name: str, now: str, value: str) -> Step:
    """The step that sets one, from what it is now (for its title)."""
    return Step(f"setting {name}: {now} -> {value}", _write(name, value), 1)


def _write(name: str, value: str) -> Callable[[], None]:
    def write() -> None:
        try:
            _path(name).write_text(value, "ascii")
        except OSError as e:
            raise InstallError(f"the setting {name} can't be set to {value}: {e.strerror}") from e

    return write


def _path(name: str) -> Path:
    return Path("/proc/sys", name.replace(".", "/"))
