"""Attaching: TCX links on interfaces where the kernel has them (Linux 6.6), clsact filters otherwise; cgroup links.

Knows: how the kernel names hooks, and who runs before whom there. Must not know what the programs do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from k8snetc.backends.ebpf import bpf_programs, clsact, libbpf
from k8snetc.backends.ebpf.pins import FOLDER, Entry, remove
from k8snetc.backends.ebpf.state import INGRESS, JUDGING, TC_HOOKS, Attachment
from k8snetc.backends.target import InstallError


def _path(attachment: Attachment, folder: Path) -> Path:
    return folder / "links" / f"{attachment.hook}@{attachment.place}"


class Found(NamedTuple):
    """An attachment that is in force, by what, and who runs before it (asked only where policy is decided)."""

    attachment: Attachment
    by: str
    ahead: str = ""


def attached(folder: Path = FOLDER) -> Iterator[Found]:
    """The attachments that are in force, first or not."""
    entry = _entry(folder)
    for found, program in _links(folder):
        if program == entry.get(found.attachment.hook, program):
            if found.attachment.hook not in JUDGING:
                yield found
                continue
            try:
                yield found._replace(ahead=_ahead(found.attachment, {*entry.values()}))
            except libbpf.BpfError as error:
                if error.code != errno.ENODEV:  # the interface has just gone
                    raise
    if (folder / "entry").is_dir():
        for attachment, ahead in clsact.attached():
            yield Found(attachment, "clsact filter", ahead if attachment.hook in JUDGING else "")


def shut(folder: Path = FOLDER) -> Iterator[Attachment]:
    """Where an apply that was killed has left the program that drops everything (see `_to_the_head`)."""
    entry = _entry(folder)
    for found, program in _links(folder):
        if program != entry.get(found.attachment.hook, program):
            yield found.attachment
    if (folder / "entry").is_dir():
        yield from clsact.shut()


def _links(folder: Path) -> Iterator[tuple[Found, int]]:
    """Links that are in force, and the number of the program that each attaches."""
    links = folder / "links"
    if not links.is_dir():
        return
    for path in sorted(links.iterdir()):
        hook, _, place = path.name.partition("@")
        fd = bpf_programs.get(str(path))
        try:
            alive, program = bpf_programs.link_place(fd), bpf_programs.link_program(fd)
        finally:
            os.close(fd)
        # A link whose interface or cgroup is gone stays pinned, attached to nothing.
        if alive == int(place):
            by = "TCX link" if hook in TC_HOOKS else "cgroup link"
            yield Found(Attachment(hook, int(place)), by), program


def _entry(folder: Path) -> dict[str, int]:
    """The numbers of the entry programs of the tc hooks."""
    found: dict[str, int] = {}
    for hook in TC_HOOKS:
        if (folder / "entry" / hook).exists():
            fd = Entry(folder).program(hook)
            try:
                found[hook] = bpf_programs.program_info(fd).id
            finally:
                os.close(fd)
    return found


def _kind(hook: str) -> int:
    return bpf_programs.TCX_INGRESS if hook in INGRESS else bpf_programs.TCX_EGRESS


def _ahead(attachment: Attachment, ours: set[int]) -> str:
    """The program that runs before ours at a TCX hook; "" if ours come first."""
    first = bpf_programs.programs_at(attachment.place, _kind(attachment.hook))[:1]
    if not first or first[0] in ours:
        return ""
    try:
        fd = bpf_programs.program_by_id(first[0])
    except libbpf.BpfError:  # it has just gone; the next look does not see it
        return f"program {first[0]}"
    try:
        return f"program {first[0]} ({bpf_programs.program_info(fd).name or 'without a name'})"
    finally:
        os.close(fd)


def check_first(attachments: Iterable[Attachment]) -> None:
    """Raise InstallError where somebody's filter stands in the place that is ahead of all others."""
    if bpf_programs.has_tcx():  # there is always a place ahead, and clsact comes after it
        return
    taken = [f"interface {a.place}: {who}" for a in attachments if (who := clsact.obstacle(a))]
    if taken:
        lines = "".join(f"\n  {line}" for line in taken)
        raise InstallError(
            f"policy would not hold behind somebody else's filter; nothing was changed:{lines}\n"
            f"give it a priority above {clsact.FIRST} (tc filter)"
        )


