"""What stays in the kernel when the tool ends: pinned maps, programs and links, and where.

    <folder>/entry/{current, slots_*, programs}   the programs that stay attached, and the switch
    <folder>/shared/*                             tables that outlive a generation: connections...
    <folder>/links/<hook>@<place>                 attachments
    <folder>/clsact/<interface>                   a folder: this clsact is ours (only before Linux 6.6)

Tables of a generation are not pinned: its programs hold them, and the `slots_*` hold its programs. So a crash leaves
nothing behind that the kernel does not free by itself. Must not know what the programs do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from k8snetc.backends.ebpf import bpf_maps, bpf_objects, bpf_programs
from k8snetc.backends.ebpf.build import entry
from k8snetc.backends.target import InstallError

FILE_SYSTEM = Path("/sys/fs/bpf")
FOLDER = FILE_SYSTEM / "k8snetc"

_MAGIC = 0xCAFE4A11  # BPF_FS_MAGIC of linux/magic.h


def mounted() -> bool:
    """Whether there is a BPF file system."""
    return any(
        line.split()[4] == str(FILE_SYSTEM) and " - bpf " in line
        for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines()
    )


def mount() -> None:
    """Mount the BPF file system where it belongs, if nobody has (systemd does)."""
    if mounted():
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", str(FILE_SYSTEM).encode(), b"bpf", 0, b"mode=0700"):
        reason = os.strerror(ctypes.get_errno())
        raise InstallError(
            f"can't mount the BPF file system at {FILE_SYSTEM}: {reason}; mount it, or run as root"
        )


class Entry:
    """The entry programs and their maps, found or made."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder

    @property
    def exists(self) -> bool:
        """Whether they are installed."""
        return (self.folder / "entry").is_dir()

    def create(self) -> None:
        """Load and pin them, all or none."""
        if self.exists:
            return
        mount()
        self.folder.mkdir(mode=0o700, exist_ok=True)
        staging = self.folder / f"new-{os.getpid()}"
        remove(staging)
        staging.mkdir(mode=0o700)
        made = bpf_objects.Object(entry(), "k8snetc")
        try:
            made.load()
            for name in made.map_names:
                if not name.endswith((".rodata", ".bss", ".data")):
                    bpf_programs.pin(made.map(name).fd, str(staging / name))
            for name in made.programs:
                bpf_programs.pin(made.program(name), str(staging / name))
            staging.rename(self.folder / "entry")
        finally:
            made.close()
            remove(staging)

    def map(self, name: str) -> bpf_maps.Map:
        """One of its maps, opened."""
        return bpf_maps.map_of(bpf_programs.get(str(self.folder / "entry" / name)))

    def program(self, hook: str) -> int:
        """One of its programs, opened."""
        return bpf_programs.get(str(self.folder / "entry" / hook))

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that it has programs for."""
        return tuple(
            sorted(p.name[6:] for p in (self.folder / "entry").iterdir() if p.name.startswith("slots_"))
        )

    def current(self) -> int:
        """The place of the generation in force, 0 or 1."""
        table = self.map("current")
        try:
            value = table.get(bytes(4))
        finally:
            table.close()
        return int.from_bytes(value or b"", "little") & 1

    def switch(self, slot: int) -> None:
        """Put the other generation in force: one word, for all hooks at once."""
        table = self.map("current")
        try:
            table.put(bytes(4), slot.to_bytes(4, "little"))
        finally:
            table.close()

    def occupant(self, hook: str, slot: int) -> int | None:
        """The number of the program that stands in a place."""
        table = self.map(f"slots_{hook}")
        try:
            value = table.get(slot.to_bytes(4, "little"))
        finally:
            table.close()
        return None if value is None else int.from_bytes(value, "little")

    def occupy(self, hook: str, slot: int, program: int | None) -> None:
        """Put a program into a place, or clear it."""
        table = self.map(f"slots_{hook}")
        try:
            key = slot.to_bytes(4, "little")
            if program is None:
                table.delete(key)
            else:
                table.put(key, program.to_bytes(4, "little"))
        finally:
            table.close()


def leftovers(folder: Path = FOLDER) -> Iterator[Path]:
    """What a killed process left half made."""
    if folder.is_dir():
        yield from sorted(p for p in folder.iterdir() if p.name.startswith("new-"))


def remove(path: Path) -> None:
    """Remove a pin or a folder of pins, if it is there."""
    if path.is_dir():
        for child in path.iterdir():
            remove(child)
        with suppress(FileNotFoundError):
            path.rmdir()
    else:
        path.unlink(missing_ok=True)
