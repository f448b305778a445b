"""Attaching: TCX links on interfaces where the kernel has them (Linux 6.6), clsact filters otherwise; cgroup links.

Knows: how the kernel names hooks. Must not know what the programs do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from k8snetc.backends.ebpf import bpf_programs, clsact, libbpf
from k8snetc.backends.ebpf.pins import FOLDER, Entry, remove
from k8snetc.backends.ebpf.state import INGRESS, TC_HOOKS, Attachment
from k8snetc.backends.target import InstallError


def _path(attachment: Attachment, folder: Path) -> Path:
    return folder / "links" / f"{attachment.hook}@{attachment.place}"


def attached(folder: Path = FOLDER) -> Iterator[Attachment]:
    """The attachments that are in force."""
    links = folder / "links"
    if links.is_dir():
        for path in sorted(links.iterdir()):
            hook, _, place = path.name.partition("@")
            fd = bpf_programs.get(str(path))
            try:
                alive = bpf_programs.link_place(fd)
            finally:
                os.close(fd)
            # A link whose interface or cgroup is gone stays pinned, attached to nothing.
            if alive == int(place):
                yield Attachment(hook, int(place))
    if (folder / "entry").is_dir():
        yield from clsact.attached()


def attach(attachment: Attachment, cgroup: str | None, folder: Path = FOLDER) -> None:
    """Attach the entry program of a hook. Raises InstallError."""
    entry = Entry(folder)
    path = _path(attachment, folder)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    remove(path)
    program = entry.program(attachment.hook)
    try:
        if attachment.hook in TC_HOOKS:
            kind = bpf_programs.TCX_INGRESS if attachment.hook in INGRESS else bpf_programs.TCX_EGRESS
            try:
                link = bpf_programs.link(program, attachment.place, kind)
            except libbpf.BpfError as error:
                if error.code != errno.EINVAL:
                    raise InstallError(
                        f"{attachment.hook} on interface {attachment.place}: {error}"
                    ) from error
                clsact.attach(attachment, program, folder)
                return
        else:
            assert cgroup is not None
            folder_fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
            try:
                link = bpf_programs.link(program, folder_fd, bpf_programs.CGROUP_HOOKS[attachment.hook])
            except libbpf.BpfError as error:
                raise InstallError(f"{attachment.hook} on cgroup {cgroup}: {error}") from error
            finally:
                os.close(folder_fd)
        try:
            bpf_programs.pin(link, str(path))
        finally:
            os.close(link)
    finally:
        os.close(program)


def is_link(attachment: Attachment, folder: Path = FOLDER) -> bool:
    """Whether a link attaches it; otherwise a clsact filter does."""
    return _path(attachment, folder).exists()


def detach(attachment: Attachment, folder: Path = FOLDER) -> None:
    """Undo `attach`."""
    path = _path(attachment, folder)
    if path.exists():
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
