"""libbpf, through the handle of bcc's library: typed calls, and nothing untyped leaves this module.

Knows: the C signatures (libbpf 1.x), errno, batches. Must not know: what the maps and programs are for.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from k8snetc.backends.target import InstallError

# `enum bpf_attach_type` of linux/bpf.h
TCX_INGRESS, TCX_EGRESS = 46, 47
CGROUP_HOOKS = {
    "connect4": 10,
    "connect6": 11,
    "sendmsg4": 14,
    "sendmsg6": 15,
    "recvmsg4": 19,
    "recvmsg6": 20,
    "getpeername4": 29,
    "getpeername6": 30,
}
_BATCH = 4096  # elements that are read at once
# `enum bpf_map_type`
MAP_KINDS = {
    1: "hash",
    2: "array",
    3: "programs",
    5: "per-CPU hash",
    6: "per-CPU array",
    9: "LRU hash",
    11: "LPM trie",
    27: "ring",
}

_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class BpfError(InstallError):
    """A call of libbpf failed. `code` is the errno, `log` what libbpf and the verifier said."""

    def __init__(self, what: str, code: int, log: str = "") -> None:
        super().__init__(what, code, log)
        self.what = what
        self.code = code
        self.log = log

    def __str__(self) -> str:
        hint = {
            errno.EPERM: "; BPF needs root (CAP_BPF, CAP_NET_ADMIN), and a kernel that is not locked down",
            errno.ENOMEM: "; not enough memory for the tables",
            errno.E2BIG: "; a table is full or a program too large",
        }.get(self.code, "")
        log = f"\n{self.log}" if self.log else ""
        return f"{self.what}: {os.strerror(self.code)}{hint}{log}"


@cache
def library() -> ctypes.CDLL:
    """The handle, with the signatures that are used. Raises InstallError."""
    try:
        from bcc.libbcc import lib
    except ImportError as error:
        raise InstallError(
            f"the Python package bcc is missing ({error}): install Debian's python3-bpfcc, and make the virtual "
            "environment with --system-site-packages"
        ) from error
    handle: ctypes.CDLL = lib
    pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    number = ctypes.c_int
    signatures: dict[str, tuple[object, list[object]]] = {
        "bpf_object__open_mem": (pointer, [text, size, pointer]),
        "bpf_object__load": (number, [pointer]),
        "bpf_object__close": (None, [pointer]),
        "bpf_object__next_map": (pointer, [pointer, pointer]),
        "bpf_object__next_program": (pointer, [pointer, pointer]),
        "bpf_map__name": (text, [pointer]),
        "bpf_map__fd": (number, [pointer]),
        "bpf_map__set_max_entries": (number, [pointer, ctypes.c_uint32]),
        "bpf_map__set_value_size": (number, [pointer, ctypes.c_uint32]),
        "bpf_map__reuse_fd": (number, [pointer, number]),
        "bpf_map__set_initial_value": (number, [pointer, text, size]),
        "bpf_program__name": (text, [pointer]),
        "bpf_program__fd": (number, [pointer]),
        "bpf_program__set_autoload": (number, [pointer, ctypes.c_bool]),
        "bpf_program__insn_cnt": (size, [pointer]),
        "bpf_map_update_batch": (number, [number, text, text, pointer, pointer]),
        "bpf_map_delete_batch": (number, [number, text, pointer, pointer]),
        "bpf_map_lookup_batch": (number, [number, pointer, pointer, pointer, pointer, pointer, pointer]),
        "bpf_map_update_elem": (number, [number, text, text, ctypes.c_uint64]),
        "bpf_map_lookup_elem": (number, [number, text, pointer]),
        "bpf_map_delete_elem": (number, [number, text]),
        "bpf_map_get_next_key": (number, [number, text, pointer]),
        "bpf_obj_pin": (number, [number, text]),
        "bpf_obj_get": (number, [text]),
        "bpf_obj_get_info_by_fd": (number, [number, pointer, pointer]),
        "bpf_map_create": (
            number,
            [number, text, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32, pointer],
        ),
        "bpf_prog_bind_map": (number, [number, number, pointer]),
        "bpf_prog_get_fd_by_id": (number, [ctypes.c_uint32]),
        "bpf_map_get_fd_by_id": (number, [ctypes.c_uint32]),
        "bpf_link_create": (number, [number, number, number, pointer]),
        "bpf_link_update": (number, [number, number, pointer]),
        "bpf_prog_test_run_opts": (number, [number, pointer]),
        "libbpf_set_print": (pointer, [pointer]),
        "libbpf_num_possible_cpus": (number, []),
        "libbpf_probe_bpf_map_type": (number, [number, pointer]),
        "libbpf_probe_bpf_prog_type": (number, [number, pointer]),
        "libbpf_probe_bpf_helper": (number, [number, number, pointer]),
        "ring_buffer__new": (pointer, [number, pointer, pointer, pointer]),
        "ring_buffer__poll": (number, [pointer, number]),
        "ring_buffer__consume": (number, [pointer]),
        "ring_buffer__free": (None, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(handle, name)
        function.restype = result
        function.argtypes = arguments
    return handle


def check(result: int, what: str) -> int:
    """The result of a call, or BpfError when it says that it failed."""
    if result < 0:
        raise BpfError(what, -result if result != -1 else ctypes.get_errno() or errno.EINVAL)
    return result


# --- maps ---


class _MapInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
    )


@dataclass(frozen=True, slots=True)
class Map:
    """An open map. `kind` is the number of its type."""

    fd: int
    name: str
    kind: int
    key_size: int
    value_size: int
    capacity: int

    def fill(self, keys: bytes, values: bytes, count: int) -> None:
        """Write `count` elements, all of them or an error."""
        done = 0
        while done < count:
            part = ctypes.c_uint32(min(count - done, 65536))
            result = library().bpf_map_update_batch(
                self.fd,
                keys[done * self.key_size : (done + part.value) * self.key_size],
                values[done * self.value_size : (done + part.value) * self.value_size],
                ctypes.byref(part),
                None,
            )
            check(result, f"table {self.name}: writing {count} elements into {self.capacity} places")
            done += part.value

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """Every element, in the kernel's order."""
        if (
            self.kind == 11
        ):  # tries are read key by key: batches of them came with Linux 5.16 and stop at changes
            yield from self._walk()
            return
        size = min(self.capacity + 1, _BATCH)
        place = ctypes.create_string_buffer(max(8, self.key_size))
        keys, values = (ctypes.create_string_buffer(size * n) for n in (self.key_size, self.value_size))
        first = True
        while True:
            count = ctypes.c_uint32(size)
            result = library().bpf_map_lookup_batch(
                self.fd, None if first else place, place, keys, values, ctypes.byref(count), None
            )
            if result == -errno.ENOSPC:  # one bucket of a hash table has more than that
                size *= 2
                keys, values = (
                    ctypes.create_string_buffer(size * n) for n in (self.key_size, self.value_size)
                )
                continue
            if result < 0 and -result != errno.ENOENT:
                check(result, f"reading table {self.name}")
            # Copied once: every look at `raw` copies all of it.
            all_keys, all_values = keys.raw, values.raw
            for i in range(count.value):
                yield (
                    all_keys[i * self.key_size : (i + 1) * self.key_size],
                    all_values[i * self.value_size : (i + 1) * self.value_size],
                )
            if result < 0:
                return
            first = False

    def _walk(self) -> Iterator[tuple[bytes, bytes]]:
        key: bytes | None = None
        following = ctypes.create_string_buffer(self.key_size)
        while library().bpf_map_get_next_key(self.fd, key, following) == 0:
            key = following.raw
            value = self.get(key)
            if value is not None:
                yield key, value

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        value = ctypes.create_string_buffer(self.value_size)
        result = library().bpf_map_lookup_elem(self.fd, key, value)
        if result == -errno.ENOENT:
            return None
        check(result, f"reading table {self.name}")
        return value.raw

    def put(self, key: bytes, value: bytes) -> None:
        """Write one element."""
        check(library().bpf_map_update_elem(self.fd, key, value, 0), f"writing table {self.name}")

    def delete(self, key: bytes) -> bool:
        """Delete one element; False if it is not there."""
        result = library().bpf_map_delete_elem(self.fd, key)
        if result == -errno.ENOENT:
            return False
        check(result, f"deleting from table {self.name}")
        return True

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