def attach(attachment: Attachment, cgroup: str | None, folder: Path = FOLDER) -> None:
    """Attach the entry program of a hook, ahead of all others where it is one for packets. Raises InstallError."""
    entry = Entry(folder)
    path = _path(attachment, folder)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    program = entry.program(attachment.hook)
    try:
        if attachment.hook not in TC_HOOKS:
            _attach_to_cgroup(attachment, program, path, cgroup)
        elif bpf_programs.has_tcx():
            try:
                _attach_to_interface(attachment, program, path)
            except libbpf.BpfError as error:
                raise InstallError(f"{attachment.hook} on interface {attachment.place}: {error}") from error
        else:
            clsact.attach(attachment, program, folder)
    finally:
        os.close(program)


def _attach_to_interface(attachment: Attachment, program: int, path: Path) -> None:
    place, kind = attachment.place, _kind(attachment.hook)
    if path.exists():
        old = bpf_programs.get(str(path))
        try:
            if bpf_programs.link_place(old) == place:
                _to_the_head(old, place, kind, program, path)
                return
        finally:
            os.close(old)
        remove(path)
    _pin(bpf_programs.link(program, place, kind), path)


def _to_the_head(old: int, place: int, kind: int, program: int, path: Path) -> None:
    """Put a program first that is attached already, by the link `old`.

    The kernel does not attach it a second time. So a program that drops everything goes to the head, and ours takes its
    place when the old link is gone: no packet passes unjudged in between, also if this process is killed.
    """
    drop = bpf_programs.dropping()
    try:
        link = bpf_programs.link(drop, place, kind)
    finally:
        os.close(drop)
    try:
        staging = path.parent.parent / f"new-{os.getpid()}"
        bpf_programs.pin(link, str(staging))
        staging.rename(path)
        bpf_programs.link_detach(old)
        bpf_programs.link_update(link, program)
    finally:
        os.close(link)


def _attach_to_cgroup(attachment: Attachment, program: int, path: Path, cgroup: str | None) -> None:
    assert cgroup is not None
    remove(path)
    folder_fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        link = bpf_programs.link(program, folder_fd, bpf_programs.CGROUP_HOOKS[attachment.hook])
    except libbpf.BpfError as error:
        raise InstallError(f"{attachment.hook} on cgroup {cgroup}: {error}") from error
    finally:
        os.close(folder_fd)
    _pin(link, path)


def _pin(link: int, path: Path) -> None:
    try:
        bpf_programs.pin(link, str(path))
    finally:
        os.close(link)


def detach(attachment: Attachment, folder: Path = FOLDER) -> None:
    """Undo `attach`."""
    path = _path(attachment, folder)
    if path.exists():
        fd = bpf_programs.get(str(path))
        try:
            bpf_programs.link_detach(fd)  # now: who attaches the same program next must not find it there
        finally:
            os.close(fd)
        remove(path)
    elif attachment.hook in TC_HOOKS:
        clsact.detach(attachment, folder)


def discard(path: Path) -> None:
    """Remove something that is stale."""
    if path.parent.name == clsact.MARKS:
        clsact.release(path)
    else:
        remove(path)


def stale(folder: Path = FOLDER) -> Iterator[Path]:
    """Pins of links whose interface or cgroup is gone, and marks of clsact queues that nothing uses."""
    yield from clsact.unused(folder)
    links = folder / "links"
    if not links.is_dir():
        return
    for path in sorted(links.iterdir()):
        fd = bpf_programs.get(str(path))
        try:
            if bpf_programs.link_place(fd) != int(path.name.partition("@")[2]):
                yield path
        finally:
            os.close(fd)
