"""How a probe is made: one state machine per protocol, driven by the loop.

Knows sockets and errno. Must not know what the outcome ought to be.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from k8snetc.ir.types import Protocol
from k8snetc.lab import banner, packets
from k8snetc.lab.loop import READ, WRITE, Loop, Spaces, Timer
from k8snetc.lab.probe import Outcome, Probe, ProbeResult
from k8snetc.lab.sctp import IP_RECVERR, IPV6_RECVERR, SctpPort
from k8snetc.lab.servers import FAMILIES, any_address

IP_BIND_ADDRESS_NO_PORT = 24
_CONNECTED_PATIENCE = 3.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_nonces = itertools.count(int.from_bytes(os.urandom(4)))

_OUTCOMES = {
    errno.ECONNREFUSED: Outcome.REFUSED,
    errno.ENOPROTOOPT: Outcome.REFUSED,  # ICMP protocol unreachable
    errno.EPROTO: Outcome.REFUSED,  # ICMPv6 parameter problem: unknown next header
    errno.ENETUNREACH: Outcome.UNREACHABLE,
    errno.EHOSTUNREACH: Outcome.UNREACHABLE,
    errno.EHOSTDOWN: Outcome.UNREACHABLE,
    errno.ENONET: Outcome.UNREACHABLE,
    errno.EACCES: Outcome.UNREACHABLE,  # ICMPv6 administratively prohibited
    errno.ECONNRESET: Outcome.RESET,
    errno.EPIPE: Outcome.RESET,
    errno.EPERM: Outcome.TIMEOUT,  # dropped by the sender's own kernel
    errno.ENOBUFS: Outcome.TIMEOUT,  # the same, by a program at tc egress
    errno.ETIMEDOUT: Outcome.TIMEOUT,
}


def of_errno(code: int) -> ProbeResult:
    """What an error of a socket means."""
    return ProbeResult(_OUTCOMES.get(code, Outcome.ERROR), error=errno.errorcode.get(code, str(code)))


def of_banner(line: bytes) -> ProbeResult:
    """What an answer means. Whoever does not speak the lab's language still answered."""
    read = banner.read(line)
    if read is None:
        return ProbeResult(Outcome.ANSWERED)
    server, endpoint, source = read
    return ProbeResult(Outcome.ANSWERED, server, endpoint, source)


