"""C to an ELF object, with clang alone: no root, no headers.

Knows: clang's command line. Must not know: what the C does.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from shutil import which

from k8snetc.backends.target import InstallError

FLAGS = ("-target", "bpf", "-O2", "-g", "-fdebug-compilation-dir=.", "-Wall", "-Wno-unused-function")
SOURCE = "k8snetc.bpf.c"


class BuildError(InstallError):
    """clang is missing or refuses the C."""


@lru_cache(maxsize=8)
def build(source: str, *flags: str) -> bytes:
    """The object of this C, the same for the same C and clang. The clang is `$CLANG` or the one on PATH.

    Raises BuildError.
    """
    clang = os.environ.get("CLANG") or which("clang")
    if clang is None:
        raise BuildError("clang is missing: install Debian's clang, or set CLANG to its path")
    # A file, not a pipe: clang keeps its lines in the object, and the verifier names the one that it refuses.
    with tempfile.TemporaryDirectory(prefix="k8snetc-") as folder:
        Path(folder, SOURCE).write_text(source, "utf-8")
        try:
            done = subprocess.run(
                [clang, *FLAGS, *flags, "-c", SOURCE, "-o", "-"], cwd=folder, capture_output=True, check=False
            )
        except OSError as error:
            raise BuildError(f"{clang} can't be run: {error.strerror}; is CLANG right?") from error
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise BuildError("clang can't compile the generated C:\n" + "\n".join(lines[:20]))
    return done.stdout


@cache
def entry() -> bytes:
    """The object of the programs that stay attached."""
    return build(files("k8snetc.backends.ebpf").joinpath("templates/entry.bpf.c").read_text("utf-8"))
