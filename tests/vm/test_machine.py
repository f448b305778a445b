"""The host notices what becomes of a guest: these tests boot machines of their own and break them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.vm.kernel import REPOSITORY
from tests.vm.machine import CONSOLE_LINES, PANIC, PANIC_LINES, Vm, VmError, telling

pytestmark = pytest.mark.vm(inside=False)


@pytest.fixture(scope="module")
def vm() -> Iterator[Vm]:
    """One machine for the tests that leave it as it was, and for one at their end that does not."""
    with Vm.boot(memory=512, modules="") as vm:
        yield vm


def test_output_and_status_come_back(vm: Vm) -> None:
    done = vm.run(
        ["sh", "-c", "echo out; echo err >&2; echo $GREETING; pwd; exit 3"],
        env={"GREETING": "hi"},
        cwd="/usr",
    )
    assert (done.code, done.stdout, done.stderr) == (3, "out\nhi\n/usr\n", "err\n")
    with pytest.raises(AssertionError, match="ended with 3"):
        done.check()


def test_input_arrives_and_much_output_is_whole(vm: Vm) -> None:
    text = "".join(f"line {n}\n" for n in range(50_000))
    assert vm.run(["cat"], input=text).stdout == text


def test_death_by_signal_is_told(vm: Vm) -> None:
    assert vm.run(["sh", "-c", "kill -SEGV $$"]).code == -signal.SIGSEGV


def test_a_missing_program_is_named(vm: Vm) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        vm.run(["no-such-program"])


def test_a_command_that_takes_too_long_is_ended_with_its_children(vm: Vm) -> None:
    started = time.monotonic()
    done = vm.run(["sh", "-c", "echo begun; trap '' TERM; sleep 6000 & wait; sleep 6001"], timeout=5)
    assert (done.timed_out, done.stdout) == (True, "begun\n")
    assert time.monotonic() - started < 60
    assert "sleep 600" not in vm.run(["ps", "ax"]).stdout


def test_commands_run_side_by_side(vm: Vm) -> None:
    waiting = vm.start(["cat"], timeout=60)
    assert vm.run(["echo", "meanwhile"]).stdout == "meanwhile\n"
    waiting.write(b"late")
    waiting.write(None)
    assert b"".join(data for _, data in waiting.output()) == b"late"


def test_the_hosts_files_stay_as_they_are(vm: Vm) -> None:
    target = Path(__file__).parent / "written-by-the-guest"
    vm.run(["sh", "-c", f"echo x > {target}; cat {target}"]).check()
    assert not target.exists()
    assert vm.run(["sh", "-c", "mount -o remount,rw /lower 2>&1; touch /lower/x"]).code != 0


def test_panic_is_noticed_at_once_and_shown(vm: Vm) -> None:
    """The last one of the shared machine."""
    started = time.monotonic()
    with pytest.raises(VmError, match=r"Kernel panic - not syncing: sysrq triggered crash") as failure:
        vm.run(["sh", "-c", "echo c > /proc/sysrq-trigger; sleep 1000"], timeout=1000)
    assert time.monotonic() - started < 60
    assert "Call Trace" in str(failure.value)
    with pytest.raises(VmError, match="Kernel panic"):
        vm.run(["true"])
    vm.close()
    assert not Path(f"/proc/{vm.pid}").exists()


def test_an_error_shows_the_console_around_a_panic_or_its_end() -> None:
    quiet = [f"line {n}" for n in range(500)]
    assert telling("\n".join(quiet)).splitlines() == quiet[-CONSOLE_LINES:]
    assert telling("") == ""
    died = [
        *quiet,
        f"{PANIC} - not syncing",
        "Call Trace:",
        *(f"frame {n}" for n in range(100)),
        f"{PANIC} again",
    ]
    assert telling("\n".join(died)).splitlines() == died[len(quiet) - CONSOLE_LINES :]
    shown = telling("\n".join([*died, *quiet])).splitlines()
    assert len(shown) == PANIC_LINES
    assert shown[CONSOLE_LINES : CONSOLE_LINES + 2] == died[len(quiet) : len(quiet) + 2]


def test_a_hung_guest_is_ended_within_the_limit() -> None:
    with Vm.boot(memory=512, modules="", silence=6) as vm:
        started = time.monotonic()
        os.kill(vm.pid, signal.SIGSTOP)  # no processor of it runs any more
        with pytest.raises(VmError, match="no sign of life"):
            vm.run(["sleep", "1000"], timeout=1000)
        assert time.monotonic() - started < 30
    assert not Path(f"/proc/{vm.pid}").exists()


def test_a_guest_that_never_gets_ready_is_ended() -> None:
    started = time.monotonic()
    with pytest.raises(VmError, match=r"not ready after 6 s|vm: ") as failure:
        Vm.boot(
            memory=512,
            modules="",
            boot_limit=6,
            kernel_arguments=["rdinit=/bin/busybox", "--", "sleep", "1000"],
        )
    assert time.monotonic() - started < 60
    assert "console" in str(failure.value)


def test_a_guest_that_can_not_boot_says_why() -> None:
    with pytest.raises(VmError, match="Kernel panic"):
        Vm.boot(memory=512, modules="", kernel_arguments=["rdinit=/nothing"])


def test_the_machine_does_not_outlive_a_killed_owner() -> None:
    program = "from tests.vm.machine import Vm; Vm.boot(memory=512, modules='')"
    with subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY) as owner:
        pid = _machine_of(owner.pid)
        owner.kill()
    until = time.monotonic() + 30
    while not _gone(pid):
        assert time.monotonic() < until
        time.sleep(0.1)


def _machine_of(owner: int) -> int:
    """The process of the machine that a process has started, which need not have come up."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        for children in Path(f"/proc/{owner}/task").glob("*/children"):
            for child in children.read_text().split():
                # Some end at once. The machine is setpriv first.
                with suppress(FileNotFoundError, ProcessLookupError):
                    if Path(f"/proc/{child}/comm").read_text().startswith("qemu"):
                        return int(child)
        time.sleep(0.05)
    raise AssertionError("it started no machine")


