"""Long-lived traffic, on the agent's side: flows that are kept open, and generators of new connections.

Knows sockets and time. Must not know what ought to become of the traffic.
"""

from __future__ import annotations

import errno
import socket
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable

from k8snetc.ir.types import Protocol
from k8snetc.lab import banner
from k8snetc.lab.attempts import IP_BIND_ADDRESS_NO_PORT, Prober, of_banner, of_errno
from k8snetc.lab.loop import READ, WRITE, Loop, Timer
from k8snetc.lab.probe import Outcome, Probe, ProbeResult
from k8snetc.lab.reports import FlowReport, TrafficReport
from k8snetc.lab.servers import FAMILIES, any_address

_KEPT_FAILURES = 50
_SLOW = 0.9
_BURST = 64

OnReport = Callable[[FlowReport], None]


class Flow(ABC):
    """One kept-open exchange. `opened` is called once, with the outcome of the first message."""

    kind = socket.SOCK_STREAM

    def __init__(
        self, prober: Prober, space: str, probe: Probe, interval: float, opened: Callable[[ProbeResult], None]
    ) -> None:
        self.loop: Loop = prober.loop
        self.probe = probe
        self._interval = interval
        self._opened: Callable[[ProbeResult], None] | None = opened
        self._opening = ProbeResult(Outcome.TIMEOUT)
        self._ended: ProbeResult | None = None
        self._sent = 0
        self._answered = 0
        self._servers: list[str] = []
        self._gap = 0.0
        self._last = time.monotonic()
        self._timer: Timer | None = None
        self._closing: OnReport | None = None
        self.sock = self._make(prober, space)
        self._deadline = self.loop.after(probe.timeout, self._too_late, patient=True)
        self.begin()

    def _make(self, prober: Prober, space: str) -> socket.socket:
        probe = self.probe
        version = probe.destination.version
        sock = prober.spaces.socket(space, FAMILIES[version], self.kind)
        if probe.source is not None or probe.source_port is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.source_port is None:
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            source = any_address(version) if probe.source is None else str(probe.source)
            sock.bind((source, probe.source_port or 0))
        return sock

    @abstractmethod
    def begin(self) -> None:
        """Connect; ends in `open` or `end`."""

    @abstractmethod
    def send(self, number: int) -> None:
        """Send message `number`. Raises OSError."""

    def open(self, result: ProbeResult) -> None:
        """The other end has answered the first time."""
        if self._opened is None:
            return
        self._deadline.cancel()
        self._opening = result
        opened, self._opened = self._opened, None
        self._last = time.monotonic()
        opened(result)

    def tick(self) -> None:
        """Send the next message, and come again."""
        if self._ended is not None or self._closing is not None:
            return
        self._timer = self.loop.after(self._interval, self.tick)
        try:
            self.send(self._sent)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(error)
            return
        self._sent += 1

    def count(self, answers: int, server: str) -> None:
        """Note answers and who gave them."""
        now = time.monotonic()
        self._gap = max(self._gap, now - self._last)
        self._last = now
        self._answered += answers
        if server and (not self._servers or self._servers[-1] != server):
            self._servers.append(server)
        if self._closing is not None and self._answered >= self._sent:
            self._close()

    def fail(self, error: OSError) -> None:
        """The kernel reports an error."""
        self.end(of_errno(error.errno or errno.EIO))

    def end(self, result: ProbeResult) -> None:
        """It broke."""
        if self._ended is None:
            self._ended = result
            self.loop.remove(self.sock)
            self.sock.close()
        self.open(result)
        if self._closing is not None:
            self._close()

    def report(self) -> FlowReport:
        """How it goes."""
        # While messages are unanswered the gap grows; before the first one is sent there is nothing to wait for.
        waiting = time.monotonic() - self._last if self._sent > self._answered else 0.0
        return FlowReport(
            self._opening,
            self._sent,
            self._answered,
            tuple(self._servers),
            max(self._gap, waiting),
            self._ended,
        )

    def close(self, done: OnReport, patience: float) -> None:
        """Stop sending, wait for the answers that are due, and report."""
        self._closing = done
        if self._ended is not None or self._answered >= self._sent:
            self._close()
        else:
            self.loop.after(patience, self._close, patient=True)

    def _too_late(self) -> None:
        self.end(ProbeResult(Outcome.TIMEOUT))

    def _close(self) -> None:
        done, self._closing = self._closing, None
        if done is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        report = self.report()
        if self._ended is None:
            self._ended = ProbeResult(Outcome.ANSWERED, error="closed")
            self.loop.remove(self.sock)
            self.sock.close()
        done(report)


