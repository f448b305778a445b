"""pytest on the host: a test that is marked `vm` runs in the guest, and its result is reported as any other's.

Knows pytest's hooks and `Vm`. One machine is booted when the first such test is reached and serves all of them. Tests
are collected on both sides, so `-k`, `-x`, `--lf` and the summary work as always. Tests that name a machine,
`vm(machine="x")`, have it to themselves, beside the one of the others. A test that boots machines of its own is marked
`vm(inside=False)` and runs on the host.

When the guest dies or hangs, the test that ran is reported as failed with the end of the guest's console. The next test
gets a fresh machine; after `MAX_DEATHS` all the others fail with the reason.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.kernel import REPOSITORY, KernelError
from tests.vm.machine import KERNEL_MODULES, QEMU, Process, Vm, VmError

GUEST_VARIABLE = "K8SNETC_VM_GUEST"
"""Set in the environment of the tests that run in the guest."""
MAX_DEATHS = 3
COLLECT_LIMIT = 300.0
"""Seconds in which the guest must have started pytest and collected."""
DEFAULT_TIMEOUT = 300.0
TEAR_DOWN = 120.0
"""Seconds beyond a test's own time-out before the host gives up on the guest."""
MEMORY_MIB = 3072
PROCESSORS = 1
"""More cost more beside other tests: what one holds while the host runs something else, the others wait for."""
_FORWARDED_ENVIRONMENT = ("CI", "K8SNETC_", "HYPOTHESIS_")


def in_guest() -> bool:
    """Whether this process is the guest's pytest."""
    return GUEST_VARIABLE in os.environ


def runs_in_guest(item: pytest.Item) -> bool:
    """Whether the item is one that the host hands to the guest."""
    marker = item.get_closest_marker("vm")
    return marker is not None and bool(marker.kwargs.get("inside", True))


def machine_of(item: pytest.Item) -> str:
    """The name of the machine whose guest an item is handed to: those of one name share it."""
    marker = item.get_closest_marker("vm")
    assert marker is not None
    return str(marker.kwargs.get("machine", ""))


def _share(item: pytest.Item, other: pytest.Item | None) -> bool:
    return other is not None and runs_in_guest(other) and machine_of(other) == machine_of(item)


