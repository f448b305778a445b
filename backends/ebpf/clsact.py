"""Attaching where the kernel has no TCX (before Linux 6.6): filters of the clsact queueing discipline.

Knows: tc's netlink messages, through pyroute2, and which clsact is ours: a folder `clsact/<interface>` beside the pins
is made before it is. Must not know what the programs do.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from k8snetc.backends.ebpf.state import INGRESS, TC_HOOKS, Attachment
from k8snetc.backends.target import InstallError

if TYPE_CHECKING:
    from pyroute2 import IPRoute

MARKS = "clsact"
_PRIORITY = 0x6B38  # of our filters
_ETH_P_ALL = 3
# What the kernel says of an interface or clsact that went away
_GONE = (errno.ENOENT, errno.ENODEV, errno.EINVAL)
_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3


def attach(attachment: Attachment, program: int, folder: Path) -> None:
    """Add the filter, and clsact where the interface has none. Raises InstallError."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    place = attachment.place
    with IPRoute() as route:
        if place not in _disciplines(route):
            (folder / MARKS / str(place)).mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                route.tc("add", "clsact", place)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise InstallError(f"interface {place}: no clsact: {error}") from error
        try:
            route.tc(
                "replace-filter",
                "bpf",
                place,
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
            raise InstallError(f"interface {place}: no filter: {error}") from error


def detach(attachment: Attachment, folder: Path) -> None:
    """Delete the filter, and clsact if it is ours and has none left. Raises InstallError."""
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
            if error.code not in _GONE:
                raise InstallError(f"interface {attachment.place}: {error}") from error
        used = _used(route, attachment.place)
    mark = folder / MARKS / str(attachment.place)
    if mark.is_dir() and not used:
        release(mark)


def attached() -> Iterator[Attachment]:
    """Our filters that are in force."""
    from pyroute2 import IPRoute

    names = {_name(h): h for h in TC_HOOKS}
    with IPRoute() as route:
        for index in sorted(_disciplines(route)):
            for parent in (_INGRESS, _EGRESS):
                for one in route.get_filters(index=index, parent=parent):
                    options = one.get_attr("TCA_OPTIONS")
                    name = options.get_attr("TCA_BPF_NAME") if options is not None else None
                    if name in names:
                        yield Attachment(names[name], index)


def unused(folder: Path) -> Iterator[Path]:
    """Marks whose clsact has no filter (an apply was killed), or whose interface is gone."""
    marks = folder / MARKS
    if not marks.is_dir():
        return
    from pyroute2 import IPRoute

    with IPRoute() as route:
        there = _disciplines(route)
        for mark in sorted(marks.iterdir()):
            if int(mark.name) not in there or not _used(route, int(mark.name)):
                yield mark


def release(mark: Path) -> None:
    """Delete a clsact of ours and its mark; either may be gone."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as route:
        if int(mark.name) in _disciplines(route):
            try:
                route.tc("del", "clsact", int(mark.name))
            except NetlinkError as error:
                if error.code not in _GONE:
                    raise InstallError(f"interface {mark.name}: {error}") from error
    with suppress(FileNotFoundError):
        mark.rmdir()


def _disciplines(route: IPRoute) -> set[int]:
    """The interfaces that have clsact."""
    return {q["index"] for q in route.get_qdiscs() if q.get_attr("TCA_KIND") == "clsact"}


def _used(route: IPRoute, index: int) -> bool:
    """Whether any filter, ours or not, is at the interface. Raises InstallError where the kernel doesn't say."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        return any(any(True for _ in route.get_filters(index=index, parent=p)) for p in (_INGRESS, _EGRESS))
    except NetlinkError as error:
        if error.code not in _GONE:
            # Not knowing is not "none": what nobody uses is deleted, and with clsact go the filters in it.
            raise InstallError(f"interface {index}: can't list its filters: {error}") from error
        return False


def _parent(hook: str) -> int:
    return _INGRESS if hook in INGRESS else _EGRESS


def _name(hook: str) -> str:
    return f"k8snetc_{hook}"
