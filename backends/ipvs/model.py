"""The target model of IPVS: virtual services, the addresses that lead to them, and what netfilter does for them.

Knows: the words of ipvsadm, and which of its options say the same. Must not know: programs, the kernel.

A virtual service is written as `ipvsadm -Sn` (1.31) prints it, so that what did not change compares as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from k8snetc.backends.common.xtables.model import Sysctl, Xtables
from k8snetc.ir.types import Family, Origin

DEVICE = "k8snetc0"
"""The dummy device that carries the service addresses: they must be the node's own, or IPVS never sees the packets."""

SCHEDULERS: Mapping[str, tuple[str, ...]] = {
    "rr": (),
    "wrr": (),
    "lc": (),
    "wlc": (),
    "lblc": (),
    "lblcr": (),
    "dh": (),
    "sh": ("sh-fallback", "sh-port"),
    "sed": (),
    "nq": (),
    "mh": ("mh-fallback", "mh-port"),
    "fo": (),
    "ovf": (),
}
"""All schedulers of Linux 6.1 with the flags that ipvsadm has names for, as it prints them."""

UDP_MARK = 1 << 29
"""Set in the firewall mark of a virtual service that serves UDP: nothing else of it tells the protocol."""

MASQUERADING, DIRECT, TUNNEL = "-m", "-g", "-i"
METHODS: Mapping[str, str] = {"": MASQUERADING, "masq": MASQUERADING, "direct": DIRECT, "tunnel": TUNNEL}
"""Forwarding methods by the name that a Service's annotation gives them, as ipvsadm's flags."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A real server of a virtual service. `server` as `10.0.0.1:80` or `[fd00::1]:80`; `weight` >= 1.

    Weight 0 is no part of a model: in the kernel it means that the server is on its way out.
    """

    server: str
    method: str = MASQUERADING
    weight: int = 1


@dataclass(frozen=True, slots=True)
class VirtualService:
    """One entry of the IPVS table.

    `key` is how ipvsadm names it (`-t 10.96.0.1:80`, `-u [fd00::1]:53`, `--sctp-service 10.0.0.1:9`, `-f 7`, `-f 7
    -6`), `options` the rest of its line (`-s rr -p 10800`). Without destinations IPVS itself answers with an ICMP
    port unreachable. `label` is for people.
    """

    key: str
    options: str
    destinations: tuple[Destination, ...] = ()
    label: str = field(default="", compare=False)
    origin: Origin | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RealServer:
    """What a pod needs that gets packets for `address` as they are (direct) or in a tunnel: it must own the address."""

    server: str
    address: str
    method: str
    family: Family


@dataclass(frozen=True, slots=True)
class Ipvs:
    """Everything. Services are sorted by key, `addresses` (of the device, with prefix length) as text."""

    services: tuple[VirtualService, ...] = ()
    addresses: tuple[str, ...] = ()
    xtables: Xtables = field(default_factory=Xtables)
    sysctls: tuple[Sysctl, ...] = ()
    real_servers: tuple[RealServer, ...] = ()


def canonical(options: str) -> str:
    """Options of a virtual service in one order, flags sorted: equal text for what means the same."""
    words = options.split()
    found: dict[str, str] = {}
    at = 0
    while at < len(words):
        name = words[at]
        if name == "-o":
            found[name] = ""
            at += 1
            continue
        value = words[at + 1] if at + 1 < len(words) else ""
        found[name] = ",".join(sorted(value.split(","))) if name == "-b" else value
        at += 2
    return " ".join(f"{n} {found[n]}".rstrip() for n in sorted(found, key=lambda n: (n != "-s", n)))
