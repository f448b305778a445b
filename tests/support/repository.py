"""The checkout that the tests run from. Knows git's list of files; must not change any."""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE_FOLDERS = ("apply", "backends", "compiler", "ir", "lab")
"""The top-level folders that are installed below `k8snetc`."""


@cache
def files() -> tuple[Path, ...]:
    """Every file that git tracks, or would track (new and not ignored), relative to the root, sorted."""
    # The checkout may belong to another user than the one who runs the tests (root in a container).
    command = [
        "git",
        "-c",
        f"safe.directory={ROOT}",
        "-C",
        str(ROOT),
        "ls-files",
        "-z",
        "-co",
        "--exclude-standard",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    paths = {Path(name) for name in done.stdout.split("\0") if name}
    return tuple(sorted(p for p in paths if (ROOT / p).is_file()))
