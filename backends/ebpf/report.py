"""What is installed, in numbers, for `status`: programs, attach points, how full tables are, counters.

Knows: what the kernel tells about the parts. Must not know: how it is printed, or how anything is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from k8snetc.backends.ebpf import bpf_maps, bpf_programs, counters, generation, hooks, node, tally
from k8snetc.backends.ebpf.pins import Entry
from k8snetc.backends.ebpf.state import TC_HOOKS
from k8snetc.backends.target import Cell, Section
from k8snetc.ir.types import Enforcement, Program

_CGROUPS = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")
_INSTRUCTION = 8  # bytes


def report(entry: Entry, program: Program) -> tuple[Section, ...]:
    """The sections in the order in which they are read; none where nothing is installed."""
    if not entry.exists:
        return ()
    running = dict(_programs(entry))
    return (
        Section("programs", ("hook", "program", "instructions"), tuple(_program_rows(running))),
        Section("attached", ("hook", "at", "by"), tuple(_attachments(entry))),
        Section("tables", ("table", "kind", "used", "size"), tuple(_tables(entry, running))),
        *_counters(entry, program),
    )


def _programs(entry: Entry) -> Iterator[tuple[str, bpf_programs.ProgramInfo]]:
    current = entry.current()
    for hook in entry.hooks:
        number = entry.occupant(hook, current)
        if number is not None:
            fd = bpf_programs.program_by_id(number)
            try:
                yield hook, bpf_programs.program_info(fd)
            finally:
                os.close(fd)


def _program_rows(running: dict[str, bpf_programs.ProgramInfo]) -> Iterator[tuple[Cell, ...]]:
    for hook, info in running.items():
        yield hook, info.id, info.size // _INSTRUCTION


def _attachments(entry: Entry) -> Iterator[tuple[Cell, ...]]:
    names = {d.index: d.name for d in node.facts().devices}
    for attachment, by, ahead in sorted(hooks.attached(entry.folder)):
        if attachment.hook in TC_HOOKS:
            where = names.get(attachment.place, f"interface {attachment.place}")
            yield attachment.hook, where, f"{by}, behind {ahead}" if ahead else by
        else:
            yield attachment.hook, _cgroup(attachment.place), by


def _cgroup(number: int) -> str:
    """The path of the cgroup with this inode, if it can be seen from here."""
    for root in _CGROUPS:
        for folder, _, _ in os.walk(root):
            with suppress(FileNotFoundError):  # it may be gone since
                if os.stat(folder).st_ino == number:
                    return folder
        if Path(root, "cgroup.controllers").exists():
            break
    return f"cgroup {number}"


def _tables(entry: Entry, running: dict[str, bpf_programs.ProgramInfo]) -> Iterator[tuple[Cell, ...]]:
    numbers = {n for info in running.values() for n in info.maps}
    found: dict[str, tuple[Cell, ...]] = {}
    for number in numbers:
        table = bpf_maps.map_by_id(number)
        try:
            if "." in table.name or table.name in generation.TOLD:
                continue
            kind = bpf_maps.MAP_KINDS.get(table.kind, str(table.kind))
            used = tally.used(table)
            found[table.name] = (table.name, kind, used, table.capacity)
        finally:
            table.close()
    yield from (found[name] for name in sorted(found))


def _counters(entry: Entry, program: Program) -> Iterator[Section]:
    found = counters.read(entry, program)
    if found is None:
        return
    services: list[tuple[Cell, ...]] = []
    for name, s in sorted(found.services.items()):
        service, _, exposure = name.rpartition(" ")
        services.append((service, exposure, s.opened, s.sockets, s.rejected, s.dropped))
    policies: list[tuple[Cell, ...]] = []
    for e in program.enforcements:
        one = found.policies.get(e.name)
        if one is not None:
            policies.append((named(e), e.direction.value, f"IPv{e.family.value}", one.allowed, one.denied))
    meanings = dict(counters.VERDICTS)
    if program.frontends:
        yield Section(
            "services", ("service", "address", "opened", "sockets", "rejected", "dropped"), tuple(services)
        )
    if program.enforcements:
        yield Section(
            "policies", ("policies", "direction", "family", "allowed", "denied"), tuple(sorted(policies))
        )
    rows = ((name, count, meanings[name]) for name, count in found.verdicts.items())
    yield Section("verdicts", ("verdict", "count", "of"), tuple(rows))


def named(enforcement: Enforcement) -> str:
    """The policies that make an enforcement, or its own name where they are not known."""
    names = {f"{o.namespace}/{o.name}" if o.namespace else o.name for o in enforcement.origins}
    return ", ".join(sorted(names)) or enforcement.name
