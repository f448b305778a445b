"""The state directory: files that only root reads and writes, whole or not there, and one lock.

Knows: how to make, replace and remove files so that nobody can lead us elsewhere (no links followed, mode 0600 in a
directory of mode 0700) and so that a crash leaves the old file or the new one. Must not know: what is in them.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from k8snetc.apply.errors import LockedError, StateError
from k8snetc.backends.common.run import holding

LOCK = "lock"
POLL = 0.05
"""Seconds between two looks at a lock that somebody else holds."""


class Store:
    """A directory of small files. Make it with `open_store`; close it when done."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._dir = descriptor

    def close(self) -> None:
        """Let the directory go."""
        os.close(self._dir)

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none. Raises `StateError` for one that isn't safe."""
        try:
            # Without O_NONBLOCK a named pipe in the place of the file would be waited for.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(name, flags, dir_fd=self._dir)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise self._error(name, e) from e
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
                raise StateError(
                    f"{self.path / name} isn't a file of ours; look who put it there and remove it"
                )
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """Replace a file at once and for good. Raises `StateError`, and the old content stays."""
        new = f".{name}.new"
        try:
            with suppress(FileNotFoundError):
                os.unlink(new, dir_fd=self._dir)
            fd = os.open(
                new,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
                dir_fd=self._dir,
            )
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            os.rename(new, name, src_dir_fd=self._dir, dst_dir_fd=self._dir)
            os.fsync(self._dir)
        except OSError as e:
            with suppress(OSError):
                os.unlink(new, dir_fd=self._dir)
            raise self._error(name, e) from e

    def remove(self, name: str) -> None:
        """Remove a file; one that isn't there is no error."""
        try:
            os.unlink(name, dir_fd=self._dir)
            os.fsync(self._dir)
        except FileNotFoundError:
            pass
        except OSError as e:
            raise self._error(name, e) from e

    def names(self) -> list[str]:
        """The files that are there, sorted, without those that are being written."""
        return sorted(n for n in os.listdir(self._dir) if not n.startswith("."))

    def clear(self) -> None:
        """Remove all files and, if then nothing is in it, the directory. Call it under the lock."""
        for name in os.listdir(self._dir):
            self.remove(name)
        # Somebody's own file below a state directory that existed before us is no reason to fail.
        with suppress(OSError):
            self.path.rmdir()

    @contextmanager
    def locked(self, wait: float) -> Iterator[None]:
        """Hold the directory's lock; children inherit it. Raises `LockedError` after `wait` seconds."""
        fd = self._lock(time.monotonic() + wait)
        try:
            with holding(fd):
                yield
        finally:
            os.close(fd)

    def holder(self) -> str | None:
        """The process that holds the lock ("" if it didn't say), None if nobody does."""
        try:
            fd = os.open(LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._dir)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.read(fd, 32).decode("ascii", "replace").strip()
        finally:
            os.close(fd)
        return None

    def _lock(self, until: float) -> int:
        while True:
            try:
                fd = os.open(
                    LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._dir
                )
            except OSError as e:
                raise self._error(LOCK, e) from e
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_current(fd):
                    os.ftruncate(fd, 0)
                    os.write(fd, f"{os.getpid()}\n".encode())
                    return fd
                os.close(fd)
            except BlockingIOError:
                holder = os.read(fd, 32).decode("ascii", "replace").strip()
                os.close(fd)
                if time.monotonic() >= until:
                    who = f" (process {holder})" if holder else ""
                    raise LockedError(
                        f"another k8snetc{who} is changing this node; try again, or wait longer with --lock-timeout"
                    ) from None
                time.sleep(POLL)
            except OSError as e:
                os.close(fd)
                raise self._error(LOCK, e) from e

    def _is_current(self, fd: int) -> bool:
        """Whether the locked file is still the one with that name (`clear` removes it)."""
        try:
            now = os.stat(LOCK, dir_fd=self._dir, follow_symlinks=False)
        except FileNotFoundError:
            return False
        mine = os.fstat(fd)
        return (now.st_dev, now.st_ino) == (mine.st_dev, mine.st_ino)

    def _error(self, name: str, e: OSError) -> StateError:
        return StateError(f"{self.path / name}: {e.strerror}; the state directory must be ours and have room")


def open_store(path: Path) -> Store:
    """Open a state directory, make it where it is missing. Raises `StateError` if others could write to it."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as e:
        stranger = isinstance(e, PermissionError) and os.geteuid() != 0
        fix = "run this as root" if stranger else "give another directory with --state-dir"
        raise StateError(f"{path}: {e.strerror}; {fix}") from e
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        os.close(fd)
        raise StateError(f"{path} could be changed by others; it must be ours, with mode 0700")
    above = os.stat("..", dir_fd=fd)
    if above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX:
        os.close(fd)
        raise StateError(
            f"{path} could be replaced by others, who may write to the folder above it; "
            "give another directory with --state-dir"
        )
    return Store(path, fd)
