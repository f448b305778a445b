"""Maps of the kernel: opened, filled, read.

Knows: batches and the kinds of maps. Must not know: what is in them.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

from k8snetc.backends.ebpf.libbpf import check, describe, library

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
    info = _info(fd)
    return Map(fd, info.name.decode(), info.type, info.key_size, info.value_size, info.max_entries)


def map_id(fd: int) -> int:
    """The number of a map."""
    return int(_info(fd).id)


def _info(fd: int) -> _MapInfo:
    info = _MapInfo()
    describe(fd, info, "a map")
    return info


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
