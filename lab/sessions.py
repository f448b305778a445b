"""Long-lived traffic and captures, on the side of whoever asked for them. Use them as context managers.

Knows which agent has it. Must not know sockets.
"""

from __future__ import annotations

import itertools
from types import TracebackType
from typing import Self

from k8snetc.lab import messages
from k8snetc.lab.handle import AgentHandle
from k8snetc.lab.probe import Probe, ProbeResult
from k8snetc.lab.raw import Captured
from k8snetc.lab.reports import FlowReport, TrafficReport

_numbers = itertools.count(1)


class Flow:
    """A connection that is kept open, or datagrams from one port. `probe` is what was asked, `opening` what came of
    the first message.
    """

    def __init__(self, agent: AgentHandle, space: str, probe: Probe, interval: float) -> None:
        self._agent = agent
        self._number = next(_numbers)
        self._final: FlowReport | None = None
        self.probe = probe
        opening = agent.ask(messages.OpenFlow(self._number, space, probe, interval))
        assert isinstance(opening, ProbeResult)
        self.opening = opening

    def report(self) -> FlowReport:
        """How it goes so far; after `close`, how it went."""
        if self._final is not None:
            return self._final
        report = self._agent.ask(messages.LookAtFlow(self._number))
        assert isinstance(report, FlowReport)
        return report

    def close(self, patience: float = 2.0) -> FlowReport:
        """End it after waiting up to `patience` seconds for the answers that are due."""
        if self._final is None:
            report = self._agent.ask(messages.CloseFlow(self._number, patience))
            assert isinstance(report, FlowReport)
            self._final = report
        return self._final

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Traffic:
    """New connections at a steady rate."""

    def __init__(self, agent: AgentHandle, space: str, probe: Probe, rate: float) -> None:
        self._agent = agent
        self._number = next(_numbers)
        self._final: TrafficReport | None = None
        agent.ask(messages.StartTraffic(self._number, space, probe, rate))

    def stop(self) -> TrafficReport:
        """Stop, wait for the connections under way, and report."""
        if self._final is None:
            report = self._agent.ask(messages.StopTraffic(self._number))
            assert isinstance(report, TrafficReport)
            self._final = report
        return self._final

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Capture:
    """A record of the IP packets that pass an interface."""

    def __init__(self, agent: AgentHandle, space: str, interface: str) -> None:
        self._agent = agent
        self._number = next(_numbers)
        self._final: tuple[Captured, ...] | None = None
        agent.ask(messages.StartCapture(self._number, space, interface))

    def stop(self) -> tuple[Captured, ...]:
        """End it and return what was seen."""
        if self._final is None:
            packets = self._agent.ask(messages.StopCapture(self._number))
            assert isinstance(packets, tuple)
            self._final = packets
        return self._final

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