class Attempt(ABC):
    """One probe under way. `done` is called exactly once."""

    def __init__(self, loop: Loop, probe: Probe, done: Callable[[ProbeResult], None]) -> None:
        self.loop = loop
        self.probe = probe
        self._done = done
        self._started = time.monotonic()
        self._timer: Timer | None = None
        self._over = False
        # Noted where a drop by the own kernel may still be followed by the ICMP error that explains it.
        self.silence = ProbeResult(Outcome.TIMEOUT)

    def start(self) -> None:
        """Send the first packet."""
        self._timer = self.loop.after(self.probe.timeout, lambda: self.finish(self.silence), patient=True)
        try:
            self.begin()
        except OSError as error:
            self.finish(of_errno(error.errno or errno.EIO))

    def wait(self, seconds: float) -> None:
        """Start the deadline anew."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.after(seconds, lambda: self.finish(self.silence), patient=True)

    def finish(self, result: ProbeResult) -> None:
        """Report and clean up."""
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        self.close()
        self._done(replace(result, elapsed=time.monotonic() - self._started))

    @abstractmethod
    def begin(self) -> None:
        """Make the socket and send. Raises OSError."""

    @abstractmethod
    def close(self) -> None:
        """Give back what `begin` took."""


class _Socket(Attempt):
    """An attempt that has a socket to itself."""

    def __init__(
        self, loop: Loop, spaces: Spaces, space: str, probe: Probe, done: Callable[[ProbeResult], None]
    ) -> None:
        super().__init__(loop, probe, done)
        self.spaces = spaces
        self.space = space
        self.sock: socket.socket | None = None

    def make(self, kind: int, protocol: int = 0) -> socket.socket:
        """The socket, bound as the probe asks."""
        probe = self.probe
        sock = self.spaces.socket(self.space, FAMILIES[probe.destination.version], kind, protocol)
        self.sock = sock
        if probe.source is not None or probe.source_port is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.source_port is None:
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            address = any_address(probe.destination.version) if probe.source is None else str(probe.source)
            sock.bind((address, probe.source_port or 0))
        return sock

    def receive_errors(self, sock: socket.socket) -> None:
        """Be told of ICMP errors that the kernel would keep to itself."""
        if self.probe.destination.version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)

    def close(self) -> None:
        if self.sock is not None:
            with suppress(KeyError):  # it may have failed before it was waited for
                self.loop.remove(self.sock)
            self.sock.close()
            self.sock = None


class TcpAttempt(_Socket):
    """Connect, read the banner, reset: no TIME_WAIT is left that would block the next one from the same port."""

    def begin(self) -> None:
        sock = self.make(socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        # In a lab the ICMP error of a rejected SYN arrives inside connect(2), while the socket is locked; the kernel
        # then only notes it (sk_err_soft) and goes on. The error queue wakes us, and SO_ERROR tells the note.
        self.receive_errors(sock)
        code = sock.connect_ex((str(self.probe.destination), self.probe.port))
        if code not in {0, errno.EINPROGRESS}:
            self.finish(of_errno(code))
            return
        self.loop.add(sock, WRITE, lambda _mask: self._connected(sock))

    def _connected(self, sock: socket.socket) -> None:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.finish(of_errno(code))
            return
        # The kernel of the other end has answered; its process may take longer on a busy machine.
        self.silence = ProbeResult(Outcome.TIMEOUT, error="connected, then silence")
        self.wait(max(self.probe.timeout, _CONNECTED_PATIENCE))
        self.loop.change(sock, READ, lambda _mask: self._read(sock))

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self.finish(replace(of_errno(error.errno or errno.EIO), outcome=Outcome.RESET))
            return
        self.finish(of_banner(data.partition(b"\n")[0]) if data else ProbeResult(Outcome.RESET, error="EOF"))


class UdpAttempt(_Socket):
    """Send one datagram with a number that no other has, and wait for it to come back."""

    _again: Timer | None = None

    def close(self) -> None:
        if self._again is not None:
            self._again.cancel()
        super().close()

    def begin(self) -> None:
        probe = self.probe
        sock = self.make(socket.SOCK_DGRAM)
        if probe.connected:
            sock.connect((str(probe.destination), probe.port))
        else:
            self.receive_errors(sock)
        nonce = str(next(_nonces)).encode()
        self.loop.add(sock, READ, lambda _mask: self._read(sock, nonce))
        self._send(sock, nonce)
        if probe.resend is not None:
            self._again = self.loop.after(probe.resend, lambda: self._resend(sock, nonce))

    def _resend(self, sock: socket.socket, nonce: bytes) -> None:
        assert self.probe.resend is not None
        self._again = self.loop.after(self.probe.resend, lambda: self._resend(sock, nonce))
        try:
            self._send(sock, nonce)
        except OSError as error:
            self.finish(of_errno(error.errno or errno.EIO))

    def _send(self, sock: socket.socket, nonce: bytes) -> None:
        try:
            if self.probe.connected:
                sock.send(nonce)
            else:
                sock.sendto(nonce, (str(self.probe.destination), self.probe.port))
        except PermissionError as error:
            # A rule that rejects drops the packet and then sends the ICMP error, which is on its way to us.
            self.silence = of_errno(error.errno or errno.EPERM)

    def _read(self, sock: socket.socket, nonce: bytes) -> None:
        try:
            data, peer = sock.recvfrom(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self.finish(of_errno(error.errno or errno.EIO))
            return
        line, _, rest = data.partition(b"\n")
        if rest != nonce:
            return
        if peer[:2] != (str(self.probe.destination), self.probe.port):
            self.silence = ProbeResult(Outcome.TIMEOUT, error=f"answer from {peer[0]} port {peer[1]}")
            return
        self.finish(of_banner(line))


class EchoAttempt(_Socket):
    """ICMP echo over a ping socket. The answer has no name in it."""

    def begin(self) -> None:
        version = self.probe.destination.version
        sock = self.make(socket.SOCK_DGRAM, socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6)
        sock.connect((str(self.probe.destination), 0))
        nonce = str(next(_nonces)).encode()
        self.loop.add(sock, READ, lambda _mask: self._read(sock, version, nonce))
        try:
            sock.send(packets.echo_request(version, nonce))
        except PermissionError as error:
            self.silence = of_errno(error.errno or errno.EPERM)

    def _read(self, sock: socket.socket, version: int, nonce: bytes) -> None:
        try:
            data = sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self.finish(of_errno(error.errno or errno.EIO))
            return
        if packets.echo_payload(version, data) == nonce:
            self.finish(ProbeResult(Outcome.ANSWERED))


class SctpAttempt(Attempt):
    """INIT through the namespace's SCTP socket."""

    def __init__(self, loop: Loop, port: SctpPort, probe: Probe, done: Callable[[ProbeResult], None]) -> None:
        super().__init__(loop, probe, done)
        self._port = port
        self._key: tuple[bytes, int, int] | None = None

    def begin(self) -> None:
        probe = self.probe
        source = None if probe.source is None else str(probe.source)
        self._key, dropped = self._port.connect(
            str(probe.destination), probe.port, source, probe.source_port, self._answer
        )
        if dropped:
            # A rule that rejects drops the packet and then sends the ICMP error, which is on its way to us.
            self.silence = of_errno(dropped)

    def close(self) -> None:
        if self._key is not None:
            self._port.forget(self._key)

    def _answer(self, cookie: bytes | None, code: int) -> None:
        self.finish(of_errno(code) if cookie is None else of_banner(cookie))


