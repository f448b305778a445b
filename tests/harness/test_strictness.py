"""In CI a kernel or VM test that would be skipped fails; elsewhere it is skipped, with the reason."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import ROOT

PROGRAM = """
import pytest

@pytest.mark.{marker}
def test_it():
    pytest.skip("the kernel lacks it")
"""


def outcome(folder: Path, marker: str, **variables: str) -> tuple[int, str]:
    """Run one test that skips itself under the rules of tests/conftest.py."""
    (folder / "test_skips.py").write_text(PROGRAM.format(marker=marker))
    (folder / "conftest.py").write_text("from tests.conftest import *\n")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "CI", "K8SNETC"))}
    options = ["-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), f"--rootdir={folder}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**clean, "PYTHONPATH": str(ROOT), **variables},
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("marker", ["kernel", "vm(inside=False)"])
@pytest.mark.parametrize("variables", [{"CI": "true"}, {"K8SNETC_REQUIRE_KERNEL": "1"}])
def test_a_skip_fails_in_ci(tmp_path: Path, marker: str, variables: dict[str, str]) -> None:
    status, output = outcome(tmp_path, marker, **variables)
    assert status == 1, output
    assert "1 failed" in output or "1 error" in output  # an error when the machine lacks more: root, qemu
    assert "may not be skipped in CI" in output


@pytest.mark.parametrize(
    ("marker", "variables"), [("kernel", {}), ("kernel", {"CI": "false"}), ("slow", {"CI": "1"})]
)
def test_elsewhere_it_is_skipped_with_the_reason(
    tmp_path: Path, marker: str, variables: dict[str, str]
) -> None:
    status, output = outcome(tmp_path, marker, **variables)
    assert status == 0, output
    assert "1 skipped" in output


def test_golden_files_are_not_rewritten_in_ci(tmp_path: Path) -> None:
    status, output = outcome(tmp_path, "slow", CI="true", K8SNETC_UPDATE_GOLDEN="1")
    assert status == pytest.ExitCode.USAGE_ERROR, output
