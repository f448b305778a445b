"""What the node itself has: interfaces, addresses, routes. Read through pyroute2, in the caller's network namespace.

Knows: which interfaces are pods' and which lead outside. Must not know BPF or programs.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_address

from k8snetc.backends.target import InstallError
from k8snetc.ir.types import Address

_SO_NETNS_COOKIE = 71  # linux/socket.h, Linux 5.14
_ETHERNET, _LOOPBACK = 1, 772  # ARPHRD_*


@dataclass(frozen=True, slots=True)
class Device:
    """An interface. `addresses` are its own of global scope, the first one of a family is its primary one.

    `master` is the index of the bridge that it is a port of, 0 without.
    """

    index: int
    name: str
    kind: str
    mac: bytes
    hardware: int
    addresses: tuple[Address, ...] = ()
    master: int = 0

    def primary(self, version: int) -> Address | None:
        """The address that it puts on what it sends."""
        return next((a for a in self.addresses if a.version == version), None)


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table."""

    device: int
    network: str
    gateway: bool


@dataclass(frozen=True, slots=True)
class Sites:
    """Where programs attach. `cgroup` is the number (inode) of the one whose sockets are balanced; None: of none."""

    uplinks: tuple[Device, ...]
    pods: tuple[Device, ...]
    cgroup: int | None


@dataclass(frozen=True, slots=True)
class Facts:
    """The node as the kernel knows it."""

    devices: tuple[Device, ...]
    routes: tuple[Route, ...]
    addresses: tuple[Address, ...]
    cookie: int
    ephemeral: tuple[int, int]

    @property
    def loopback(self) -> Device:
        """The loopback interface."""
        return next(d for d in self.devices if d.hardware == _LOOPBACK)

    def uplinks(self, patterns: Sequence[str], own: Iterable[Address]) -> tuple[Device, ...]:
        """The interfaces that lead outside: as named, or those with gateways or the node's addresses."""
        if patterns:
            return self._named("--uplink", patterns)
        known = set(own)
        ways = {r.device for r in self.routes if r.gateway or r.network == "default"}
        return tuple(
            d
            for d in self.devices
            if d.hardware == _ETHERNET and (d.index in ways or known.intersection(d.addresses))
        )

    def pods(self, patterns: Sequence[str], uplinks: Iterable[Device]) -> tuple[Device, ...]:
        """The pods' interfaces: as named, or every veth that is no uplink."""
        if patterns:
            return self._named("--pod-interface", patterns)
        taken = {d.index for d in uplinks}
        return tuple(d for d in self.devices if d.kind == "veth" and d.index not in taken)

    def _named(self, flag: str, patterns: Sequence[str]) -> tuple[Device, ...]:
        found = tuple(d for d in self.devices if any(fnmatchcase(d.name, p) for p in patterns))
        for pattern in patterns:
            # A pattern may fit nothing yet; a plain name must exist.
            if not any(c in pattern for c in "*?[") and not any(d.name == pattern for d in found):
                names = ", ".join(d.name for d in self.devices)
                raise InstallError(f"{flag} {pattern}: there is no such interface; there are: {names}")
        for device in found:
            if device.hardware != _ETHERNET:
                raise InstallError(
                    f"{flag} {device.name}: not an Ethernet-like interface, which the programs need"
                )
        return found


def facts() -> Facts:
    """Read them now."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        addresses: dict[int, list[Address]] = {}
        own: list[Address] = []
        for message in route.get_addr():
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            address = ip_address(text)
            if message["scope"] == 0:  # RT_SCOPE_UNIVERSE
                addresses.setdefault(message["index"], []).append(address)
            if not address.is_loopback:
                own.append(address)
        devices = tuple(
            Device(
                index=link["index"],
                name=link.get_attr("IFLA_IFNAME"),
                kind=(link.get_attr("IFLA_LINKINFO") or _Nothing()).get_attr("IFLA_INFO_KIND") or "",
                mac=bytes.fromhex((link.get_attr("IFLA_ADDRESS") or "00:00:00:00:00:00").replace(":", ""))[
                    :6
                ],
                hardware=link["ifi_type"],
                addresses=tuple(addresses.get(link["index"], ())),
                master=link.get_attr("IFLA_MASTER") or 0,
            )
            for link in sorted(route.get_links(), key=lambda x: x["index"])
        )
        routes = tuple(
            Route(
                device=r.get_attr("RTA_OIF") or 0,
                network=f"{r.get_attr('RTA_DST')}/{r['dst_len']}" if r["dst_len"] else "default",
                gateway=r.get_attr("RTA_GATEWAY") is not None,
            )
            for family in (socket.AF_INET, socket.AF_INET6)
            for r in route.get_routes(family=family)
            if r["table"] == 254 and r["type"] == 1
        )
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        first, last = (int(word) for word in file.read().split())
    return Facts(
        devices, routes, tuple(sorted(own, key=lambda a: (a.version, int(a)))), _cookie(), (first, last)
    )


def _cookie() -> int:
    """The number by which programs know this network namespace."""
    with socket.socket() as probe:
        try:
            return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
        except OSError as error:
            raise InstallError(
                f"the kernel has no SO_NETNS_COOKIE ({error.strerror}): Linux 5.14 is needed"
            ) from error


class _Nothing:
    @staticmethod
    def get_attr(_name: str) -> None:
        return None
