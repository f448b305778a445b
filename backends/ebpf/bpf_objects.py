"""Compiled objects: opened, adjusted, loaded.

Knows: how libbpf makes maps and programs of an ELF, and its log. Must not know: what they are for.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator

from k8snetc.backends.ebpf.bpf_maps import Map, map_of
from k8snetc.backends.ebpf.libbpf import BpfError, check, library

_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class _OpenOptions(ctypes.Structure):
    _fields_ = (("sz", ctypes.c_size_t), ("object_name", ctypes.c_char_p))


class Object:
    """A compiled object: opened, then adjusted, then loaded. Close it when its programs are held elsewhere."""

    def __init__(self, elf: bytes, name: str) -> None:
        self._lines: list[str] = []
        self._print = _PRINT(self._say)
        options = _OpenOptions(ctypes.sizeof(_OpenOptions), name.encode())
        self.name = name
        library().libbpf_set_print(ctypes.cast(self._print, ctypes.c_void_p))
        self._object = library().bpf_object__open_mem(elf, len(elf), ctypes.byref(options))
        if not self._object:
            raise BpfError(f"opening the object {name}", ctypes.get_errno() or errno.EINVAL, self.log)
        self._maps: dict[str, int] = dict(self._named("bpf_object__next_map", "bpf_map__name"))
        self.programs: dict[str, int] = dict(self._named("bpf_object__next_program", "bpf_program__name"))

    def _say(self, level: int, message: bytes, arguments: int) -> int:
        if level > 1:
            return 0
        buffer = ctypes.create_string_buffer(1 << 24)  # the most that the verifier writes
        vsnprintf = ctypes.CDLL(None).vsnprintf
        vsnprintf.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]
        vsnprintf(buffer, len(buffer), message, arguments)
        self._lines += buffer.value.decode("utf-8", "replace").splitlines()
        return 0

    @property
    def log(self) -> str:
        """What libbpf and the verifier said, the whole of it."""
        return "\n".join(self._lines)

    def _named(self, following: str, name: str) -> Iterator[tuple[str, int]]:
        at = None
        while at := getattr(library(), following)(self._object, at):
            yield getattr(library(), name)(at).decode(), at

    @property
    def map_names(self) -> tuple[str, ...]:
        """The maps, the program's constants (`.rodata`) among them."""
        return tuple(self._maps)

    def size(self, name: str, entries: int) -> None:
        """How many elements a map can hold."""
        check(library().bpf_map__set_max_entries(self._maps[name], entries), f"sizing {name}")

    def value_size(self, name: str, size: int) -> None:
        """How large a value of a map is."""
        check(library().bpf_map__set_value_size(self._maps[name], size), f"sizing {name}")

    def reuse(self, name: str, fd: int) -> None:
        """Take an existing map instead of making a new one."""
        check(library().bpf_map__reuse_fd(self._maps[name], fd), f"reusing {name}")

    def constants(self, data: bytes) -> None:
        """Set the program's constants."""
        name = next((n for n in self._maps if n.endswith(".rodata.config")), None)
        if name is not None:
            check(
                library().bpf_map__set_initial_value(self._maps[name], data, len(data)), "setting constants"
            )

    def keep(self, programs: frozenset[str]) -> None:
        """Load only these programs."""
        for name, program in self.programs.items():
            check(library().bpf_program__set_autoload(program, name in programs), f"choosing {name}")

    def load(self) -> None:
        """Create the maps, and have the programs verified. Raises BpfError with libbpf's log."""
        library().libbpf_set_print(ctypes.cast(self._print, ctypes.c_void_p))
        result = library().bpf_object__load(self._object)
        if result < 0:
            raise BpfError(f"loading the object {self.name}", -result, self.log)

    def map(self, name: str) -> Map:
        """A map of the loaded object; its descriptor lives as long as the object."""
        return map_of(library().bpf_map__fd(self._maps[name]))

    def program(self, name: str) -> int:
        """The descriptor of a loaded program; it lives as long as the object."""
        return check(library().bpf_program__fd(self.programs[name]), f"program {name}")

    def instructions(self, name: str) -> int:
        """How many instructions a program has."""
        return int(library().bpf_program__insn_cnt(self.programs[name]))

    def close(self) -> None:
        """Let go of everything that is not pinned or attached."""
        if self._object:
            library().bpf_object__close(self._object)
            self._object = None
        library().libbpf_set_print(None)
