"""Servers of the lab: TCP and UDP on kernel sockets. Whoever reaches one is told the banner and then echoed.

Knows how to listen and answer. Must not know what is probed or why (SCTP, which needs both ends in one socket, is in
`sctp`).
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from functools import partial

from k8snetc.lab import banner
from k8snetc.lab.loop import READ, Loop, Spaces

IP_PKTINFO = 8
_PKTINFO4 = struct.Struct("=i4s4s")
_PKTINFO6 = struct.Struct("=16si")
_BUFFER = 8 << 20
_SO_RCVBUFFORCE = 33

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def any_address(version: int) -> str:
    """The wildcard address of a family."""
    return "0.0.0.0" if version == 4 else "::"


class TcpServer:
    """One listening port of one family."""

    def __init__(self, loop: Loop, spaces: Spaces, space: str, version: int, *, port: int, name: str) -> None:
        self._loop = loop
        self._name = name
        self._open: set[socket.socket] = set()
        self._socket = spaces.socket(space, FAMILIES[version], socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if version == 6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._socket.bind((any_address(version), port))
        self._socket.listen(4096)
        loop.add(self._socket, READ, self._accept)

    def close(self) -> None:
        """Stop listening; connections that are open are reset, as when a process dies with unread data."""
        for sock in (self._socket, *self._open):
            self._loop.remove(sock)
            sock.close()
        self._open.clear()

    def _accept(self, _mask: int) -> None:
        for _ in range(64):
            try:
                sock, source = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            sock.setblocking(False)
            try:
                sock.send(banner.write(self._name, sock.getsockname()[:2], source[:2]))
            except OSError:
                sock.close()
                continue
            self._open.add(sock)
            self._loop.add(sock, READ, partial(self._echo, sock))

    def _echo(self, sock: socket.socket, _mask: int) -> None:
        try:
            data = sock.recv(65536)
            if data:
                sock.send(data)
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._loop.remove(sock)
        self._open.discard(sock)
        sock.close()


class UdpServer:
    """One port of one family. Answers from the address it was reached under."""

    def __init__(self, loop: Loop, spaces: Spaces, space: str, version: int, *, port: int, name: str) -> None:
        self._loop = loop
        self._name = name
        self._version = version
        self._port = port
        self._socket = spaces.socket(space, FAMILIES[version], socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        if version == 6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self._socket.bind((any_address(version), port))
        loop.add(self._socket, READ, self._answer)

    def close(self) -> None:
        """Stop listening."""
        self._loop.remove(self._socket)
        self._socket.close()

    def _answer(self, _mask: int) -> None:
        for _ in range(64):
            try:
                data, control, _flags, source = self._socket.recvmsg(65535, 128)
            except BlockingIOError:
                return
            here = reached_address(control)
            line = banner.write(self._name, (here, self._port), source[:2])
            # A reply that the kernel refuses to send is a lost reply: the client sees a time-out.
            with suppress(OSError):
                self._socket.sendmsg([line, data], [from_address(here)], 0, source)


def reached_address(control: list[tuple[int, int, bytes]]) -> str:
    """The destination address of a received datagram, from its packet information (ip(7), ipv6(7))."""
    for level, kind, data in control:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            return socket.inet_ntop(socket.AF_INET, _PKTINFO4.unpack(data)[2])
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return socket.inet_ntop(socket.AF_INET6, _PKTINFO6.unpack(data)[0])
    raise ValueError("a datagram without packet information")


def from_address(address: str) -> tuple[int, int, bytes]:
    """Packet information that makes a datagram leave with this source address."""
    if ":" in address:
        packed = socket.inet_pton(socket.AF_INET6, address)
        return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(packed, 0)
    packed = socket.inet_pton(socket.AF_INET, address)
    return socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO4.pack(0, packed, b"\0\0\0\0")
