"""Programs of the kernel: loaded ones, where they are pinned and what they are attached to.

Knows: links, pins, test runs. Must not know: what the programs do, and how they are loaded (`bpf_objects`).
"""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass

from k8snetc.backends.ebpf.libbpf import BpfError, check, describe, library

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
_SCHED_CLS = 3  # `enum bpf_prog_type`
_BEFORE = 1 << 3  # BPF_F_BEFORE; without another program it means before all of them
_MOST = 64  # programs that the kernel lets attach to one TCX hook
_LOOPBACK = 1  # the index that it has in every network namespace
# `r0 = TC_ACT_SHOT; exit`
_DROP = bytes((0xB7, 0, 0, 0, 2, 0, 0, 0)) + bytes((0x95, 0, 0, 0, 0, 0, 0, 0))


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
    describe(fd, info, "a program")
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


def pin(fd: int, path: str) -> None:
    """Keep an object beyond this process under a path of a BPF file system."""
    check(library().bpf_obj_pin(fd, path.encode()), f"pinning {path}")


def get(path: str) -> int:
    """Open a pinned object."""
    return check(library().bpf_obj_get(path.encode()), f"opening {path}")


class _LinkOptions(ctypes.Structure):
    """The beginning of `struct bpf_link_create_opts`, which is all that libbpf 1.1 and later ones agree about."""

    _fields_ = (("sz", ctypes.c_size_t), ("flags", ctypes.c_uint32), ("pad", ctypes.c_uint32))


def link(program: int, target: int, hook: int) -> int:
    """Attach a program to an interface (by index), ahead of all others, or to a cgroup (by descriptor).

    The kernel does not attach one program twice at the same hook. Raises BpfError.
    """
    flags = _BEFORE if hook in (TCX_INGRESS, TCX_EGRESS) else 0
    options = _LinkOptions(ctypes.sizeof(_LinkOptions), flags)
    return check(
        library().bpf_link_create(program, target, hook, ctypes.byref(options)), "attaching a program"
    )


def link_update(link_fd: int, program: int) -> None:
    """Replace the program of a link, in its place."""
    check(library().bpf_link_update(link_fd, program, None), "replacing a program")


def link_detach(link_fd: int) -> None:
    """Detach now. Without it the kernel does so some time after the last descriptor and pin of the link are gone."""
    check(library().bpf_link_detach(link_fd), "detaching a program")


def dropping() -> int:
    """Load a tc program that drops every packet."""
    return check(
        library().bpf_prog_load(_SCHED_CLS, b"k8snetc_shut", b"GPL", _DROP, len(_DROP) // 8, None),
        "loading a program that drops",
    )


def programs_at(target: int, hook: int) -> tuple[int, ...]:
    """The numbers of the programs at an interface's TCX hook, in the order in which they run. Raises BpfError."""
    numbers, count = (ctypes.c_uint32 * _MOST)(), ctypes.c_uint32(_MOST)
    check(
        library().bpf_prog_query(target, hook, 0, None, ctypes.byref(numbers), ctypes.byref(count)),
        "asking which programs are attached",
    )
    return tuple(numbers[: count.value])


def has_tcx() -> bool:
    """Whether the kernel has TCX (Linux 6.6)."""
    try:
        programs_at(_LOOPBACK, TCX_INGRESS)
    except BpfError as error:
        if error.code != errno.EINVAL:
            raise
        return False
    return True


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


def link_program(fd: int) -> int:
    """The number of the program that a link attaches."""
    info = _LinkInfo()
    describe(fd, info, "a link")
    return int(info.prog_id)


def link_place(fd: int) -> int:
    """The interface's index or the cgroup's number that a link is attached to; 0 if that is gone."""
    info = _LinkInfo()
    describe(fd, info, "a link")
    return int(info.place) if info.type == _LINK_CGROUP else int(info.place) & 0xFFFFFFFF
