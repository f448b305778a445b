"""Flows that would be made otherwise now: UDP to an endpoint that its service no longer has.

Knows the layout of the connection table. Must not know how programs are installed.
"""

from __future__ import annotations

import os

from k8snetc.backends.ebpf import bpf_maps, bpf_programs
from k8snetc.backends.ebpf.model import Layout, Type
from k8snetc.backends.ebpf.pins import Entry
from k8snetc.ir.types import Balance, Family, Program, Protocol

_SET_DESTINATION, _SET_SOURCE, _REPLY = 2, 4, 1


def _layouts(family: Family) -> tuple[Layout, Layout]:
    address = Type.ADDRESS4 if family is Family.IPV4 else Type.ADDRESS6
    key = Layout(
        (
            ("source", address),
            ("destination", address),
            ("source_port", Type.BE16),
            ("destination_port", Type.BE16),
            ("protocol", Type.U8),
            ("", Type.PAD8),
            ("", Type.PAD16),
        )
    )
    value = Layout(
        (
            ("address", address),
            ("port", Type.BE16),
            ("arrive_port", Type.BE16),
            ("depart_port", Type.BE16),
            ("flags", Type.U8),
            ("closing", Type.U8),
            ("generation", Type.U32),
            ("seen", Type.U32),
            ("device", Type.U32),
            ("ingress_judged", Type.U32),
            ("egress_judged", Type.U32),
        )
    )
    return key, value


def cut(new: Program, entry: Entry) -> int:
    """Delete them. Returns how many."""
    count = 0
    for family in Family:
        path = entry.folder / "shared" / f"connections{family.value}"
        if not path.exists():
            continue
        table = bpf_maps.map_of(bpf_programs.get(str(path)))
        try:
            count += _cut(new, family, table)
        finally:
            os.close(table.fd)
    return count


def _cut(new: Program, family: Family, table: bpf_maps.Map) -> int:
    endpoints = {b.name: {(int(e.address), e.port) for e in b.endpoints} for b in new.balancers}
    served: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for f in new.frontends:
        if f.family is family and f.protocol is Protocol.UDP:
            address = 0 if f.address is None else int(f.address)
            for r in f.routes:
                if isinstance(r.action, Balance):
                    served.setdefault((address, f.port), set()).update(endpoints[r.action.balancer])
    key_layout, value_layout = _layouts(family)
    count = 0
    for key, value in table.rows():
        source, destination, source_port, port, protocol = key_layout.unpack(key)
        address, new_port, client_port, _, flags, *_ = value_layout.unpack(value)
        if protocol != Protocol.UDP.number or not flags & _SET_DESTINATION or flags & _REPLY:
            continue
        allowed = served.get((destination, port))
        if allowed is None:
            allowed = served.get((0, port), set())
        if (address, new_port) not in allowed:
            table.delete(key)
            client_port = client_port or source_port
            table.delete(key_layout.pack((address, source, new_port, client_port, protocol)))
            table.delete(key_layout.pack((source, address, client_port, new_port, protocol)))
            count += 1
    return count