def map_of(fd: int) -> Map:
    """What is behind a descriptor."""
    info = _MapInfo()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    check(library().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), "asking about a map")
    return Map(fd, info.name.decode(), info.type, info.key_size, info.value_size, info.max_entries)


def map_id(fd: int) -> int:
    """The number of a map."""
    info = _MapInfo()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    check(library().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), "asking about a map")
    return int(info.id)


def map_by_id(number: int) -> Map:
    """Open a map by its number."""
    return map_of(check(library().bpf_map_get_fd_by_id(number), f"opening map {number}"))


def probe() -> None:
    """Make the smallest map and let it go. Raises BpfError where BPF is not permitted."""
    os.close(check(library().bpf_map_create(2, b"probe", 4, 4, 1, None), "making a table"))


def blob(name: str, data: bytes) -> Map:
    """A map that holds nothing but these bytes."""
    fd = check(library().bpf_map_create(2, name.encode(), 4, len(data), 1, None), f"making table {name}")
    made = Map(fd, name, 2, 4, len(data), 1)
    made.put(bytes(4), data)
    return made


# --- programs ---


class _ProgramInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * 16),
    )


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """A loaded program: its number, name, the numbers of its maps, and its length in bytes of BPF."""

    id: int
    name: str
    maps: tuple[int, ...]
    size: int


