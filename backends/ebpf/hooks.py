"""Attaching: TCX links on interfaces where the kernel has them (Linux 6.6), clsact filters otherwise; cgroup links.

Knows: how the kernel names hooks. Must not know what the programs do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from k8snetc.backends.ebpf import libbpf
from k8snetc.backends.ebpf.pins import FOLDER, Entry, remove
from k8snetc.backends.ebpf.state import TC_HOOKS, Attachment
from k8snetc.backends.target import InstallError

_INGRESS = ("from_pod", "from_outside")
_PRIORITY = 0x6B38  # of our clsact filters
_ETH_P_ALL = 3
_CLSACT_INGRESS, _CLSACT_EGRESS = 0xFFFFFFF2, 0xFFFFFFF3


def _path(attachment: Attachment, folder: Path) -> Path:
    return folder / "links" / f"{attachment.hook}@{attachment.place}"


def attached(folder: Path = FOLDER) -> Iterator[Attachment]:
    """The attachments that are in force."""
    links = folder / "links"
    if links.is_dir():
        for path in sorted(links.iterdir()):
            hook, _, place = path.name.partition("@")
            fd = libbpf.get(str(path))
            try:
                alive = libbpf.link_place(fd)
            finally:
                os.close(fd)
            # A link whose interface or cgroup is gone stays pinned, attached to nothing.
            if alive == int(place):
                yield Attachment(hook, int(place))
    if (folder / "entry").is_dir():
        yield from _filters()


def attach(attachment: Attachment, cgroup: str | None, folder: Path = FOLDER) -> None:
    """Attach the entry program of a hook. Raises InstallError."""
    entry = Entry(folder)
    path = _path(attachment, folder)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    remove(path)
    program = entry.program(attachment.hook)
    try:
        if attachment.hook in TC_HOOKS:
            kind = libbpf.TCX_INGRESS if attachment.hook in _INGRESS else libbpf.TCX_EGRESS
            try:
                link = libbpf.link(program, attachment.place, kind)
            except libbpf.BpfError as error:
                if error.code != errno.EINVAL:
                    raise InstallError(
                        f"{attachment.hook} on interface {attachment.place}: {error}"
                    ) from error
                _add_filter(attachment, program)
                return
        else:
            assert cgroup is not None
            folder_fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
            try:
                link = libbpf.link(program, folder_fd, libbpf.CGROUP_HOOKS[attachment.hook])
            except libbpf.BpfError as error:
                raise InstallError(f"{attachment.hook} on cgroup {cgroup}: {error}") from error
            finally:
                os.close(folder_fd)
        try:
            libbpf.pin(link, str(path))
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
        _delete_filter(attachment)


def stale(folder: Path = FOLDER) -> Iterator[Path]:
    """Pins of links whose interface or cgroup is gone."""
    links = folder / "links"
    if not links.is_dir():
        return
    for path in sorted(links.iterdir()):
        fd = libbpf.get(str(path))
        try:
            if libbpf.link_place(fd) != int(path.name.partition("@")[2]):
                yield path
        finally:
            os.close(fd)


# --- clsact ---


def _parent(hook: str) -> int:
    return _CLSACT_INGRESS if hook in _INGRESS else _CLSACT_EGRESS


def _name(hook: str) -> str:
    return f"k8snetc_{hook}"


def _add_filter(attachment: Attachment, program: int) -> None:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as route:
        try:
            route.tc("add", "clsact", attachment.place)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise InstallError(f"interface {attachment.place}: no clsact: {error}") from error
        try:
            route.tc(
                "replace-filter",
                "bpf",
                attachment.place,
                handle=1,
                fd=program,
                name=_name(attachment.hook),
                parent=_parent(attachment.hook),
                prio=_PRIORITY,
                protocol=_ETH_P_ALL,
                classid=1,
                direct_action=True,
            )
        except NetlinkError as error:
            raise InstallError(f"interface {attachment.place}: no filter: {error}") from error


def _delete_filter(attachment: Attachment) -> None:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as route:
        try:
            route.tc(
                "del-filter",
                "bpf",
                attachment.place,
                handle=1,
                parent=_parent(attachment.hook),
                prio=_PRIORITY,
                protocol=_ETH_P_ALL,
            )
        except NetlinkError as error:
            if error.code not in (errno.ENOENT, errno.ENODEV, errno.EINVAL):
                raise InstallError(f"interface {attachment.place}: {error}") from error


def _filters() -> Iterator[Attachment]:
    from pyroute2 import IPRoute

    names = {_name(h): h for h in TC_HOOKS}
    with IPRoute() as route:
        clsact = {q["index"] for q in route.get_qdiscs() if q.get_attr("TCA_KIND") == "clsact"}
        for index in sorted(clsact):
            for parent in (_CLSACT_INGRESS, _CLSACT_EGRESS):
                for one in route.get_filters(index=index, parent=parent):
                    options = one.get_attr("TCA_OPTIONS")
                    name = options.get_attr("TCA_BPF_NAME") if options is not None else None
                    if name in names:
                        yield Attachment(names[name], index)
