"""libbpf, through the handle of bcc's library: the C signatures, and what a failed call says.

Knows: the signatures (libbpf 1.x) and errno. Must not know: what is called for what; maps, programs and objects are
`bpf_maps`, `bpf_programs` and `bpf_objects`, and nothing untyped leaves those.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache

from k8snetc.backends.target import InstallError


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
        "bpf_prog_load": (number, [number, text, text, text, size, pointer]),
        "bpf_prog_query": (number, [number, number, ctypes.c_uint32, pointer, pointer, pointer]),
        "bpf_link_create": (number, [number, number, number, pointer]),
        "bpf_link_detach": (number, [number]),
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


def describe(fd: int, info: ctypes.Structure, what: str) -> None:
    """Have the kernel fill in what it says of an object: a `struct bpf_..._info` of linux/bpf.h, or its beginning."""
    size = ctypes.c_uint32(ctypes.sizeof(info))
    check(
        library().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), f"asking about {what}"
    )


def check(result: int, what: str) -> int:
    """The result of a call, or BpfError when it says that it failed."""
    if result < 0:
        raise BpfError(what, -result if result != -1 else ctypes.get_errno() or errno.EINVAL)
    return result
