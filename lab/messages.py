"""What the lab and its agents say to one another, and how it crosses the socket between them.

Both ends are the same program and share a socketpair made by one of them, so pickle is safe here.
"""

from __future__ import annotations

import pickle
import socket
import struct
from dataclasses import dataclass

from k8snetc.lab.probe import Probe, ProbeResult
from k8snetc.lab.raw import Captured
from k8snetc.lab.reports import FlowReport, TrafficReport

_LENGTH = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Setup:
    """First message. `spaces`: key of each namespace and its path; the first one is where the agent lives.

    `isolated`: with a view of /run, /sys and /sys/fs/bpf of its own. `cgroup`: a cgroup v2 folder to join.
    `reap`: names of network namespaces and (`reap_cgroups`) cgroup folders to remove when the lab's process vanishes.
    """

    spaces: tuple[tuple[str, str], ...]
    isolated: bool = False
    cgroup: str = ""
    reap: tuple[str, ...] = ()
    reap_cgroups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Write:
    """Write sysctls in a namespace. `optional`: a key that this kernel lacks is no error."""

    space: str
    values: tuple[tuple[str, str], ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Listen:
    """Serve: (protocol, port, name that answers carry) in a namespace, for those families (4, 6)."""

    space: str
    ports: tuple[tuple[str, int, str], ...]
    families: tuple[int, ...] = (4, 6)


@dataclass(frozen=True, slots=True)
class Unlisten:
    """Stop serving: (protocol, port)."""

    space: str
    ports: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class RunProbes:
    """Run probes: namespace and probe. The reply is a tuple of `ProbeResult` in the same order."""

    probes: tuple[tuple[str, Probe], ...]
    window: int


@dataclass(frozen=True, slots=True)
class OpenFlow:
    """Open a flow with that number and send every `interval` seconds. The reply is a `ProbeResult`."""

    flow: int
    space: str
    probe: Probe
    interval: float


@dataclass(frozen=True, slots=True)
class LookAtFlow:
    """The reply is a `FlowReport`."""

    flow: int


@dataclass(frozen=True, slots=True)
class CloseFlow:
    """End a flow after waiting up to `patience` seconds for answers. The reply is a `FlowReport`."""

    flow: int
    patience: float


@dataclass(frozen=True, slots=True)
class StartTraffic:
    """Probe again and again, `rate` times a second."""

    traffic: int
    space: str
    probe: Probe
    rate: float


@dataclass(frozen=True, slots=True)
class StopTraffic:
    """The reply, when the last probe is over, is a `TrafficReport`."""

    traffic: int


@dataclass(frozen=True, slots=True)
class Inject:
    """Send an IP packet, header and all."""

    space: str
    packet: bytes


@dataclass(frozen=True, slots=True)
class StartCapture:
    """Record the packets of an interface, "" for all of them."""

    capture: int
    space: str
    interface: str


@dataclass(frozen=True, slots=True)
class StopCapture:
    """The reply is a tuple of `Captured`."""

    capture: int


@dataclass(frozen=True, slots=True)
class Close:
    """Orderly end: the lab cleans up itself."""


Request = (
    Setup
    | Write
    | Listen
    | Unlisten
    | RunProbes
    | OpenFlow
    | LookAtFlow
    | CloseFlow
    | StartTraffic
    | StopTraffic
    | Inject
    | StartCapture
    | StopCapture
    | Close
)


@dataclass(frozen=True, slots=True)
class Failure:
    """The request could not be done: what the kernel said, or the traceback of a defect of the agent."""

    text: str


Reply = (
    None | ProbeResult | tuple[ProbeResult, ...] | FlowReport | TrafficReport | tuple[Captured, ...] | Failure
)


def encode(number: int, message: Request | Reply) -> bytes:
    """One frame: length, then the number of the request and the message."""
    body = pickle.dumps((number, message), pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, object]]:
        """The messages that `data` completes."""
        self._buffer += data
        messages: list[tuple[int, object]] = []
        while len(self._buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + size
            if len(self._buffer) < end:
                break
            frame = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            messages.append(pickle.loads(frame))  # noqa: S301 - the other end is this same program, see above
        return messages


def receive(sock: socket.socket, decoder: Decoder) -> list[tuple[int, object]]:
    """Block for more bytes and return the messages they complete. Raises EOFError when the other end is gone."""
    data = sock.recv(1 << 18)
    if not data:
        raise EOFError
    return decoder.feed(data)
