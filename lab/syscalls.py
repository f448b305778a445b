"""The few system calls that Python 3.11 does not offer: namespaces, mounts, and to end with one's parent.

Knows the C library. Must not know what the namespaces are for.
"""

from __future__ import annotations

import ctypes
import os
import signal

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_SLAVE = 0x80000
MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace behind `fd` (setns(2)). Raises OSError."""
    _check(_libc.setns(fd, kind), "setns")


def unshare(kind: int) -> None:
    """Give the calling process a new namespace of that kind (unshare(2)). Raises OSError."""
    _check(_libc.unshare(kind), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError that names the target."""
    words = [w.encode() if w else None for w in (source, target, kind)]
    _check(
        _libc.mount(*words, ctypes.c_ulong(flags), data.encode() if data else None),
        f"mount {kind or source} on {target}",
    )


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2). Raises OSError that names the target."""
    _check(_libc.umount2(target.encode(), flags), f"unmount {target}")


def die_with(parent: int) -> None:
    """Be killed as soon as `parent` ends, whose forked child this is; at once if it has ended (prctl(2))."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL)), "prctl")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
