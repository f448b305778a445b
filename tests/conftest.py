"""What all tests share: their order, and what the machine must have for the marked ones.

Knows the markers `kernel`, `vm` and `slow` (pyproject.toml). Fast tests run first, then those on the kernel; of these,
what holds a worker longest is begun first, so that all workers end at about the same time. The tests of a virtual
machine are one group for one worker and are handed out first, because they take longest; those that boot machines of
their own are another group, and come with the slow ones.
"""

import os
import shutil
import signal
from collections.abc import Generator, Iterator

import pytest

from tests.support import golden, machine, names
from tests.support.lab import _cluster_of_this_process, shared_cluster  # noqa: F401 - fixtures
from tests.vm import plugin as vm

STRICT = os.environ.get("CI", "").lower() not in {"", "0", "false"} or "K8SNETC_REQUIRE_KERNEL" in os.environ
"""Whether a test that the machine's lacks would skip fails instead: a skipped test proves nothing."""


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to rewrite golden files in CI, and remove what test processes that were killed left behind."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it puts in the background
        signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # children are sent it, and inherit how it is taken
    if STRICT and golden.UPDATE:
        raise pytest.UsageError("golden files are not rewritten in CI: unset K8SNETC_UPDATE_GOLDEN")
    if not hasattr(config, "workerinput") and not config.option.collectonly and os.geteuid() == 0:
        names.remove_stale()
    # The virtual machine gets its tests, unless this is that machine.
    if not vm.in_guest():
        config.pluginmanager.register(vm.VmPlugin(), "k8snetc-vm")


@pytest.fixture(scope="session", autouse=True)
def _objects_are_kept() -> Iterator[None]:
    """Clang makes the object of each C once for all tests and workers; labs install in children that forget theirs."""
    if os.geteuid() != 0:
        yield
        return
    from k8snetc.backends.ebpf import generation, pins
    from tests.vm import objects

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "build", objects.compiled)
        patch.setattr(pins, "entry", objects.entry)
        yield


def _rank(item: pytest.Item) -> float:
    if item.get_closest_marker("vm"):
        # Those of the shared machine side by side, so that it is booted once.
        shared, others = (-1, 2) if "PYTEST_XDIST_WORKER" in os.environ else (4, 5)
        return shared if vm.runs_in_guest(item) else others
    if item.get_closest_marker("kernel"):
        # Groups go to one worker as a whole.
        long = item.get_closest_marker("xdist_group") or item.get_closest_marker("slow")
        return 3 if long else 3.5
    return 2 if item.get_closest_marker("slow") else 1


def _machine(item: pytest.Item) -> str:
    """The group of a test in a virtual machine: of its guest, or of those that boot machines of their own."""
    if not item.get_closest_marker("vm"):
        return ""
    if not vm.runs_in_guest(item):
        return "vm-machines"  # these don't have to wait for the shared one
    return f"vm-{vm.machine_of(item)}".rstrip("-")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests, and keep those of one virtual machine on one worker."""
    for item in items:
        if item.get_closest_marker("vm"):
            item.own_markers = [
                m for m in item.own_markers if m.name != "xdist_group"
            ]  # xdist would join them
            item.add_marker(pytest.mark.xdist_group(_machine(item)))
    items.sort(key=lambda item: (_rank(item), _machine(item)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or in CI fail, a test whose machine is missing."""
    lacks = None
    if item.get_closest_marker("kernel"):
        lacks = machine.kernel_lacks()
    if item.get_closest_marker("vm") and shutil.which("qemu-system-x86_64") is None:
        lacks = "qemu-system-x86_64 is not installed"
    if lacks is not None:
        pytest.skip(lacks)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a marked test that skips, whoever skipped it and why, is a failure."""
    report = yield
    marked = item.get_closest_marker("kernel") or item.get_closest_marker("vm")
    if STRICT and marked and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} may not be skipped in CI: {reason}"
    return report


@pytest.fixture
def unique_name() -> Iterator[names.Namer]:
    """Names that no other test process uses; namespaces made under them are removed at the end."""
    namer = names.Namer()
    yield namer
    namer.clean()
