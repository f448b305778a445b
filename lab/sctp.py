"""SCTP over raw sockets: one socket per namespace and family is server and client at once.

A kernel without SCTP still forwards, translates and tracks it. The server answers INIT with INIT ACK and puts its
banner into the state cookie, which is its own business by RFC 9260; the client ends the association with ABORT, so
that connection tracking forgets it. Must not know what is probed or why.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from k8snetc.lab import banner, packets
from k8snetc.lab.loop import READ, Loop, Spaces
from k8snetc.lab.servers import FAMILIES, from_address, reached_address

PROTOCOL = 132
IP_RECVERR = 11
IPV6_RECVERR = 25
IP_PKTINFO = 8
_SO_RCVBUFFORCE = 33
_BUFFER = 8 << 20

OnAnswer = Callable[[bytes | None, int], None]
"""Called with the cookie of an INIT ACK, or with None and an errno."""

Key = tuple[bytes, int, int]
"""Packed address of the peer, its port, the own port."""


class SctpPort:
    """The raw socket of one namespace and family."""

    def __init__(self, loop: Loop, spaces: Spaces, space: str, version: int) -> None:
        self._version = version
        self._family = FAMILIES[version]
        self._loop = loop
        self._next_port = 32768
        self.servers: dict[int, str] = {}
        self._waiting: dict[Key, tuple[int, OnAnswer]] = {}
        self._socket = spaces.socket(space, self._family, socket.SOCK_RAW, PROTOCOL)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        if version == 6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            self._socket.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        else:
            self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            self._socket.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        loop.add(self._socket, READ, self._ready)

    def connect(
        self, peer: str, port: int, source: str | None, source_port: int | None, on_answer: OnAnswer
    ) -> tuple[Key, int]:
        """Send an INIT. Returns what to `forget`, and EPERM where a rule of the own kernel dropped the packet.

        Raises OSError when it can't be sent otherwise, or the port is in use.
        """
        packed = socket.inet_pton(self._family, peer)
        own = source_port or self._free_port(packed, port)
        key = (packed, port, own)
        if key in self._waiting:
            raise OSError(errno.EADDRINUSE, "that source port is already probing that destination")
        tag = int.from_bytes(os.urandom(4)) | 1
        self._waiting[key] = (tag, on_answer)
        init = packets.Sctp(own, port, packets.INIT, own_tag=tag)
        try:
            self._send(init, peer, source)
        except PermissionError as error:
            return key, error.errno or errno.EPERM
        except OSError:
            del self._waiting[key]
            raise
        return key, 0

    def forget(self, key: Key) -> None:
        """No longer wait for an answer."""
        self._waiting.pop(key, None)

    def _free_port(self, peer: bytes, port: int) -> int:
        while True:
            self._next_port = self._next_port + 1 if self._next_port < 60999 else 32768
            if (peer, port, self._next_port) not in self._waiting and self._next_port not in self.servers:
                return self._next_port

    def _send(self, packet: packets.Sctp, peer: str, source: str | None) -> None:
        # A raw IPv6 socket takes the port of its address for a protocol: it must be 0 (raw(7), ipv6(7)).
        self._socket.sendmsg([packet.encode()], [from_address(source)] if source else [], 0, (peer, 0))

    def _ready(self, _mask: int) -> None:
        self._errors()
        for _ in range(64):
            try:
                data, control, _flags, peer = self._socket.recvmsg(65535, 256)
            except BlockingIOError:
                return
            except OSError:
                # The error that made the socket ready; the queue has the details.
                self._errors()
                continue
            if self._version == 4:
                data = data[(data[0] & 15) * 4 :]
            packet = packets.decode_sctp(data)
            if packet is not None:
                self._receive(packet, peer[0], reached_address(control))

    def _receive(self, packet: packets.Sctp, peer: str, here: str) -> None:
        key = (socket.inet_pton(self._family, peer), packet.source, packet.destination)
        if packet.chunk == packets.INIT:
            self._serve(packet, peer, here)
        elif packet.chunk in {packets.INIT_ACK, packets.ABORT} and key in self._waiting:
            tag, on_answer = self._waiting[key]
            if packet.tag != tag:
                return
            del self._waiting[key]
            if packet.chunk == packets.ABORT:
                on_answer(None, errno.ECONNREFUSED)
                return
            with suppress(OSError):
                end = packets.Sctp(packet.destination, packet.source, packets.ABORT, packet.own_tag)
                self._send(end, peer, here)
            on_answer(packet.cookie, 0)

    def _serve(self, init: packets.Sctp, peer: str, here: str) -> None:
        name = self.servers.get(init.destination)
        if name is None:
            answer = packets.Sctp(init.destination, init.source, packets.ABORT, init.own_tag)
        else:
            cookie = banner.write(name, (here, init.destination), (peer, init.source))
            own_tag = int.from_bytes(os.urandom(4)) | 1
            answer = packets.Sctp(
                init.destination, init.source, packets.INIT_ACK, init.own_tag, own_tag, cookie
            )
        with suppress(OSError):
            self._send(answer, peer, here)

    def _errors(self) -> None:
        while True:
            try:
                data, control, _flags, peer = self._socket.recvmsg(2048, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return
            ports = packets.sctp_ports(data)
            if ports is None or not peer:
                continue
            waiting = self._waiting.pop((socket.inet_pton(self._family, peer[0]), ports[1], ports[0]), None)
            code = next(
                (struct.unpack_from("=I", c)[0] for _, k, c in control if k in {IP_RECVERR, IPV6_RECVERR}), 0
            )
            if waiting is not None and code:
                waiting[1](None, code)
