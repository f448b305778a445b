"""The command line as a whole: version, help, exit codes."""

import subprocess
import sys
from importlib.metadata import version


def run(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [
        sys.executable,
        "-c",
        "from k8snetc.compiler.cli import main; main(prog_name='k8snetc')",
        *args,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_version_is_the_package_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"k8snetc {version('k8snetc')}\n")


def test_help() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: k8snetc ")


def test_an_unknown_command_is_a_usage_error() -> None:
    done = run("no-such-command")
    assert done.returncode == 2
    assert "no-such-command" in done.stderr
