"""One generation: loaded, filled and put into the place that is not in force; and read back.

Knows: which tables outlive a generation. Must not know how it is decided what to install.
"""

from __future__ import annotations

import os
import re
import zlib

from k8snetc.backends.ebpf import libbpf, state
from k8snetc.backends.ebpf.build import build
from k8snetc.backends.ebpf.pins import Entry
from k8snetc.backends.ebpf.state import Constants, Content, State
from k8snetc.backends.ebpf.verifier import explain
from k8snetc.backends.target import InstallError

_SHARED = re.compile(
    r"(connections|fragments|sockets|datagrams|affinity)[46]$|(verdict|service|policy)_counts$|denials$|watching$"
)
# The hook whose program holds a generation's tables: every program has it.
_HOLDER = "from_pod"
# What a generation says of itself, and the object that its programs were made from: the next one may be of the same C.
TOLD = (_ABOUT, _OBJECT) = "about", "object"


def is_shared(table: str) -> bool:
    """Whether a table outlives its generation."""
    return _SHARED.match(table) is not None


def install(wanted: State, entry: Entry, number: int) -> None:
    """Load `wanted` as generation `number` beside the one in force. A failure leaves that one as it is."""
    slot = 1 - entry.current()
    elf = _running_object(entry, wanted.source) or build(wanted.source)
    loaded = libbpf.Object(elf, "k8snetc")
    contents = {t.name: t for t in wanted.tables}
    reused: list[int] = []
    try:
        loaded.constants(wanted.constants.pack(number))
        for name in loaded.map_names:
            if _SHARED.match(name):
                pinned = entry.folder / "shared" / name
                if pinned.exists():
                    reused.append(libbpf.get(str(pinned)))
                    loaded.reuse(name, reused[-1])
            elif name in contents:
                loaded.size(name, max(1, len(contents[name].rows)))
        try:
            loaded.load()
        except libbpf.BpfError as error:
            raise InstallError(explain(error.log, error.code, wanted.source)) from error
        holder = loaded.program(_HOLDER)
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
        held = set(libbpf.program_info(holder).maps)
        for name in loaded.map_names:
            if not _SHARED.match(name):
                number_of = libbpf.map_id(loaded.map(name).fd)
                if number_of not in held:
                    libbpf.bind(holder, loaded.map(name).fd)
        for name, data in ((_ABOUT, state.about(wanted)), (_OBJECT, zlib.compress(elf, 1))):
            told = libbpf.blob(name, data)
            libbpf.bind(holder, told.fd)
            told.close()
        shared = entry.folder / "shared"
        shared.mkdir(mode=0o700, exist_ok=True)
        for name in loaded.map_names:
            if _SHARED.match(name) and not (shared / name).exists():
                libbpf.pin(loaded.map(name).fd, str(shared / name))
        for hook in entry.hooks:
            entry.occupy(hook, slot, loaded.program(hook) if hook in loaded.programs else None)
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


def _running_object(entry: Entry, source: str) -> bytes | None:
    """The object of the generation in force, if that was made from this C: then clang need not make it again."""
    program = entry.occupant(_HOLDER, entry.current())
    if program is None:
        return None
    fd = libbpf.program_by_id(program)
    found: dict[str, bytes] = {}
    try:
        for identifier in libbpf.program_info(fd).maps:
            table = libbpf.map_by_id(identifier)
            try:
                if table.name in TOLD:
                    found[table.name] = table.get(bytes(4)) or b""
            finally:
                table.close()
    finally:
        os.close(fd)
    if _ABOUT not in found or _OBJECT not in found or state.read_about(found[_ABOUT])[0] != source:
        return None
    return zlib.decompress(found[_OBJECT])


def read(entry: Entry) -> tuple[State, int] | None:
    """The generation in force, without its attachments, and its number; None if there is none."""
    if not entry.exists:
        return None
    program = entry.occupant(_HOLDER, entry.current())
    if program is None:
        return None
    fd = libbpf.program_by_id(program)
    tables: list[Content] = []
    constants, number, source = Constants(), 0, ""
    profiles: tuple[str, ...] = ()
    try:
        for identifier in libbpf.program_info(fd).maps:
            table = libbpf.map_by_id(identifier)
            try:
                if _SHARED.match(table.name) or table.name == _OBJECT:
                    continue
                rows = tuple(table.rows())
            finally:
                table.close()
            if table.name == _ABOUT:
                source, profiles = state.read_about(rows[0][1])
            elif table.name == ".rodata.config":
                constants, number = Constants.unpack(rows[0][1])
            elif "." not in table.name:
                tables.append(Content(table.name, tuple(sorted(rows))))
    finally:
        os.close(fd)
    found = State(source=source, constants=constants, profiles=profiles, tables=tuple(sorted(tables)))
    return found, number
