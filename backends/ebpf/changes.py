"""Differences between two states, for people: rows of tables in words, functions of the C, hooks.

Must not know the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import unified_diff

from k8snetc.backends.ebpf import layouts
from k8snetc.backends.ebpf.model import Layout
from k8snetc.backends.ebpf.state import Attachment, State
from k8snetc.backends.target import Change
from k8snetc.ir.types import Family


def changes(live: State, goal: State) -> Iterator[Change]:
    """The differences in a stable order: the C, the tables, the rest."""
    if live.source != goal.source:
        lines = list(unified_diff(live.source.splitlines(), goal.source.splitlines(), lineterm="", n=0))[2:]
        removed = tuple(line[1:] for line in lines if line.startswith("-"))
        added = tuple(line[1:] for line in lines if line.startswith("+"))
        yield Change("program", removed, added)
    old = {t.name: dict(t.rows) for t in live.tables}
    new = {t.name: dict(t.rows) for t in goal.tables}
    for name in sorted({*old, *new}):
        before, after = old.get(name, {}), new.get(name, {})
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                origin = goal.comments.get((name, key), "") or live.comments.get((name, key), "")
                yield Change(
                    f"table {name}", _row(name, key, before.get(key)), _row(name, key, after.get(key)), origin
                )
    if live.constants != goal.constants and goal.source:
        yield Change("constants", (str(live.constants),), (str(goal.constants),))
    if live.profiles != goal.profiles:
        yield Change("policy profiles", live.profiles, goal.profiles)
    judged = live.profiles or goal.profiles
    for attachment in sorted({*live.attachments, *goal.attachments}):
        where = f"hook {attachment.hook} at {attachment.place}"
        if attachment not in goal.attachments:
            yield Change(where, ("attached",), ())
        elif attachment not in live.attachments:
            yield Change(where, (), ("attached",))
        elif judged and (attachment in live.behind) != (attachment in goal.behind):
            yield Change(where, (_order(live, attachment),), (_order(goal, attachment),))
    before_settings, after_settings = dict(live.sysctls), dict(goal.sysctls)
    for setting, value in sorted(after_settings.items()):
        if before_settings.get(setting) != value:
            name = setting.replace("/", ".")
            yield Change(f"sysctl {name}", (before_settings.get(setting, ""),), (value,))


def _order(state: State, attachment: Attachment) -> str:
    ahead = state.behind.get(attachment)
    return (
        "attached first"
        if ahead is None
        else f"attached behind {ahead}, which can let pass what policy denies"
    )


def _row(table: str, key: bytes, value: bytes | None) -> tuple[str, ...]:
    if value is None:
        return ()
    shape = layout(table)
    if shape is None:
        return (f"{key.hex()} -> {value.hex()}",)
    return (f"{shape[0].text(shape[0].unpack(key))} -> {shape[1].text(shape[1].unpack(value))}",)


def layout(table: str) -> tuple[Layout, Layout] | None:
    """The layouts of a table's key and value, by its name."""
    if table == "devices":
        return layouts.INDEX, layouts.DEVICE
    if table == "port_sets":
        return layouts.PORT_KEY, layouts.U32
    family = {"4": Family.IPV4, "6": Family.IPV6}.get(table[-1:])
    if family is None:
        return None
    return {
        "frontends": (layouts.frontend_key(family), layouts.FRONTEND),
        "endpoints": (layouts.INDEX, layouts.endpoint(family)),
        "targets": (layouts.frontend_key(family), layouts.U32),
        "sources": (layouts.source_key(family), layouts.U32),
        "members": (layouts.member_key(family), layouts.U32),
        "cluster": (layouts.network(family), layouts.U32),
        "refusals": (layouts.network(family), layouts.U32),
        "pods": (layouts.address(family), layouts.PROFILE),
        "identities": (layouts.network(family), layouts.U32),
        "verdicts": (layouts.VERDICT_KEY, layouts.U32),
        "node_addresses": (layouts.address(family), layouts.U32),
    }.get(table[:-1])
