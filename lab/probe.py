"""Probes and what comes of them: one connection attempt, from one place to one address and port.

Knows the words for the outcomes. Must not know sockets or namespaces (`attempts` does), nor what ought to happen.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from k8snetc.ir.types import Address, Protocol

DEFAULT_TIMEOUT = 0.4
"""Seconds until silence counts as a time-out: below TCP's first retransmission (1 s), far above a veth's latency."""


class Outcome(Enum):
    """What a client learns from trying."""

    ANSWERED = "answered"
    REFUSED = "refused"  # a TCP reset or SCTP ABORT of the first packet, or ICMP port/protocol unreachable
    UNREACHABLE = "unreachable"  # any other ICMP unreachable, or no route
    RESET = "reset"  # connected first, then reset
    TIMEOUT = "timeout"  # nothing came back; also when the sender's own kernel dropped it (`error` is EPERM)
    ERROR = "error"  # the probe could not be sent as asked, e.g. its source port is in use


class Seen(NamedTuple):
    """An address and port as somebody saw them in a packet. The port is 0 where there is none (ICMP)."""

    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class Probe:
    """An attempt from `client` (a place) to `destination`. `protocol` None is an ICMP echo.

    `source` and `source_port` are chosen by the client's kernel when None. `timeout` is in seconds.
    `connected` False: UDP from a socket without a peer (sendmsg instead of connect). `in_cgroup` False: from a
    process outside the node's cgroup, as a virtual machine's or another runtime's would be. `resend` (UDP): the
    datagram is sent again every so many seconds without an answer, from the same socket, as resolvers do.
    """

    client: str
    destination: Address
    protocol: Protocol | None = Protocol.TCP
    port: int = 0
    source: Address | None = None
    source_port: int | None = None
    timeout: float = DEFAULT_TIMEOUT
    connected: bool = True
    in_cgroup: bool = True
    resend: float | None = None

    def __str__(self) -> str:
        host = f"[{self.destination}]" if self.destination.version == 6 else str(self.destination)
        if self.protocol is None:
            return f"{self.client} -> {host}/icmp"
        return f"{self.client} -> {host}:{self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What happened. `server` is the place that answered, "" if none said its name.

    `endpoint` is the address and port the answering socket was reached under, after any translation;
    `source` is the client as that socket saw it. `elapsed` is in seconds, `error` an errno name.
    """

    outcome: Outcome
    server: str = ""
    endpoint: Seen | None = None
    source: Seen | None = None
    elapsed: float = 0.0
    error: str = ""

    @property
    def answered(self) -> bool:
        """Whether an answer came."""
        return self.outcome is Outcome.ANSWERED

    def __str__(self) -> str:
        if not self.answered:
            return f"{self.outcome.value} ({self.error})" if self.error else self.outcome.value
        who = self.server or "somebody"
        at = f" at {_text(self.endpoint)}" if self.endpoint else ""
        saw = f", saw {self.source.address}" if self.source else ""
        return f"answered by {who}{at}{saw}"


def _text(seen: Seen) -> str:
    return f"[{seen.address}]:{seen.port}" if seen.address.version == 6 else f"{seen.address}:{seen.port}"
