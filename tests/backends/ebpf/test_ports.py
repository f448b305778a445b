"""Ports of masqueraded connections: each is one connection's alone, and they do not run out while connections end."""

from __future__ import annotations

import struct
import time
from dataclasses import replace
from ipaddress import ip_address

import pytest

from k8snetc.backends.ebpf import state
from k8snetc.ir.types import Address, Balance, Family, Program, Route, Who
from k8snetc.lab.packets import ip
from tests.backends.ebpf import support
from tests.backends.ebpf.test_packets import Read, segment
from tests.backends.ebpf.testrun import DROP, PASS, Programs
from tests.support.lab import TCP

FIRST, LAST = 2000, 2023  # no more than those tries that may also take a port from another connection
SYN, FIN, RST, ACK = 2, 1, 4, 16
ROUTER = {Family.IPV4: ip_address("203.0.113.9"), Family.IPV6: ip_address("2001:db8::9")}


def masquerading() -> Program:
    """The node's program; its service number 5, of the endpoint a alone, is masqueraded."""
    program = support.services("w1")
    fifth = {support.service(f, 5) for f in Family}

    def changed(route: Route) -> Route:
        assert isinstance(route.action, Balance)
        return Route(Who.ANY, Balance(route.action.balancer, masquerade=True))

    return replace(
        program,
        frontends=tuple(
            replace(f, routes=tuple(changed(r) for r in f.routes)) if f.address in fifth else f
            for f in program.frontends
        ),
    )


class Side:
    """One family's clients, and their service's endpoint, on both sides of the node."""

    def __init__(self, programs: Programs, family: Family) -> None:
        self.programs, self.family = programs, family
        self.client, self.service = ROUTER[family], support.service(family, 5)
        self.endpoint = support.pod(family, "a")

    def _through(self, source: Address, to: Address, ports: tuple[int, int], flags: int) -> Read | None:
        data = bytearray(segment(TCP, source, to, ports))
        old = data[13]
        data[13] = flags
        checksum = struct.unpack_from("!H", data, 16)[0] + old - flags
        checksum += (checksum >> 16) - (checksum < 0)
        struct.pack_into("!H", data, 16, checksum & 0xFFFF)
        verdict, out = self.programs.send("from_outside", ip(source, to, 6, bytes(data)))
        assert verdict == PASS
        verdict, out = self.programs.send("to_outside", out)
        assert verdict in {PASS, DROP}
        return Read(out) if verdict == PASS else None

    def ask(self, port: int, flags: int = SYN) -> int | None:
        """A client's packet: the port that it reaches the endpoint with; None if it does not."""
        seen = self._through(self.client, self.service, (port, 80), flags)
        if seen is None:
            return None
        assert (seen.source, seen.destination) == (support.node_address(self.family, 1), self.endpoint)
        return int(seen.ports[0])

    def answer(self, masked: int, flags: int = SYN | ACK) -> int:
        """The endpoint's packet: the port of the client that gets it."""
        seen = self._through(self.endpoint, support.node_address(self.family, 1), (8080, masked), flags)
        assert seen is not None
        assert (seen.source, seen.destination, seen.ports[0]) == (self.service, self.client, 80)
        return int(seen.ports[1])


@pytest.mark.kernel
def test_ports_of_connections_that_ended_are_used_again() -> None:
    with Programs(masquerading(), (FIRST, LAST)) as programs:
        sides = [Side(programs, f) for f in Family]
        taken: dict[Family, dict[int, int]] = {}
        for side in sides:
            ports = {port: side.ask(port) for port in range(40000, 40024)}
            assert {*ports.values()} == {*range(FIRST, LAST + 1)}, "each has a port of its own"
            taken[side.family] = {port: masked for port, masked in ports.items() if masked is not None}
            assert side.ask(41000) is None, "there is no more"
            for port, masked in taken[side.family].items():
                assert side.answer(masked) == port
                assert side.ask(port, ACK) == masked
            # Most end, by both sides or by a reset; of two one side alone has said so.
            for port, masked in [*taken[side.family].items()][:-2]:
                if port % 3:
                    assert side.ask(port, FIN | ACK) == masked
                    assert side.answer(masked, FIN | ACK) == port
                    assert side.ask(port, ACK) == masked
                else:
                    assert (side.ask(port, RST) if port % 2 else side.answer(masked, RST)) in {port, masked}
            assert side.ask(40022, FIN | ACK) == taken[side.family][40022]
            assert side.answer(taken[side.family][40023], FIN | ACK) == 40023
            assert side.ask(41000) is None, "the last packets of those that ended may still be on their way"
        time.sleep(2.1)
        for side in sides:
            kept = {taken[side.family][port] for port in (40022, 40023)}
            again = {port: side.ask(port) for port in range(41000, 41022)}
            assert {*again.values()} == {*range(FIRST, LAST + 1)} - kept
            assert side.ask(42000) is None
            for port, new in again.items():
                assert new is not None
                assert side.answer(new) == port
            # What comes late of a connection that is over does not pass for the one that has its port now.
            assert side.ask(40000, ACK) is None
            for port in (40022, 40023):
                assert side.ask(port, ACK) == taken[side.family][port]


def test_ports_are_those_that_nobody_else_takes() -> None:
    assert state.masquerade_ports((32768, 60999), (30080, 31000)) == (1024, 30079)
    assert state.masquerade_ports((10000, 60999), (30080, 31000)) == (1024, 9999)
    assert state.masquerade_ports((32768, 60999), (1, 0)) == (1024, 32767)
    # Sockets of the node may have any port: then those that are no NodePorts.
    assert state.masquerade_ports((1024, 65535), (30000, 32767)) == (32768, 65535)
    assert state.masquerade_ports((1024, 65000), (1, 0)) == (1024, 65535)