def _gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


# Tests that the guest's pytest runs for the test below, as files of their own: they fail, crash and hang on purpose.
BROKEN = """
import os, time, pytest
pytestmark = pytest.mark.vm

def test_passes():
    print("fine")

def test_fails():
    print("said before")
    assert 1 == 2, "as it should"

@pytest.fixture
def broken_at_the_end():
    yield
    raise RuntimeError("in the tear-down")

def test_error_in_fixture(broken_at_the_end):
    pass

@pytest.mark.skip(reason="not today")
def test_skipped():
    pass

@pytest.mark.timeout(5)
def test_is_too_slow():
    time.sleep(1000)

def test_panics():
    open("/proc/sysrq-trigger", "w").write("c")
    time.sleep(1000)

def test_after_the_panic():
    pass

def test_exits():
    os._exit(3)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_results_of_the_guest_are_ordinary_results() -> None:
    folder = REPOSITORY / "tests/vm"
    file = folder / f"test_broken_{os.getpid()}.py"
    file.write_text(BROKEN)
    distributed = ["-n", "2", "--dist", "loadgroup"]
    try:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "CI"))}
        environment["K8SNETC_VM_MODULES"] = ""  # none is asked for
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *distributed, str(file)],
            cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=850,
        )  # fmt: skip
    finally:
        file.unlink()
    out = done.stdout
    assert done.returncode == 1, out
    assert "4 failed, 3 passed, 1 skipped, 1 error" in out.replace("\x1b", ""), out
    assert "said before" in out
    assert "as it should" in out
    assert "in the tear-down" in out
    assert "not today" in out
    assert "Kernel panic - not syncing: sysrq triggered crash" in out
    assert "Timeout" in out
    assert "ended with 3" in out
    assert "fine" not in out
