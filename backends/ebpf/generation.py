"""One generation: loaded, filled and put into the place that is not in force; and read back.

Knows: which tables outlive a generation. Must not know how it is decided what to install.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator

from k8snetc.backends.ebpf import bpf_maps, bpf_objects, bpf_programs, libbpf, state
from k8snetc.backends.ebpf.build import build
from k8snetc.backends.ebpf.pins import Entry
from k8snetc.backends.ebpf.state import PACKETS, TC_HOOKS, Constants, Content, State
from k8snetc.backends.ebpf.verifier import explain
from k8snetc.backends.target import InstallError

_SHARED = re.compile(
    r"(connections|fragments|sockets|datagrams|affinity)[46]$|(verdict|service|policy)_counts$|denials$|watching$"
)
# A hook whose program holds a generation's tables: every generation has it.
_HOLDER = "from_pod"
# What a generation says of itself, and the object that its programs were made from: the next one may be of the same C.
TOLD = (_ABOUT, _OBJECT) = "about", "object"
_CONFIG = ".rodata.config"  # the map of the constants, as the kernel has its name


def is_shared(table: str) -> bool:
    """Whether a table outlives its generation."""
    return _SHARED.match(table) is not None


def install(wanted: State, entry: Entry) -> None:
    """Load `wanted` as the next generation beside the one in force. A failure leaves that one as it is."""
    slot = 1 - entry.current()
    following = (number(entry, 1 - slot) or 0) + 1
    kept = _running_object(entry, wanted.source)
    elf = build(wanted.source) if kept is None else zlib.decompress(kept)
    loaded = bpf_objects.Object(elf, "k8snetc")
    contents = {t.name: t for t in wanted.tables}
    reused: list[int] = []
    try:
        loaded.constants(wanted.constants.pack(following))
        for name in loaded.map_names:
            if _SHARED.match(name):
                pinned = entry.folder / "shared" / name
                if pinned.exists():
                    reused.append(bpf_programs.get(str(pinned)))
                    loaded.reuse(name, reused[-1])
            elif name in contents:
                loaded.size(name, max(1, len(contents[name].rows)))
        try:
            loaded.load()
        except libbpf.BpfError as error:
            raise InstallError(explain(error.log, error.code, wanted.source)) from error
        holder = loaded.program(PACKETS)
        for name, content in contents.items():
            if name not in loaded.map_names:
                continue
            table = loaded.map(name)
            if content.rows:
                table.fill(
                    b"".join(k for k, _ in content.rows),
                    b"".join(v for _, v in content.rows),
                    len(content.rows),
                )
        held = set(bpf_programs.program_info(holder).maps)
        for name in loaded.map_names:
            if not _SHARED.match(name):
                number_of = bpf_maps.map_id(loaded.map(name).fd)
                if number_of not in held:
                    bpf_programs.bind(holder, loaded.map(name).fd)
        for name, data in ((_ABOUT, state.about(wanted)), (_OBJECT, kept or zlib.compress(elf, 1))):
            told = bpf_maps.blob(name, data)
            bpf_programs.bind(holder, told.fd)
            told.close()
        shared = entry.folder / "shared"
        shared.mkdir(mode=0o700, exist_ok=True)
        for name in loaded.map_names:
            if _SHARED.match(name) and not (shared / name).exists():
                bpf_programs.pin(loaded.map(name).fd, str(shared / name))
        for hook in entry.hooks:
            name = PACKETS if hook in TC_HOOKS else hook
            entry.occupy(hook, slot, loaded.program(name) if name in loaded.programs else None)
    finally:
        for fd in reused:
            os.close(fd)
        loaded.close()


def forgotten(entry: Entry) -> bool:
    """Whether nothing but the generation in force takes memory; a killed apply leaves one that is not."""
    return not entry.exists or all(entry.occupant(h, 1 - entry.current()) is None for h in entry.hooks)


def forget(entry: Entry) -> None:
    """Free the generation that is not in force."""
    slot = 1 - entry.current()
    for hook in entry.hooks:
        entry.occupy(hook, slot, None)


def _tables(entry: Entry, slot: int) -> Iterator[bpf_maps.Map]:
    """The tables of the generation in a place, opened one by one: each is closed when the next one is asked for."""
    program = entry.occupant(_HOLDER, slot)
    if program is None:
        return
    fd = bpf_programs.program_by_id(program)
    try:
        for identifier in bpf_programs.program_info(fd).maps:
            table = bpf_maps.map_by_id(identifier)
            try:
                yield table
            finally:
                table.close()
    finally:
        os.close(fd)


def _running_object(entry: Entry, source: str) -> bytes | None:
    """The object of the generation in force, compressed, if that was made from this C: then clang is not needed."""
    found = {t.name: t.get(bytes(4)) or b"" for t in _tables(entry, entry.current()) if t.name in TOLD}
    if _ABOUT not in found or _OBJECT not in found or _about(found[_ABOUT])[0] != source:
        return None
    return found[_OBJECT]


def number(entry: Entry, slot: int) -> int | None:
    """The number of the generation in a place; None if there is none."""
    for table in _tables(entry, slot):
        if table.name == _CONFIG:
            return Constants.unpack(table.get(bytes(4)) or b"")[1]
    return None


def switch(entry: Entry) -> None:
    """Put the newest generation in force. It may be so already: this can be repeated."""
    slot = entry.current()
    running, waiting = number(entry, slot), number(entry, 1 - slot)
    if waiting is not None and (running is None or waiting > running):
        entry.switch(1 - slot)


def _about(data: bytes) -> tuple[str, tuple[str, ...]]:
    try:
        return state.read_about(data)
    except ValueError as error:
        raise InstallError(
            f"what is installed here is of another version of k8snetc ({error}), and this one does not know its entry "
            "programs; remove it with that version first"
        ) from error


def read(entry: Entry) -> State | None:
    """The generation in force, without its attachments; None if there is none. InstallError: another version's."""
    if not entry.exists:
        return None
    tables: list[Content] = []
    constants, source = Constants(), ""
    profiles: tuple[str, ...] = ()
    anything = False
    for table in _tables(entry, entry.current()):
        anything = True
        if _SHARED.match(table.name) or table.name == _OBJECT:
            continue
        rows = tuple(table.rows())
        if table.name == _ABOUT:
            source, profiles = _about(rows[0][1])
        elif table.name == _CONFIG:
            constants, _ = Constants.unpack(rows[0][1])
        elif "." not in table.name:
            tables.append(Content(table.name, tuple(sorted(rows))))
    if not anything:
        return None
    return State(source=source, constants=constants, profiles=profiles, tables=tuple(sorted(tables)))