class Prober:
    """Makes attempts in any namespace of the agent."""

    def __init__(self, loop: Loop, spaces: Spaces) -> None:
        self.loop = loop
        self.spaces = spaces
        self._sctp: dict[tuple[str, int], SctpPort] = {}

    def sctp(self, space: str, version: int) -> SctpPort:
        """The SCTP socket of a namespace, made when first needed."""
        port = self._sctp.get((space, version))
        if port is None:
            port = self._sctp[space, version] = SctpPort(self.loop, self.spaces, space, version)
        return port

    def start(self, space: str, probe: Probe, done: Callable[[ProbeResult], None]) -> None:
        """Begin a probe; `done` may be called before this returns."""
        attempt: Attempt
        match probe.protocol:
            case Protocol.TCP:
                attempt = TcpAttempt(self.loop, self.spaces, space, probe, done)
            case Protocol.UDP:
                attempt = UdpAttempt(self.loop, self.spaces, space, probe, done)
            case Protocol.SCTP:
                port = self.sctp(space, probe.destination.version)
                attempt = SctpAttempt(self.loop, port, probe, done)
            case None:
                attempt = EchoAttempt(self.loop, self.spaces, space, probe, done)
        attempt.start()


class Batch:
    """Many probes, at most `window` at a time."""

    def __init__(
        self,
        prober: Prober,
        probes: tuple[tuple[str, Probe], ...],
        window: int,
        done: Callable[[tuple[ProbeResult, ...]], None],
    ) -> None:
        self._prober = prober
        self._probes = probes
        self._window = window
        self._done = done
        self._results: list[ProbeResult | None] = [None] * len(probes)
        self._started = 0
        self._finished = 0
        self._filling = False

    def run(self) -> None:
        """Start as many as the window allows."""
        if self._filling:
            return  # an attempt that ended at once; the loop below goes on
        self._filling = True
        while self._started < len(self._probes) and self._started - self._finished < self._window:
            at = self._started
            self._started += 1
            space, probe = self._probes[at]
            self._prober.start(space, probe, partial(self._note, at))
        self._filling = False
        if self._finished == len(self._probes):
            self._finished += 1  # report once
            self._done(tuple(r for r in self._results if r is not None))

    def _note(self, at: int, result: ProbeResult) -> None:
        self._results[at] = result
        self._finished += 1
        self.run()
