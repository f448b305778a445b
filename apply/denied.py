"""A denied packet in words: whose it was, and which policies did not let it pass.

Knows: the program that runs, and what people call its pods. Must not know: any back end, or the command line.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from k8snetc.backends.watch import DeniedPacket
from k8snetc.ir.interpret import Interpreter
from k8snetc.ir.types import Address, Origin, Program, Protocol

FORMAT_VERSION = 1
_PROTOCOLS = {p.number: p for p in Protocol}
_OTHERS = {1: "icmp", 58: "icmpv6"}


@dataclass(frozen=True, slots=True)
class Told:
    """A denied packet as it is printed. `by_rule`: these objects deny it; otherwise none of their rules allows it.

    `answer`: it belongs to a connection that was open before; `port` is then the one that the connection went to.
    `port` is None for a protocol without ports.
    """

    time: str
    direction: str
    source: Address
    destination: Address
    names: tuple[str, str]
    pod: Address
    protocol: str
    port: int | None
    source_port: int
    destination_port: int
    answer: bool
    by_rule: bool
    policies: tuple[Origin, ...]

    def text(self) -> str:
        """One line for people."""
        ends = (
            f"{name} ({address})" if name else str(address)
            for name, address in zip(self.names, (self.source, self.destination), strict=True)
        )
        what = self.protocol.upper() + (f" {self.port}" if self.port is not None else "")
        answer = " (an answer)" if self.answer else ""
        who = ", ".join(map(str, self.policies)) or "policy"
        why = f"{who} denies it" if self.by_rule else f"no rule of {who} allows it"
        return f"{self.time} {' -> '.join(ends)} {what}{answer}: {self.direction} denied: {why}"

    def document(self) -> dict[str, object]:
        """The same for programs."""
        return {
            "format_version": FORMAT_VERSION,
            "time": self.time,
            "direction": self.direction,
            "pod": self._end(self.pod),
            "peer": self._end(self.source if self.pod == self.destination else self.destination),
            "source": str(self.source),
            "destination": str(self.destination),
            "protocol": self.protocol,
            "port": self.port,
            "source_port": self.source_port,
            "destination_port": self.destination_port,
            "answer": self.answer,
            "reason": "rule" if self.by_rule else "isolated",
            "policies": [
                {"kind": o.kind, "namespace": o.namespace, "name": o.name, "file": o.file, "line": o.line}
                for o in self.policies
            ],
        }

    def _end(self, address: Address) -> dict[str, str]:
        return {"address": str(address), "name": self.names[address != self.source]}


class Teller:
    """Puts packets into words, for one program."""

    def __init__(self, program: Program, names: Mapping[Address, str]) -> None:
        self._names = names
        self._interpreter = Interpreter(program)
        self._enforcements = {e.name: e for e in program.enforcements}

    def tell(self, packet: DeniedPacket, enforcement: str) -> Told:
        """What to print. `enforcement` may be one that the program does not have."""
        answer = packet.leaving != packet.egress
        port = packet.source_port if answer else packet.destination_port
        pod, peer = packet.source, packet.destination
        if not packet.leaving:
            pod, peer = peer, pod
        protocol = _PROTOCOLS.get(packet.protocol)
        policies: tuple[Origin, ...] = ()
        by_rule = False
        one = self._enforcements.get(enforcement)
        if one is not None:
            denial = self._interpreter.denial(one, peer, protocol, port if protocol else 0)
            policies = one.origins if denial is None else denial.origins
            by_rule = denial is not None and denial.rule
        return Told(
            _clock(packet.time),
            "egress" if packet.egress else "ingress",
            packet.source,
            packet.destination,
            (self._names.get(packet.source, ""), self._names.get(packet.destination, "")),
            pod,
            protocol.value if protocol else _OTHERS.get(packet.protocol, str(packet.protocol)),
            port if protocol else None,
            packet.source_port,
            packet.destination_port,
            answer,
            by_rule,
            policies,
        )


def _clock(monotonic: int) -> str:
    """UTC, ISO 8601 with milliseconds, of a time that CLOCK_MONOTONIC gave."""
    now = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC) + monotonic
    return datetime.fromtimestamp(now / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
