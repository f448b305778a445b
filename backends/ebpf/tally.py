"""How full maps are, and what their per-CPU counters add up to: read in batches of bounded size.

Knows: how per-CPU values lie in memory. Must not know: which counters there are.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterator

from k8snetc.backends.ebpf.bpf_maps import Map
from k8snetc.backends.ebpf.libbpf import check, library

_PER_CPU_HASH, _PER_CPU_ARRAY = 5, 6
_COUNTABLE = (1, _PER_CPU_HASH, 9, 11)  # hashes and tries: their elements come and go
_LPM = 11
_BATCH = 4096


def used(table: Map) -> int | None:
    """How many elements a map has; None where that is no question (an array is always full, a ring never counted)."""
    if table.kind not in _COUNTABLE:
        return None
    if table.kind == _LPM:
        return sum(1 for _ in table.rows())
    return sum(len(keys) for keys, _ in _batches(table, _value_size(table)))


def sums(table: Map) -> Iterator[tuple[bytes, tuple[int, ...]]]:
    """Every element of a per-CPU map, its value as numbers of 64 bits, each added up over all processors."""
    size = _value_size(table)
    words = struct.Struct(f"={size // 8}Q")
    count = table.value_size // 8
    for keys, values in _batches(table, size):
        for i, key in enumerate(keys):
            found = words.unpack_from(values, i * size)
            yield key, tuple(sum(found[n::count]) for n in range(count))


def _value_size(table: Map) -> int:
    """Bytes of a value as the kernel hands it over: per-CPU ones have a part for each possible processor."""
    if table.kind not in (_PER_CPU_HASH, _PER_CPU_ARRAY):
        return table.value_size
    processors = check(library().libbpf_num_possible_cpus(), "counting the processors")
    return (table.value_size + 7) // 8 * 8 * processors


def _batches(table: Map, value_size: int) -> Iterator[tuple[list[bytes], bytes]]:
    batch = min(_BATCH, table.capacity)
    place = ctypes.create_string_buffer(max(8, table.key_size))
    first = True
    while True:
        keys = ctypes.create_string_buffer(batch * table.key_size)
        values = ctypes.create_string_buffer(batch * value_size)
        count = ctypes.c_uint32(batch)
        result = library().bpf_map_lookup_batch(
            table.fd, None if first else place, place, keys, values, ctypes.byref(count), None
        )
        if result == -errno.ENOSPC and batch < 1 << 20:  # one bucket has more elements than that
            batch *= 2
            continue
        if result < 0 and result != -errno.ENOENT:
            check(result, f"reading table {table.name}")
        size, raw = table.key_size, keys.raw
        yield [raw[i * size : (i + 1) * size] for i in range(count.value)], values.raw
        if result < 0:
            return
        first = False
