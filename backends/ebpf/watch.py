"""Denied packets, out of the ring that the programs write into while somebody watches.

Knows: `struct denial` of `templates/counters.c.j2`, and how watching is renewed. Must not know: how it is printed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Self

from k8snetc.backends.ebpf import bpf_maps, bpf_programs, counters, libbpf
from k8snetc.backends.ebpf.numbers import numbers
from k8snetc.backends.ebpf.pins import FOLDER, Entry
from k8snetc.backends.target import InstallError
from k8snetc.backends.watch import DeniedPacket
from k8snetc.ir.types import Address

_DENIAL = struct.Struct("=QIBBBB2s2sI16s16s")
_TICK = 0.1  # seconds between two renewals
_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class Watch:
    """See `k8snetc.backends.watch.Watcher`."""

    def __init__(self, rate: int, folder: Path = FOLDER) -> None:
        self._names: dict[int, str] = {}
        self._entry = Entry(folder)
        self._budget = max(1, round(rate * _TICK))
        self._found: list[DeniedPacket] = []
        self._told = self._late = self._missed = 0
        self._renewed = 0.0
        self._sample = _SAMPLE(self._take)
        self._ring: int | None = None

    def __enter__(self) -> Self:
        shared = self._entry.folder / "shared"
        if not self._entry.exists:
            raise InstallError("nothing is installed here by the ebpf back end")
        if not (shared / "denials").exists():
            raise InstallError(
                "the programs that run record no denied packets: no policy is for a pod of this node, or they were "
                "applied with --no-ebpf-counters"
            )
        self._lock = os.open(shared, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise InstallError("another monitor watches this node already; end it first") from None
        self._watching = bpf_maps.map_of(bpf_programs.get(str(shared / "watching")))
        ring = bpf_programs.get(str(shared / "denials"))
        self._start = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self._ring = libbpf.library().ring_buffer__new(ring, self._sample, None, None)
        os.close(ring)
        if not self._ring:
            raise libbpf.BpfError("opening the ring of denied packets", ctypes.get_errno() or errno.EINVAL)
        libbpf.library().ring_buffer__consume(self._ring)  # what another watcher left
        self._base = counters.denied(self._entry)
        self._start = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self._renew()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ring:
            self._watching.put(bytes(4), bytes(8))
            libbpf.library().ring_buffer__free(self._ring)
            self._ring = None
            self._watching.close()
            os.close(self._lock)

    def poll(self, seconds: float) -> Sequence[DeniedPacket]:
        """What was denied; waits for the first packet, at most so long. Raises InstallError when it is removed."""
        until = time.monotonic() + seconds
        while True:
            if time.monotonic() - self._renewed >= _TICK:
                self._renew()
            left = max(0.0, until - time.monotonic())
            result = libbpf.library().ring_buffer__poll(self._ring, int(min(left, _TICK) * 1000))
            if result < 0 and result != -errno.EINTR:
                libbpf.check(result, "reading the ring of denied packets")
            if self._found or not left:
                found, self._found = self._found, []
                self._told += len(found)
                return found

    def know(self, enforcements: Iterable[str]) -> None:
        """The names of the enforcements of the program that runs now."""
        self._names = {n: name for name, n in numbers(enforcements).items()}

    def name(self, packet: DeniedPacket) -> str:
        """The enforcement that denied it, "" if it is not known."""
        return self._names.get(packet.profile, "")

    def missed(self) -> int:
        """How many were denied before the last renewal and not told, since the watcher was opened."""
        self._missed = max(self._missed, self._late)
        return self._missed

    def _renew(self) -> None:
        if not self._entry.exists:
            raise InstallError("the ebpf back end was removed from this node meanwhile")
        denied = counters.denied(self._entry)
        self._watching.put(bytes(4), self._budget.to_bytes(8, "little"))
        libbpf.library().ring_buffer__consume(self._ring)
        # A packet is counted just before it is recorded, so one or the other may still be on its way.
        self._late = max(0, denied - self._base - self._told - len(self._found))
        self._renewed = time.monotonic()

    def _take(self, _context: int, data: int, size: int) -> int:
        if size < _DENIAL.size:
            return 0
        found = denied_packet(ctypes.string_at(data, _DENIAL.size))
        if found.time >= self._start:
            self._found.append(found)
        return 0


def denied_packet(record: bytes) -> DeniedPacket:
    """A record, read."""
    told = _DENIAL.unpack(record)
    (
        at,
        profile,
        family,
        protocol,
        leaving,
        egress,
        source_port,
        destination_port,
        generation,
        source,
        destination,
    ) = told

    def address(data: bytes) -> Address:
        return IPv4Address(data[:4]) if family == 4 else IPv6Address(data)

    return DeniedPacket(
        at,
        address(source),
        address(destination),
        protocol,
        int.from_bytes(source_port, "big"),
        int.from_bytes(destination_port, "big"),
        bool(leaving),
        bool(egress),
        profile,
        generation,
    )