def program_info(fd: int) -> ProgramInfo:
    """What is behind a program's descriptor."""
    numbers = (ctypes.c_uint32 * 64)()
    info = _ProgramInfo()
    info.nr_map_ids = 64
    info.map_ids = ctypes.addressof(numbers)
    size = ctypes.c_uint32(ctypes.sizeof(info))
    check(
        library().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), "asking about a program"
    )
    return ProgramInfo(info.id, info.name.decode(), tuple(numbers[: info.nr_map_ids]), info.xlated_prog_len)


def program_by_id(number: int) -> int:
    """Open a program by its number."""
    return check(library().bpf_prog_get_fd_by_id(number), f"opening program {number}")


class _TestRun(ctypes.Structure):
    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


def run(fd: int, packet: bytes, context: bytes = b"") -> tuple[int, bytes]:
    """Run a tc program on a frame (BPF_PROG_TEST_RUN): its verdict, and the frame as it left it."""
    out = ctypes.create_string_buffer(len(packet) + 256)
    data = ctypes.create_string_buffer(packet, len(packet))
    ctx = ctypes.create_string_buffer(context, len(context)) if context else None
    run = _TestRun(
        sz=ctypes.sizeof(_TestRun),
        data_in=ctypes.addressof(data),
        data_size_in=len(packet),
        data_out=ctypes.addressof(out),
        data_size_out=len(out),
    )
    if ctx is not None:
        run.ctx_in, run.ctx_size_in = ctypes.addressof(ctx), len(context)
    check(library().bpf_prog_test_run_opts(fd, ctypes.byref(run)), "running a program")
    return ctypes.c_int32(run.retval).value, out.raw[: run.data_size_out]


def bind(program: int, table: int) -> None:
    """Keep a map for as long as the program lives, though its code does not use it."""
    check(library().bpf_prog_bind_map(program, table, None), "binding a table to a program")


# --- pins and links ---


def pin(fd: int, path: str) -> None:
    """Keep an object beyond this process under a path of a BPF file system."""
    check(library().bpf_obj_pin(fd, path.encode()), f"pinning {path}")


def get(path: str) -> int:
    """Open a pinned object."""
    return check(library().bpf_obj_get(path.encode()), f"opening {path}")


def link(program: int, target: int, hook: int) -> int:
    """Attach a program to an interface (by index) or a cgroup (by descriptor). Raises BpfError."""
    return check(library().bpf_link_create(program, target, hook, None), "attaching a program")


def link_update(link_fd: int, program: int) -> None:
    """Replace the program of a link."""
    check(library().bpf_link_update(link_fd, program, None), "replacing a program")


class _LinkInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("place", ctypes.c_uint64),
        ("rest", ctypes.c_uint8 * 64),
    )


_LINK_CGROUP = 3  # BPF_LINK_TYPE_CGROUP


def link_place(fd: int) -> int:
    """The interface's index or the cgroup's number that a link is attached to; 0 if that is gone."""
    info = _LinkInfo()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    check(library().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), "asking about a link")
    return int(info.place) if info.type == _LINK_CGROUP else int(info.place) & 0xFFFFFFFF


# --- objects ---


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
