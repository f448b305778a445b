"""The archive that the kernel boots from: busybox, the modules it needs to reach the shared root, `init.sh`.

Knows the cpio format; must not know what happens once the root is mounted.
"""

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.vm.kernel import Kernel, KernelError

MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
"""What the guest needs before it sees the host's files; everything else it loads by itself."""

_DIRECTORIES = ("bin", "etc", "modules", "proc", "sys", "dev", "lower", "upper", "newroot")


def build(kernel: Kernel, settings: Mapping[str, str]) -> bytes:
    """Return the archive; `settings` become shell variables of `init.sh` and of what it starts. Raises KernelError.

    Not compressed: under emulation the kernel unpacks slower than it reads.
    """
    busybox = shutil.which("busybox")
    if busybox is None:
        raise KernelError("busybox is not installed: run make setup (Debian package busybox-static)")
    modules = kernel.module_files(MODULES)
    archive = bytearray()
    for name in _DIRECTORIES:
        archive += _entry(name, 0o040755, b"")
    archive += _entry("bin/busybox", 0o100755, Path(busybox).read_bytes())
    archive += _entry("init", 0o100755, (Path(__file__).parent / "init.sh").read_bytes())
    for file in modules:
        archive += _entry(f"modules/{file.name}", 0o100644, file.read_bytes())
    archive += _entry("etc/modules", 0o100644, "".join(f"{file.name}\n" for file in modules).encode())
    lines = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())
    archive += _entry("etc/settings", 0o100644, lines.encode())
    return bytes(archive + _entry("TRAILER!!!", 0, b""))


def _entry(name: str, mode: int, content: bytes) -> bytes:
    """One file in the "newc" format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst)."""
    encoded = name.encode() + b"\0"
    links = 2 if mode & 0o040000 and not mode & 0o100000 else 1
    numbers = (0, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % n for n in numbers) + encoded
    return head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)
