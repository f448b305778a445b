"""Attaching where the kernel has no TCX (before Linux 6.6): filters of the clsact queueing discipline.

Knows: tc's netlink messages, through pyroute2, and which clsact is ours: a folder `clsact/<interface>` beside the pins
is made before it is. Must not know what the programs do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from k8snetc.backends.ebpf import bpf_programs
from k8snetc.backends.ebpf.state import INGRESS, TC_HOOKS, Attachment
from k8snetc.backends.target import InstallError

if TYPE_CHECKING:
    from pyroute2 import IPRoute

MARKS = "clsact"
FIRST = 1  # the priority that runs before all others
_PRIORITY = 0x6B38  # of our filters where somebody else has that one, and of those of older versions
_SHUT = "_shut"  # ends the name of a filter that drops everything while ours moves
_ETH_P_ALL = 3
# What the kernel says of an interface or clsact that went away
_GONE = (errno.ENOENT, errno.ENODEV, errno.EINVAL)
_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3


class _Filter(NamedTuple):
    """A filter at a hook, or what stands for all filters of a kind and priority (`handle` 0)."""

    priority: int
    handle: int
    kind: str
    name: str

    def __str__(self) -> str:
        name = f" ({self.name})" if self.name else ""
        return f"filter {self.kind}{name} of priority {self.priority}"


def attach(attachment: Attachment, program: int, folder: Path) -> None:
    """Add the filter, ahead of all others if it can be, and clsact where there is none. Raises InstallError."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    place, hook = attachment.place, attachment.hook
    with IPRoute() as route:
        if place not in _disciplines(route):
            (folder / MARKS / str(place)).mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                route.tc("add", "clsact", place)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise InstallError(f"interface {place}: no clsact: {error}") from error
        try:
            own, others = _sorted_out(route, attachment)
            priority = _PRIORITY if any(f.priority == FIRST for f in others) else FIRST
            there = next((f for f in own if f.priority == priority), None)
            moved = [f for f in own if f is not there]
            wanted = _Filter(
                priority, there.handle if there else TC_HOOKS.index(hook) + 1, "bpf", _name(hook)
            )
            if moved and there is None:
                # Nothing passes unjudged, nor is judged twice, while ours moves; also if this process is killed.
                there = wanted._replace(name=wanted.name + _SHUT)
                drop = bpf_programs.dropping()
                try:
                    _put(route, "add-filter", attachment, drop, there)
                finally:
                    os.close(drop)
            for one in moved:
                _delete(route, attachment, one)
            _put(route, "replace-filter" if there else "add-filter", attachment, program, wanted)
        except NetlinkError as error:
            raise InstallError(f"interface {place}: no filter: {error}") from error


def _put(route: IPRoute, command: str, attachment: Attachment, program: int, one: _Filter) -> None:
    route.tc(
        command,
        "bpf",
        attachment.place,
        handle=one.handle,
        fd=program,
        name=one.name,
        parent=_parent(attachment.hook),
        prio=one.priority,
        protocol=_ETH_P_ALL,
        classid=1,
        direct_action=True,
    )


def _delete(route: IPRoute, attachment: Attachment, one: _Filter) -> None:
    route.tc(
        "del-filter",
        "bpf",
        attachment.place,
        handle=one.handle,
        parent=_parent(attachment.hook),
        prio=one.priority,
        protocol=_ETH_P_ALL,
    )


def detach(attachment: Attachment, folder: Path) -> None:
    """Delete the filter, and clsact if it is ours and has none left. Raises InstallError."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as route:
        try:
            for one in _sorted_out(route, attachment)[0]:
                _delete(route, attachment, one)
        except NetlinkError as error:
            if error.code not in _GONE:
                raise InstallError(f"interface {attachment.place}: {error}") from error
        used = _used(route, attachment.place)
    mark = folder / MARKS / str(attachment.place)
    if mark.is_dir() and not used:
        release(mark)


def attached() -> Iterator[tuple[Attachment, str]]:
    """Our filters that are in force, and the one that each is behind; "" where it is the first."""
    for attachment, filters in _everywhere():
        names = [f.name for f in filters]
        name = _name(attachment.hook)
        if name in names and name + _SHUT not in names:
            own = filters[names.index(name)]
            # Filters come in the order in which they run, and what stands for those of a priority comes first.
            before = (f for f in filters[: names.index(name)] if f.name not in _NAMES)
            ahead = [f for f in before if f.handle or f.priority != own.priority]
            named = [f for f in ahead if f.handle] or ahead
            yield attachment, str(named[0]) if named else ""


def shut() -> Iterator[Attachment]:
    """Where a filter of ours that drops everything was left by an apply that was killed."""
    for attachment, filters in _everywhere():
        if any(f.name == _name(attachment.hook) + _SHUT for f in filters):
            yield attachment


def obstacle(attachment: Attachment) -> str:
    """The filter of somebody else that has the priority ahead of all others; "" if there is none."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        if attachment.place not in _disciplines(route):
            return ""
        others = _sorted_out(route, attachment)[1]
    return next((str(f) for f in reversed(others) if f.priority == FIRST), "")


def _everywhere() -> Iterator[tuple[Attachment, list[_Filter]]]:
    """Every hook of ours at every interface that has clsact, and all filters there."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        for index in sorted(_disciplines(route)):
            for parent in (_INGRESS, _EGRESS):
                filters = list(_filters(route, index, parent))
                for hook in TC_HOOKS:
                    if _parent(hook) == parent:
                        yield Attachment(hook, index), filters


def _filters(route: IPRoute, index: int, parent: int) -> Iterator[_Filter]:
    """The filters at a hook, as the kernel tells them: in the order in which they run."""
    for one in route.get_filters(index=index, parent=parent):
        options = one.get_attr("TCA_OPTIONS")
        named = hasattr(options, "get_attr") and one.get_attr("TCA_KIND") == "bpf"
        name = options.get_attr("TCA_BPF_NAME") if named else None
        yield _Filter(one["info"] >> 16, one["handle"], str(one.get_attr("TCA_KIND")), name or "")


def _sorted_out(route: IPRoute, attachment: Attachment) -> tuple[list[_Filter], list[_Filter]]:
    """Our filters for a hook, and all others there."""
    name = _name(attachment.hook)
    filters = list(_filters(route, attachment.place, _parent(attachment.hook)))
    own = [f for f in filters if f.name in (name, name + _SHUT)]
    heads = {f.priority for f in filters if f.name in _NAMES}
    others = [f for f in filters if f.name not in _NAMES and (f.handle or f.priority not in heads)]
    return own, others


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


_NAMES = frozenset(_name(h) + end for h in TC_HOOKS for end in ("", _SHUT))
