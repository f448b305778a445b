"""C to an ELF object, with clang: no root, no kernel headers.

Knows: clang's command line. Must not know: what the C does.
"""

from __future__ import annotations

import os
import subprocess
from functools import cache, lru_cache
from importlib.resources import files
from shutil import which

from k8snetc.backends.target import InstallError

FLAGS = ("-target", "bpf", "-O2", "-g", "-Wall", "-Wno-unused-function")


class BuildError(InstallError):
    """clang is missing or refuses the C."""


@lru_cache(maxsize=8)
def build(source: str, *flags: str) -> bytes:
    """The object of this C. The clang is `$CLANG` or the one on PATH. Raises BuildError."""
    clang = os.environ.get("CLANG") or which("clang")
    if clang is None:
        raise BuildError("clang is missing: install Debian's clang and libbpf-dev, or set CLANG to its path")
    done = subprocess.run(
        [clang, *FLAGS, *flags, "-x", "c", "-c", "-", "-o", "-"],
        input=source.encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        missing = any("bpf/bpf_" in line and "not found" in line for line in lines)
        hint = "\ninstall Debian's libbpf-dev, which has these headers" if missing else ""
        raise BuildError("clang can't compile the generated C:\n" + "\n".join(lines[:20]) + hint)
    return done.stdout


@cache
def entry() -> bytes:
    """The object of the programs that stay attached."""
    return build(files("k8snetc.backends.ebpf").joinpath("templates/entry.bpf.c").read_text("utf-8"))
