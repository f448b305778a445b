"""The agent's event loop: sockets, timers, and sockets made in other network namespaces.

Knows readiness and time. Must not know protocols.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from k8snetc.lab import syscalls

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
_OVERDUE = 1.0

Callback = Callable[[int], None]


class Timer:
    """A call in the future. `patient`: not while there is unread input, unless more than a second late."""

    __slots__ = ("active", "call", "patient", "when")

    def __init__(self, when: float, call: Callable[[], None], patient: bool) -> None:
        self.when = when
        self.call = call
        self.patient = patient
        self.active = True

    def cancel(self) -> None:
        """Do not call."""
        self.active = False


class Loop:
    """Calls back when a socket is ready or a time has come.

    A patient timer is a deadline for something to arrive. On a busy machine the answer may already wait in
    a socket when the deadline passes; reading first keeps a slow agent from calling it lost.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self.running = True

    def add(self, sock: socket.socket, events: int, call: Callback) -> None:
        """Call `call(mask)` when `sock` is ready."""
        self._selector.register(sock, events, call)

    def change(self, sock: socket.socket, events: int, call: Callback) -> None:
        """Wait for something else on `sock`."""
        self._selector.modify(sock, events, call)

    def remove(self, sock: socket.socket) -> None:
        """Forget `sock`."""
        self._selector.unregister(sock)

    def after(self, seconds: float, call: Callable[[], None], *, patient: bool = False) -> Timer:
        """Call `call()` in so many seconds."""
        timer = Timer(time.monotonic() + seconds, call, patient)
        heapq.heappush(self._timers, (timer.when, next(self._count), timer))
        return timer

    def run(self) -> None:
        """Until `running` is False."""
        while self.running:
            self.step()

    def step(self) -> None:
        """Wait for the next thing and handle everything that is ready."""
        timers = self._timers
        while timers and not timers[0][2].active:
            heapq.heappop(timers)
        wait = max(0.0, timers[0][0] - time.monotonic()) if timers else None
        ready = self._selector.select(wait)
        for key, mask in ready:
            # A callback before this one may have closed the socket.
            if self._selector.get_map().get(key.fd) is key:
                key.data(mask)
        self._fire(bool(ready))

    def _fire(self, busy: bool) -> None:
        now = time.monotonic()
        put_off = []
        while self._timers and self._timers[0][0] <= now:
            entry = heapq.heappop(self._timers)
            timer = entry[2]
            if not timer.active:
                continue
            if busy and timer.patient and now - timer.when < _OVERDUE:
                put_off.append(entry)
                continue
            timer.active = False
            timer.call()
        for entry in put_off:
            heapq.heappush(self._timers, entry)


class Spaces:
    """Network namespaces that this process makes sockets in. A socket stays in the one it was made in."""

    def __init__(self, paths: tuple[tuple[str, str], ...]) -> None:
        self._fds = {key: os.open(path, os.O_RDONLY | os.O_CLOEXEC) for key, path in paths}
        self._home = self._fds[paths[0][0]]
        syscalls.setns(self._home, syscalls.CLONE_NEWNET)

    @contextmanager
    def inside(self, key: str) -> Iterator[None]:
        """Be in a namespace for a moment."""
        syscalls.setns(self._fds[key], syscalls.CLONE_NEWNET)
        try:
            yield
        finally:
            syscalls.setns(self._home, syscalls.CLONE_NEWNET)

    def socket(self, key: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Make a non-blocking socket in a namespace."""
        with self.inside(key):
            return socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
