"""What long-lived traffic tells: one kept connection (a flow), or a steady stream of new ones (traffic).

Plain data. Must not know sockets.
"""

from __future__ import annotations

from dataclasses import dataclass

from k8snetc.lab.probe import Outcome, ProbeResult


@dataclass(frozen=True, slots=True)
class FlowReport:
    """A TCP connection, or UDP datagrams from one source port, with a message every so often that is echoed.

    `sent` and `answered` count messages. `servers` are those that answered, each time another one did than before.
    `longest_gap`: seconds between two answers. `ended`: why a TCP connection broke, None while it is whole.
    """

    opening: ProbeResult
    sent: int
    answered: int
    servers: tuple[str, ...]
    longest_gap: float
    ended: ProbeResult | None

    @property
    def lost(self) -> int:
        """Messages without an answer so far."""
        return self.sent - self.answered

    @property
    def intact(self) -> bool:
        """Whether nothing was lost, nothing broke, and one server answered all along."""
        return self.ended is None and self.lost == 0 and len(self.servers) == 1


@dataclass(frozen=True, slots=True)
class TrafficReport:
    """New connections at a steady rate. `outcomes` counts them, `servers` counts who answered.

    `failures`: the first fifty that were not answered, with seconds since the start. `slow` counts answers that took
    longer than 0.9 seconds: a first packet was lost and sent again.
    """

    started: int
    outcomes: tuple[tuple[Outcome, int], ...]
    servers: tuple[tuple[str, int], ...]
    failures: tuple[tuple[float, ProbeResult], ...]
    slow: int
    slowest: float

    @property
    def answered(self) -> int:
        """How many connections were answered."""
        return dict(self.outcomes).get(Outcome.ANSWERED, 0)

    @property
    def failed(self) -> int:
        """How many were not."""
        return self.started - self.answered
