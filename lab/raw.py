"""Whole packets: put on the wire as they are, and seen as they pass. On the agent's side.

Knows raw and packet sockets. Must not know what is in the packets.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from k8snetc.lab.loop import READ, Loop, Spaces

IPPROTO_RAW = 255
_IPV6_HDRINCL = 36
_ETH_P_ALL = 0x0003
_OUTGOING = 4
_SO_RCVBUFFORCE = 33
_BUFFER = 16 << 20
_MOST = 20_000
_IP = {0x0800, 0x86DD}


@dataclass(frozen=True, slots=True)
class Captured:
    """An IP packet from its first header byte, seen leaving (`outgoing`) or entering through `interface`."""

    interface: str
    outgoing: bool
    data: bytes


def inject(spaces: Spaces, space: str, packet: bytes) -> None:
    """Send an IP packet, header and all, from a namespace. Raises OSError."""
    if packet[0] >> 4 == 6:
        sock = spaces.socket(space, socket.AF_INET6, socket.SOCK_RAW, IPPROTO_RAW)
        destination = socket.inet_ntop(socket.AF_INET6, packet[24:40])
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
    else:
        sock = spaces.socket(space, socket.AF_INET, socket.SOCK_RAW, IPPROTO_RAW)
        destination = socket.inet_ntop(socket.AF_INET, packet[16:20])
    with sock:
        sock.sendto(packet, (destination, 0))


class Capture:
    """IP packets on one interface of a namespace, or on all ("" for `interface`), at most 20,000."""

    def __init__(self, loop: Loop, spaces: Spaces, space: str, interface: str) -> None:
        self._loop = loop
        self._packets: list[Captured] = []
        self._socket = spaces.socket(space, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        if interface:
            with spaces.inside(space):
                self._socket.bind((interface, _ETH_P_ALL))
        loop.add(self._socket, READ, self._read)

    def stop(self) -> tuple[Captured, ...]:
        """What was seen."""
        self._read(READ)
        self._loop.remove(self._socket)
        self._socket.close()
        return tuple(self._packets)

    def _read(self, _mask: int) -> None:
        for _ in range(_MOST):
            try:
                data, (interface, protocol, kind, *_) = self._socket.recvfrom(65535)
            except (BlockingIOError, OSError):
                return
            if protocol in _IP and len(self._packets) < _MOST:
                self._packets.append(Captured(interface, kind == _OUTGOING, data))
