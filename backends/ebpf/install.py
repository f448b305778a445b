"""The eBPF back end's grip on the kernel: desired and observed states, and the steps between them.

Knows: the order in which a generation replaces another. Must not know journals, locks, people.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from k8snetc.backends.base import UnsupportedError
from k8snetc.backends.ebpf import capabilities, generation, hooks, node, state
from k8snetc.backends.ebpf.lower import lower
from k8snetc.backends.ebpf.pins import FOLDER, Entry, leftovers, remove
from k8snetc.backends.ebpf.state import JUDGING, Attachment, State
from k8snetc.backends.ebpf.uncovered import uncovered
from k8snetc.backends.target import Change, InstallError, InstallOptions, Section, Step
from k8snetc.ir.types import Program

_CGROUPS = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")


def target(options: InstallOptions) -> EbpfTarget:
    """The target for these options."""
    return EbpfTarget(options)


class EbpfTarget:
    """See `k8snetc.backends.target.Target`."""

    name = "ebpf"

    def __init__(self, options: InstallOptions) -> None:
        self._options = options
        self._folder = FOLDER

    # --- states ---

    def desired(self, program: Program) -> State:
        """The program on this node, with its interfaces and addresses as they are now.

        Raises UnsupportedError where pods would be open, because of the interface that they are behind.
        """
        facts = node.facts()
        uplinks = facts.uplinks(self._options.uplinks, program.node.addresses)
        pods = facts.pods(self._options.pod_interfaces, uplinks)
        path = self._cgroup()
        number = None if path is None else os.stat(path).st_ino
        model = lower(program, counters=self._options.ebpf_counters)
        capabilities.check(model.features, sockets=path is not None)
        sites = node.Sites(uplinks, pods, number)
        gaps = tuple(uncovered(program, facts, sites))
        if gaps:
            raise UnsupportedError(self.name, gaps)
        return state.state_of(model, program, facts, sites)

    def empty(self) -> State:
        """Nothing of ours."""
        return State()

    def grounded(self, goal: State, before: State) -> State:
        """Settings that the goal does not speak of are put back."""
        known = dict(goal.sysctls)
        return replace(goal, sysctls=tuple((k, known.get(k, v)) for k, v in before.sysctls))

    def observe(self) -> State:
        """The generation in force, and what is attached."""
        one = generation.read(Entry(self._folder)) or State()
        found = sorted(hooks.attached(self._folder))
        attached = tuple(f.attachment for f in found)
        behind = {f.attachment: f.ahead for f in found if f.ahead}
        return replace(one, attachments=attached, sysctls=_sysctls(), behind=behind)

    def dump(self, state_: State) -> bytes:
        """For the journal."""
        return state.dump(state_)

    def load(self, data: bytes) -> State:
        """From the journal."""
        return state.load(data)

    # --- from one to the other ---

    def changes(self, live: State, goal: State) -> tuple[Change, ...]:
        """The differences, table by table."""
        from k8snetc.backends.ebpf.changes import changes

        return tuple(changes(live, goal))

    def steps(self, live: State, goal: State) -> Sequence[Step]:
        """A new generation beside the old one, one switch, then the attachments, then what is left of the old one.

        Where nothing was attached before, nothing is in force until the switch is made and the hooks are attached.
        Raises InstallError where policy could not be first.
        """
        entry = Entry(self._folder)
        ours = sorted({*live.attachments, *hooks.shut(self._folder)})
        out: list[Step] = []
        if any(True for _ in _left(self._folder)):
            out.append(Step("collect leftovers", lambda: _collect(self._folder)))
        if not goal.source:
            out += [_detach(a, self._folder) for a in ours]
            out.append(Step("remove programs and tables", lambda: remove(self._folder)))
            out += _settings(live, goal)
            return out
        if goal.profiles:
            hooks.check_first(a for a in goal.attachments if a.hook in JUDGING)
        out += _settings(live, goal)
        if _program(live) != _program(goal):
            rows = goal.rows()
            out.append(Step("load the entry programs", entry.create))
            out.append(
                Step(f"load a generation of {rows} rows", lambda: generation.install(goal, entry), rows)
            )
            out.append(Step("switch", lambda: generation.switch(entry), 1))
        cgroup = self._cgroup()
        for attachment in goal.attachments:
            if attachment not in live.attachments or (goal.profiles and attachment in live.behind):
                out.append(_attach(attachment, cgroup, self._folder))
        out += [_detach(a, self._folder) for a in ours if a not in goal.attachments]
        if _program(live) != _program(goal) or not generation.forgotten(entry):
            out.append(Step("free the old generation", lambda: generation.forget(entry)))
        return out

    def cut(self, old: Program | None, new: Program) -> int:
        """Forget flows to endpoints that are gone; what policy denies is judged again by the programs themselves."""
        from k8snetc.backends.ebpf import counters
        from k8snetc.backends.ebpf.cut import cut

        counters.collect(Entry(self._folder), new)
        return cut(new, Entry(self._folder))

    def details(self, program: Program) -> tuple[Section, ...]:
        """Programs, attach points, tables, counters."""
        from k8snetc.backends.ebpf.report import report

        return report(Entry(self._folder), program)

    def warnings(self) -> tuple[str, ...]:
        """None: where another program runs before ours, policy is not in force, and that is a difference."""
        return ()

    def _cgroup(self) -> str | None:
        if self._options.no_cgroup:
            return None
        if self._options.cgroup is not None:
            path = Path(self._options.cgroup)
            if not (path / "cgroup.procs").exists():
                raise InstallError(f"--cgroup {path}: not a folder of the cgroup2 file system")
            return str(path)
        for found in _CGROUPS:
            if (Path(found) / "cgroup.controllers").exists():
                return found
        raise InstallError(
            "there is no cgroup2 file system: mount it, name one with --cgroup, or use --no-cgroup"
        )


def _program(one: State) -> State:
    """What a generation is: all but its attachments and settings."""
    return replace(one, attachments=(), sysctls=())


def _sysctls() -> tuple[tuple[str, str], ...]:
    return tuple((key, Path("/proc/sys", key).read_text("ascii").strip()) for key in state.SYSCTLS)


def _settings(live: State, goal: State) -> list[Step]:
    known = dict(live.sysctls)

    def write(key: str, value: str) -> Step:
        name = key.replace("/", ".")
        return Step(f"{name} = {value}", lambda: void(Path("/proc/sys", key).write_text(value, "ascii")))

    return [write(k, v) for k, v in goal.sysctls if known.get(k) != v]


def void(_: object) -> None:
    """Drop a result."""


def _left(folder: Path) -> Iterator[Path]:
    """What a killed process or an interface that went away has left."""
    yield from leftovers(folder)
    yield from hooks.stale(folder)


def _collect(folder: Path) -> None:
    for path in tuple(_left(folder)):
        hooks.discard(path)


def _attach(attachment: Attachment, cgroup: str | None, folder: Path) -> Step:
    return Step(f"attach {attachment.hook}", lambda: hooks.attach(attachment, cgroup, folder), 1)


def _detach(attachment: Attachment, folder: Path) -> Step:
    return Step(f"detach {attachment.hook}", lambda: hooks.detach(attachment, folder), 1)
