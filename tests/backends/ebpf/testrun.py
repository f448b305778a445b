"""A node's programs loaded and filled, attached to nothing: frames are run through them one by one."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from k8snetc.backends.ebpf import bpf_objects, bpf_programs, build, generation, node, state
from k8snetc.backends.ebpf.lower import lower
from k8snetc.ir.types import Program

PASS, DROP, REDIRECT = -1, 2, 7
LOOPBACK = node.Device(1, "lo", "", bytes(6), 772)
UPLINK = node.Device(2, "eth0", "veth", bytes(6), 1, (ip_address("172.18.0.1"), ip_address("fd18::1")))
POD = node.Device(3, "pod0", "veth", bytes(6), 1)
MACS = bytes.fromhex("020000000001020000000002")


class Programs:
    """The programs of one node. `send` runs a frame through one of them. `ports`: for translated sources, if given."""

    def __init__(self, program: Program, ports: tuple[int, int] | None = None) -> None:
        facts = node.Facts((LOOPBACK, UPLINK, POD), (), program.node.addresses, 1, (32768, 60999))
        wanted = state.state_of(lower(program), program, facts, node.Sites((UPLINK,), (POD,), None))
        contents = {t.name: t for t in wanted.tables}
        self._object = bpf_objects.Object(build.build(wanted.source), "k8snetc")
        constants = wanted.constants
        if ports is not None:
            constants = constants._replace(masquerade_first=ports[0], masquerade_last=ports[1])
        self._object.constants(constants.pack(1))
        for name in self._object.map_names:
            if generation.is_shared(name):
                self._object.size(name, 4096)
            elif name in contents:
                self._object.size(name, max(1, len(contents[name].rows)))
        self._object.load()
        for name, content in contents.items():
            if content.rows and name in self._object.map_names:
                keys, values = (b"".join(part) for part in zip(*content.rows, strict=True))
                self._object.map(name).fill(keys, values, len(content.rows))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._object.close()

    def frame(self, hook: str, frame: bytes, *, arrived: int = 1) -> tuple[int, bytes]:
        """The verdict on an Ethernet frame, and the frame as the program left it. `arrived` 0: made by the node."""
        # struct __sk_buff: ingress_ifindex is its tenth word, cb begins at the 13th; the rest must be zero.
        context = bytearray(192)
        struct.pack_into("=I", context, 9 * 4, arrived)
        struct.pack_into("=I", context, 12 * 4, state.TC_HOOKS.index(hook))
        return bpf_programs.run(self._object.program(state.PACKETS), frame, bytes(context))

    def send(self, hook: str, packet: bytes, *, arrived: int = 1) -> tuple[int, bytes]:
        """The same for an IP packet."""
        kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
        verdict, out = self.frame(hook, MACS + struct.pack("!H", kind) + packet, arrived=arrived)
        return verdict, out[14:]