class TcpFlow(Flow):
    """A connection that stays open. Each message is a line, which the server echoes."""

    def begin(self) -> None:
        self._buffer = b""
        self._server = ""
        self.loop.add(self.sock, WRITE, self._connected)
        code = self.sock.connect_ex((str(self.probe.destination), self.probe.port))
        if code not in {0, errno.EINPROGRESS}:
            self.end(of_errno(code))

    def send(self, number: int) -> None:
        self.sock.send(b"%d\n" % number)

    def _connected(self, _mask: int) -> None:
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.end(of_errno(code))
            return
        self.loop.change(self.sock, READ, self._read)

    def _read(self, _mask: int) -> None:
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(error)
            return
        if not data:
            self.end(ProbeResult(Outcome.RESET, error="EOF"))
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if lines and not self._server:
            result = of_banner(lines.pop(0))
            self._server = result.server or "?"
            self.open(result)
            self.tick()
        if lines:
            self.count(len(lines), self._server)


class UdpFlow(Flow):
    """Datagrams from one socket to one destination, each answered by a server that says its name."""

    kind = socket.SOCK_DGRAM

    def begin(self) -> None:
        self.loop.add(self.sock, READ, self._read)
        try:
            self.sock.connect((str(self.probe.destination), self.probe.port))
        except OSError as error:
            self.fail(error)
            return
        self.tick()

    def send(self, number: int) -> None:
        try:
            self.sock.send(b"%d" % number)
        except (PermissionError, ConnectionRefusedError):
            # A dropped or refused datagram is a lost one; the flow goes on, as a resolver would.
            return

    def _read(self, _mask: int) -> None:
        for _ in range(64):
            try:
                data = self.sock.recv(4096)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error: that datagram is lost
            read = banner.read(data.partition(b"\n")[0])
            self.open(of_banner(data.partition(b"\n")[0]))
            self.count(1, read[0] if read else "?")


def open_flow(
    prober: Prober, space: str, probe: Probe, interval: float, opened: Callable[[ProbeResult], None]
) -> Flow:
    """A flow of the probe's protocol, TCP or UDP."""
    match probe.protocol:
        case Protocol.TCP:
            return TcpFlow(prober, space, probe, interval, opened)
        case Protocol.UDP:
            return UdpFlow(prober, space, probe, interval, opened)
        case _:
            raise ValueError(f"a flow is of TCP or UDP, not {probe.protocol or 'icmp'}")


class Generator:
    """New connections at a steady rate (per second), until stopped."""

    def __init__(self, prober: Prober, space: str, probe: Probe, rate: float) -> None:
        self._prober = prober
        self._space = space
        self._probe = probe
        self._rate = rate
        self._began = time.monotonic()
        self._started = 0
        self._finished = 0
        self._outcomes: Counter[Outcome] = Counter()
        self._servers: Counter[str] = Counter()
        self._failures: list[tuple[float, ProbeResult]] = []
        self._slow = 0
        self._slowest = 0.0
        self._stopped: Callable[[TrafficReport], None] | None = None
        self._tick()

    def stop(self, done: Callable[[TrafficReport], None]) -> None:
        """Start no more; report when the last one is over."""
        self._stopped = done
        self._finish()

    def _tick(self) -> None:
        if self._stopped is not None:
            return
        due = int((time.monotonic() - self._began) * self._rate) + 1 - self._started
        # After a pause of the machine the backlog is not made up all at once.
        for _ in range(min(due, _BURST)):
            self._started += 1
            self._prober.start(self._space, self._probe, self._note)
        self._prober.loop.after(1 / self._rate, self._tick)

    def _note(self, result: ProbeResult) -> None:
        self._finished += 1
        self._outcomes[result.outcome] += 1
        if result.answered:
            self._servers[result.server] += 1
            self._slowest = max(self._slowest, result.elapsed)
            self._slow += result.elapsed > _SLOW
        elif len(self._failures) < _KEPT_FAILURES:
            self._failures.append((time.monotonic() - self._began, result))
        self._finish()

    def _finish(self) -> None:
        if self._stopped is None or self._finished < self._started:
            return
        done, self._stopped = self._stopped, lambda _report: None
        done(
            TrafficReport(
                self._started,
                tuple(sorted(self._outcomes.items(), key=lambda i: i[0].value)),
                tuple(sorted(self._servers.items())),
                tuple(self._failures),
                self._slow,
                self._slowest,
            )
        )
