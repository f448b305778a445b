"""What the kernel must have for a program, as data; asked before anything is changed.

Knows: which helper, map or program type is for which feature, and since which Linux it is there. Must not know: how
programs are generated or loaded.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

from k8snetc.backends.ebpf import bpf_maps, libbpf
from k8snetc.backends.ebpf.features import Features
from k8snetc.backends.target import InstallError

_TC, _SOCKET = 3, 18  # `enum bpf_prog_type` of linux/bpf.h: SCHED_CLS, CGROUP_SOCK_ADDR
_CAP_NET_ADMIN, _CAP_SYS_ADMIN, _CAP_BPF = 12, 21, 39  # linux/capability.h


class Kind(Enum):
    """What is asked of libbpf."""

    MAP = "map type"
    PROGRAM = "program type"
    TC_HELPER = "helper of tc programs"
    SOCKET_HELPER = "helper of cgroup socket programs"


@dataclass(frozen=True, slots=True)
class Need:
    """Something that `wanted` programs need. `number` is that of linux/bpf.h, `since` the first Linux that has it."""

    name: str
    kind: Kind
    number: int
    since: str
    wanted: Callable[[Features, bool], bool]

    def __str__(self) -> str:
        return f"{self.kind.value} {self.name} (Linux {self.since})"


def _always(_f: Features, _sockets: bool) -> bool:
    return True


def _services(f: Features, _sockets: bool) -> bool:
    return f.frontends


def _socket(f: Features, sockets: bool) -> bool:
    return f.frontends and sockets


def _rejects(f: Features, _sockets: bool) -> bool:
    return f.ipv4.rejects or f.ipv6.rejects


NEEDS: tuple[Need, ...] = (
    Need("sched_cls", Kind.PROGRAM, _TC, "4.1", _always),
    Need("cgroup_sock_addr", Kind.PROGRAM, _SOCKET, "4.17", _socket),
    Need("prog_array", Kind.MAP, 3, "4.2", _always),
    Need("lru_hash", Kind.MAP, 9, "4.10", _always),
    Need("lpm_trie", Kind.MAP, 11, "4.11", _always),
    Need("percpu_hash", Kind.MAP, 5, "4.6", lambda f, _s: f.counters),
    Need("ringbuf", Kind.MAP, 27, "5.8", lambda f, _s: f.counters and f.policy),
    Need("bpf_ringbuf_output", Kind.TC_HELPER, 130, "5.8", lambda f, _s: f.counters and f.policy),
    Need("bpf_ktime_get_coarse_ns", Kind.TC_HELPER, 160, "5.11", _always),
    Need("bpf_loop", Kind.TC_HELPER, 181, "5.17", lambda f, _s: f.frontends or bool(f.ipv6)),
    Need("bpf_redirect_neigh", Kind.TC_HELPER, 152, "5.10", _services),
    Need("bpf_fib_lookup", Kind.TC_HELPER, 69, "4.18", _services),
    Need("bpf_csum_diff", Kind.TC_HELPER, 28, "4.6", _services),
    Need("bpf_skb_change_tail", Kind.TC_HELPER, 38, "4.9", _rejects),
    Need("bpf_skb_adjust_room", Kind.TC_HELPER, 50, "4.13", _rejects),
    Need("bpf_get_netns_cookie", Kind.SOCKET_HELPER, 122, "5.7", _socket),
    Need("bpf_get_socket_cookie", Kind.SOCKET_HELPER, 46, "4.18", _socket),
    Need("bpf_sk_lookup_tcp", Kind.SOCKET_HELPER, 84, "5.1", _socket),
    Need("bpf_set_retval", Kind.SOCKET_HELPER, 187, "5.18", _socket),
)


def check(features: Features, *, sockets: bool, needs: tuple[Need, ...] = NEEDS) -> None:
    """Raise `InstallError` with everything that is missing. `sockets`: cgroup hooks are attached."""
    permitted()
    missing = [n for n in needs if n.wanted(features, sockets) and not _has(n.kind, n.number)]
    if missing:
        release = os.uname().release
        lines = "".join(f"\n  {n}" for n in missing)
        hint = (
            "\nwithout the cgroup hooks (--no-cgroup) less is needed"
            if any(n.kind is Kind.SOCKET_HELPER or n.number == _SOCKET for n in missing)
            else ""
        )
        raise InstallError(
            f"this kernel ({release}) lacks what the programs need; nothing was changed:{lines}{hint}"
        )


@cache
def _has(kind: Kind, number: int) -> bool:
    library = libbpf.library()
    match kind:
        case Kind.MAP:
            return bool(library.libbpf_probe_bpf_map_type(number, None) != 0)
        case Kind.PROGRAM:
            return bool(library.libbpf_probe_bpf_prog_type(number, None) != 0)
        case Kind.TC_HELPER:
            return bool(library.libbpf_probe_bpf_helper(_TC, number, None) != 0)
        case Kind.SOCKET_HELPER:
            return bool(library.libbpf_probe_bpf_helper(_SOCKET, number, None) != 0)


def permitted() -> None:
    """Raise `InstallError` with the reason if this process may not use BPF."""
    try:
        bpf_maps.probe()
    except libbpf.BpfError as error:
        if error.code not in (errno.EPERM, errno.EACCES):
            raise
        reasons = "".join(f"\n  {r}" for r in _reasons())
        raise InstallError(f"BPF is not permitted here; nothing was changed:{reasons}") from error


def _reasons() -> Iterator[str]:
    status = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text("ascii").splitlines()
        if ":" in line
    )
    held = int(status.get("CapEff", "0"), 16)
    if not held & (1 << _CAP_BPF | 1 << _CAP_SYS_ADMIN):
        yield "this process lacks CAP_BPF: run it as root, or give it CAP_BPF and CAP_NET_ADMIN"
    elif not held & (1 << _CAP_NET_ADMIN):
        yield "this process lacks CAP_NET_ADMIN: run it as root"
    else:
        yield "root without the right: a container that confines bpf(2) (seccomp), or a security module"
    lockdown = _read("/sys/kernel/security/lockdown")
    if "[confidentiality]" in lockdown:
        yield "the kernel is locked down (confidentiality)"
    if _read("/proc/sys/kernel/unprivileged_bpf_disabled").strip() in ("1", "2") and os.geteuid() != 0:
        yield "kernel.unprivileged_bpf_disabled is on, as it should be: BPF is for root"


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError:
        return ""
