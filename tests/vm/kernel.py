"""Debian's kernel as files: which package it is, downloading, unpacking, the order of its modules.

Knows apt and the layout of the kernel package; must not know qemu. Never installs anything on the machine.
"""

import fcntl
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

META_PACKAGE = "linux-image-amd64"
REPOSITORY = Path(__file__).resolve().parents[2]
_XZ = b"\xfd7zXZ\0"
_ELF = b"\x7fELF"


class KernelError(RuntimeError):
    """The kernel package can not be had; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel package."""

    tree: Path
    """Folder with `boot/` and `lib/modules/` in it."""
    release: str
    """As `uname -r` says it, e.g. `6.1.0-56-amd64`."""

    @property
    def image(self) -> Path:
        """The bootable image: unpacked if it could be, since the guest takes seconds to unpack it."""
        plain = self.tree / "boot" / f"vmlinux-{self.release}"
        return plain if plain.exists() else self.packed_image

    @property
    def packed_image(self) -> Path:
        """The image as the package has it."""
        return self.tree / "boot" / f"vmlinuz-{self.release}"

    def unpack_image(self) -> None:
        """Unpack the kernel out of its image beside it, once. It stays packed where it is not packed with xz."""
        plain = self.tree / "boot" / f"vmlinux-{self.release}"
        if plain.exists():
            return
        packed = self.packed_image.read_bytes()
        start = packed.find(_XZ)
        try:
            unpacked = lzma.LZMADecompressor().decompress(packed[start:]) if start >= 0 else b""
        except lzma.LZMAError:
            unpacked = b""
        if unpacked.startswith(_ELF):
            fresh = plain.with_suffix(".new")
            fresh.write_bytes(unpacked)
            fresh.rename(plain)

    @property
    def modules(self) -> Path:
        """Folder that belongs at `/lib/modules/<release>`."""
        return self.tree / "lib/modules" / self.release

    def module_files(self, names: Sequence[str]) -> list[Path]:
        """Files of these modules and all they depend on, each once, in the order in which insmod must take them."""
        files: dict[Path, None] = {}
        for name in names:
            command = ["modprobe", "-d", str(self.tree), "-S", self.release, "--show-depends", name]
            for line in _output(command).splitlines():
                kind, _, rest = line.partition(" ")
                if kind == "insmod":  # the other kind is "builtin"
                    files[Path(rest.split(" ")[0])] = None
        return list(files)


def cache_dir() -> Path:
    """Where kernels and the logs of running machines are kept: `K8SNETC_VM_CACHE`, or `.cache/vm` of this checkout."""
    configured = os.environ.get("K8SNETC_VM_CACHE")
    path = Path(configured) if configured else REPOSITORY / ".cache/vm"
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def kernel() -> Kernel:
    """Return apt's current kernel, downloaded and unpacked if the cache lacks it.

    Without apt's lists or a network the newest kernel in the cache is taken. Raises KernelError.
    """
    kernels = cache_dir() / "kernels"
    kernels.mkdir(exist_ok=True)
    with _locked(kernels / ".lock"):
        try:
            package, version = _candidate()
            tree = kernels / f"{package}_{version.replace(':', '%3a')}"
            if not tree.is_dir():
                _fetch(package, version, tree)
        except KernelError:
            cached = sorted((p for p in kernels.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
            if not cached:
                raise
            tree = cached[-1]
        found = Kernel(tree, next((tree / "lib/modules").iterdir()).name)
        found.unpack_image()
    return found


def _candidate() -> tuple[str, str]:
    """Name and version of the package that the meta package stands for now."""
    # On another architecture the package has its name with the architecture in it, so that it is not mistaken.
    fields = _show(META_PACKAGE) or (_update() and _show(META_PACKAGE))
    if not fields:
        raise KernelError(f"apt knows no {META_PACKAGE}: run apt-get update on a Debian machine (amd64)")
    found = re.search(r"\blinux-image-\d[\w.+-]*", fields.get("Depends", ""))
    if not found:
        raise KernelError(f"{META_PACKAGE} depends on no kernel: Depends: {fields.get('Depends')}")
    concrete = _show(found[0])
    if not concrete:
        raise KernelError(f"apt knows no {found[0]}, which {META_PACKAGE} depends on: run apt-get update")
    return found[0], concrete["Version"]


def _show(package: str) -> dict[str, str]:
    """Fields of the candidate version as apt lists them; empty when it has none."""
    shown = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", package],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return dict(re.findall(r"^(\w[\w-]*): (.*)$", shown.stdout, re.MULTILINE))


def _update() -> bool:
    """Fetch apt's lists, which a minimal image lacks; true when that worked."""
    if os.geteuid() != 0:
        return False
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", "update"]
    return subprocess.run(command, capture_output=True, check=False, timeout=600).returncode == 0


def _fetch(package: str, version: str, tree: Path) -> None:
    """Download (apt checks the signature's hash), unpack and index; `tree` appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=tree.parent, prefix=".fetch-") as folder:
        work = Path(folder)
        download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", f"{package}={version}"]
        try:
            _output(download, cwd=work)
        except KernelError:
            if not _update():  # the mirror may have moved on since the lists were fetched
                raise
            _output(download, cwd=work)
        (archive,) = work.glob("*.deb")
        unpacked = work / "tree"
        _output(["dpkg-deb", "--extract", str(archive), str(unpacked)])
        release = next((unpacked / "lib/modules").iterdir()).name
        _output(["depmod", "-b", str(unpacked), release])
        shutil.rmtree(unpacked / "usr", ignore_errors=True)  # documentation
        unpacked.chmod(0o755)
        unpacked.rename(tree)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _output(command: list[str], cwd: Path | None = None) -> str:
    env = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=900
        )
    except FileNotFoundError:
        raise KernelError(f"{command[0]} is not installed: run make setup") from None
    if done.returncode != 0:
        raise KernelError(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
