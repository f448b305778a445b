"""The wheel of this checkout, built and installed alone."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.support.repository import ROOT, files

NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Installation:
    """A virtual environment that holds the wheel and its locked dependencies, and sees nothing else."""

    folder: Path

    def run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment with an empty environment and, when root, as nobody."""
        return subprocess.run(
            [str(self.folder / "bin" / command[0]), *command[1:]],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=cwd or self.folder,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            user=NOBODY if os.geteuid() == 0 else None,
            group=NOBODY if os.geteuid() == 0 else None,
            extra_groups=[] if os.geteuid() == 0 else None,
        )


def _quiet(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tracked files, so that nothing untracked can slip in."""
    source = tmp_path_factory.mktemp("source")
    for path in files():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, source / path)
    out = tmp_path_factory.mktemp("dist")
    _quiet(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source))
    (built,) = out.glob("*.whl")
    return built


def _locked() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line.split("==")[0] for line in lines if "==" in line]


@pytest.fixture(scope="session")
def installation(wheel: Path) -> Iterator[Installation]:
    """The wheel in an environment of its own, without system packages.

    Its dependencies are those of requirements.lock, copied from the running environment: no network is needed, and
    a dependency that the lock lacks is not there.
    """
    folder = Path(tempfile.mkdtemp(prefix="k8snetc-wheel-"))  # pytest's own folders are closed to other users
    try:
        folder.chmod(0o755)
        _quiet("/usr/bin/python3", "-m", "venv", "--without-pip", str(folder))
        (site,) = folder.glob("lib/python3*/site-packages")
        for name in _locked():
            for file in distribution(name).files or ():
                if ".." in file.parts or "__pycache__" in file.parts:
                    continue  # scripts in bin/, and what Python made itself
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.locate(), target)
        pip = (
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(folder / "bin/python"),
            "--disable-pip-version-check",
        )
        _quiet(*pip, "install", "-q", "--no-index", "--no-deps", str(wheel))
        _quiet(*pip, "check")
        yield Installation(folder)
    finally:
        shutil.rmtree(folder)