class VmPlugin:
    """Registered on the host by `tests/conftest.py`."""

    def __init__(self) -> None:
        self._vm: Vm | None = None
        self._worker: Process | None = None
        self._known: set[str] = set()
        self._errors = ""
        self._deaths = 0
        self._hopeless: str | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """The guest watches the time of a test in the guest; booting is not on its account."""
        for item in items:
            if runs_in_guest(item):
                item.add_marker(pytest.mark.timeout(0), append=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run the test in the guest instead of here."""
        if not runs_in_guest(item) or not _have_qemu():
            return None  # the ordinary way; without qemu conftest's set-up hook skips it, or fails it in CI
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._run(item, nextitem):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        if not _share(item, nextitem):
            self._close()
        return True

    def pytest_unconfigure(self) -> None:
        """Switch the machine off, also after Ctrl-C."""
        self._close()

    # One test ------------------------------------------------------------------------------------------------------

    def _run(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[pytest.TestReport]:
        if self._hopeless is not None:
            yield _failure(item, self._hopeless)
            return
        before = 0
        try:
            self._ready(item)
            assert self._vm is not None
            assert self._worker is not None
            name = _guest_id(item)
            if name not in self._known:
                yield _failure(item, f"the guest's pytest did not collect this test\n{self._errors[-4000:]}")
                return
            before = len(self._vm.console())
            following = _guest_id(nextitem) if nextitem is not None and _share(item, nextitem) else None
            self._worker.write(json.dumps({"run": name, "next": following}).encode() + b"\n")
            for message in self._messages(_limit(item)):
                if "done" in message:
                    return
                report = item.config.hook.pytest_report_from_serializable(
                    config=item.config, data=message["report"]
                )
                report.nodeid = item.nodeid
                if isinstance(report.longrepr, list):  # of a skipped test; JSON has no tuples
                    report.longrepr = tuple(report.longrepr)
                kernel_said = self._vm.console()[before:].strip()
                if report.failed and kernel_said:
                    report.sections.append(("guest's console", kernel_said))
                yield report
        except (VmError, KernelError) as error:
            yield _failure(item, str(error))
            self._abandon(error)

    def _ready(self, item: pytest.Item) -> None:
        """Make sure that a guest runs which has collected the session's tests."""
        if self._vm is not None:
            return
        mine = [i for i in item.session.items if _share(item, i)]
        for module in {i.path: i.getparent(pytest.Module) for i in mine}.values():
            # What a module would rather do here than under emulation.
            prepare = getattr(module.obj, "prepare_on_host", None) if module is not None else None
            if prepare is not None:
                prepare()
        modules = os.environ.get("K8SNETC_VM_MODULES", KERNEL_MODULES)
        self._vm = Vm.boot(memory=MEMORY_MIB, processors=PROCESSORS, modules=modules)
        files = list(dict.fromkeys(str(i.path) for i in mine))
        environment = {k: v for k, v in os.environ.items() if k.startswith(_FORWARDED_ENVIRONMENT)}
        environment |= {GUEST_VARIABLE: "1", "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # half of the time that pytest takes to start
        environment["PATH"] = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        self._errors = ""
        self._known = set()
        self._worker = self._vm.start(
            [sys.executable, "-m", "tests.vm.worker", *_options(item.config), *files],
            cwd=REPOSITORY, env=environment,
        )  # fmt: skip
        ready = next(self._messages(COLLECT_LIMIT))
        known = ready["ready"]
        assert isinstance(known, list)
        self._known = set(known)

    def _messages(self, limit: float) -> Iterator[dict[str, object]]:
        """Yield the worker's answers; VmError when none comes for `limit` seconds, or the worker ended."""
        assert self._vm is not None
        assert self._worker is not None
        pending = b""
        until = time.monotonic() + limit
        try:
            for stream, data in self._worker.output(limit):
                if stream == 2:
                    self._errors = self._errors[-100_000:] + data.decode(errors="replace")
                    if time.monotonic() > until:
                        raise TimeoutError
                    continue
                until = time.monotonic() + limit
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    yield json.loads(line)
        except TimeoutError:
            raise self._vm.kill(
                f"the tests in it gave no answer for {limit:g} s\n{self._errors[-4000:]}"
            ) from None
        if not self._known:  # another machine would make no difference
            self._deaths = MAX_DEATHS
        raise VmError(f"pytest in the guest ended with {self._worker.code}; it said:\n{self._errors[-8000:]}")

    def _abandon(self, error: Exception) -> None:
        if self._vm is not None:
            self._vm.close(keep=True)
        self._vm = None
        self._deaths += 1
        if isinstance(error, KernelError) or self._deaths >= MAX_DEATHS:
            self._hopeless = f"not run, since no virtual machine stayed alive; the last one:\n{error}"

    def _close(self) -> None:
        if self._vm is not None:
            self._vm.close()
            self._vm = None


def _have_qemu() -> bool:
    return shutil.which(QEMU) is not None


def _guest_id(item: pytest.Item) -> str:
    """The node's id without the group that xdist appends to it on the host."""
    group = item.get_closest_marker("xdist_group")
    return item.nodeid.removesuffix(f"@{group.args[0]}") if group is not None and group.args else item.nodeid


def _limit(item: pytest.Item) -> float:
    """Seconds after which a test is late, whatever the guest's own clock did."""
    # The first timeout marker is ours (0, for the host).
    own = [mark.args[0] for mark in item.iter_markers("timeout") if mark.args and mark.args[0]]
    configured = item.config.getini("timeout")
    return float(own[0] if own else configured or DEFAULT_TIMEOUT) + TEAR_DOWN


def _options(config: pytest.Config) -> list[str]:
    """What the caller said about the look of reports holds in the guest, too."""
    options = [f"--tb={config.getoption('tbstyle')}", "--color=no"]
    verbose = config.getoption("verbose")
    options += ["-" + "v" * verbose] if verbose > 0 else []
    options += ["--showlocals"] if config.getoption("showlocals") else []
    return options


def _failure(item: pytest.Item, text: str) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome="failed",
        longrepr=text,
        when="call",
    )
