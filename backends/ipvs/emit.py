"""The IPVS model as the text that ipvsadm, ip, sysctl, ipset and iptables read.

Knows: file names, and what a person has to do with each file. Must not know: what anything is for.
"""

from __future__ import annotations

from collections.abc import Iterable

from k8snetc.backends.base import Artifact
from k8snetc.backends.common.xtables import emit as xtables
from k8snetc.backends.ipvs.model import DEVICE, TUNNEL, Ipvs, RealServer, VirtualService
from k8snetc.ir.types import Family

BY_ROLE = (
    "A set's name is its role: flush one that is there already (`k8snetc apply` changes only what differs)."
)


def emit(model: Ipvs, *, comments: bool = True) -> tuple[Artifact, ...]:
    """All artifacts, in the order in which they are installed: guards before services, addresses last."""
    artifacts = []
    if model.sysctls:
        artifacts.append(Artifact("sysctl.conf", xtables.sysctls_text(model.sysctls)))
    artifacts.extend(xtables.emit(model.xtables, BY_ROLE))
    if model.services:
        artifacts.append(Artifact("ipvsadm.restore", services_text(model.services)))
        if comments:
            artifacts.append(Artifact("ipvsadm.origins", origins_text(model.services)))
    if model.addresses:
        artifacts.append(Artifact("ip.batch", addresses_text(model.addresses)))
    if model.real_servers:
        artifacts.append(Artifact("real-servers.txt", real_servers_text(model.real_servers)))
    return tuple(artifacts)


def service_lines(service: VirtualService) -> Iterable[str]:
    """The lines of ipvsadm that make a virtual service."""
    yield f"-A {service.key} {service.options}"
    for d in service.destinations:
        yield f"-a {service.key} -r {d.server} {d.method} -w {d.weight}"


def services_text(services: Iterable[VirtualService]) -> str:
    """Text for `ipvsadm --restore`, which takes no comments."""
    return "".join(f"{line}\n" for s in services for line in service_lines(s))


def origins_text(services: Iterable[VirtualService]) -> str:
    """Which manifest object each virtual service comes from; for people."""
    lines = ["# Where the entries of ipvsadm.restore come from: virtual service, Service, file and line"]
    lines.extend(
        f"{s.key}\t{s.label}\t{f'{s.origin.file}:{s.origin.line}' if s.origin else '-'}" for s in services
    )
    return "".join(f"{_printable(line)}\n" for line in lines)


def addresses_text(addresses: Iterable[str]) -> str:
    """Text for `ip -batch` that makes the device and gives it the service addresses."""
    lines = [
        "# The device that makes service addresses the node's own. Install with: ip -force -batch ip.batch",
        f"link add {DEVICE} type dummy",
    ]
    lines.extend(address_line("replace", a) for a in addresses)
    return "".join(f"{line}\n" for line in lines)


def address_line(verb: str, address: str) -> str:
    """One line of `ip -batch`. The device stays down: its addresses work, and nobody is told about them.

    An IPv6 address is deprecated from the start (`preferred_lft 0`), or the node would speak from it: of all its
    addresses it may be the one most like the destination (RFC 6724).
    """
    more = " nodad preferred_lft 0" if ":" in address and verb != "delete" else ""
    return f"address {verb} {address} dev {DEVICE}{more}"


def real_servers_text(servers: Iterable[RealServer]) -> str:
    """What has to be run inside each pod that gets packets as they are."""
    lines = [
        "# Direct routing and tunnels deliver packets that still bear the service's address: each of these pods has to",
        "# own it, quietly. Run the commands in the pod's network namespace. Replies go straight to the client.",
    ]
    for one in servers:
        lines.append(f"# pod {one.server}")
        lines.extend(_own(one))
    return "".join(f"{line}\n" for line in lines)


def _own(one: RealServer) -> Iterable[str]:
    v4 = one.family is Family.IPV4
    length = 32 if v4 else 128
    if one.method == TUNNEL:
        device = "tunl0" if v4 else "ip6tnl0"
        yield f"modprobe {'ipip' if v4 else 'ip6_tunnel'}; ip link set {device} up"
    else:
        device = "lo"
    if v4:
        yield "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"
        if device != "lo":
            yield f"sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{device}.rp_filter=0"
    yield f"ip address replace {one.address}/{length} dev {device}{'' if v4 else ' nodad'}"


def _printable(text: str) -> str:
    return "".join(c if " " <= c <= "~" or c == "\t" else "?" for c in text)
