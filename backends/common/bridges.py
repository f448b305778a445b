"""Whether packets between the node's pods come by the netfilter hooks at all.

Pods that are ports of one Linux bridge reach each other without being routed. Such packets pass iptables and nftables
only where br_netfilter hands them over (`net.bridge.bridge-nf-call-*`); else policy between these pods would be written
down and not hold. Those of Open vSwitch never come by. Knows: links, routes, these settings. Must not know: rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from k8snetc.backends.base import Gap
from k8snetc.backends.common.settings import read_settings
from k8snetc.backends.common.ways import ways
from k8snetc.ir.types import Address, Family, Program

SETTINGS = {
    Family.IPV4: "net.bridge.bridge-nf-call-iptables",
    Family.IPV6: "net.bridge.bridge-nf-call-ip6tables",
}


@dataclass(frozen=True, slots=True)
class Link:
    """An interface: its kind ("" for a real device), and for one on top of another the number of that."""

    name: str
    kind: str
    lower: int | None = None


def unjudged_bridges(program: Program) -> Iterator[Gap]:
    """A gap for each family whose policies would not hold on this node. Reads the caller's network namespace."""
    values = read_settings(tuple(SETTINGS.values()))
    for family, setting in SETTINGS.items():
        mine = [e for e in program.enforcements if e.family is family]
        if not mine:
            continue
        found = _switch([pod for e in mine for pod in e.pods], judged=values.get(setting) == "1")
        if found is None:
            continue
        pod, switch = found
        origin = next(iter(mine[0].origins), None)
        past = f"whose ports reach each other past the rules: policy would not hold between them (IPv{family.value})"
        if switch.kind == "bridge":
            yield Gap(
                f"the pod {pod} is behind the bridge {switch.name}, {past}",
                f"modprobe br_netfilter && sysctl -w {setting}=1, as kubeadm asks for too",
                origin,
            )
        else:
            yield Gap(
                f"the pod {pod} is behind the Open vSwitch bridge {switch.name}, {past}",
                "leave policy to the plugin that made the switch: take the NetworkPolicies out of these manifests",
                origin,
            )


def switch_of(links: Mapping[int, Link], number: int | None) -> Link | None:
    """The bridge that an interface is or rests on (as a VLAN of it); None if there is none."""
    for _ in range(len(links)):
        link = links.get(number) if number is not None else None
        if link is None or link.kind in {"bridge", "openvswitch"}:
            return link
        number = link.lower if link.kind == "vlan" else None
    return None


def _switch(pods: list[Address], *, judged: bool) -> tuple[Address, Link] | None:
    """The first pod that is reached by a switch whose packets pass no rules. `judged`: those of bridges do."""
    from pyroute2 import IPRoute

    kinds = {"openvswitch"} if judged else {"openvswitch", "bridge"}
    with IPRoute() as route:
        links: dict[int, Link] = {}
        for link in route.get_links():
            info = link.get_attr("IFLA_LINKINFO")
            kind = str(info.get_attr("IFLA_INFO_KIND")) if info else ""
            links[link["index"]] = Link(str(link.get_attr("IFLA_IFNAME")), kind, link.get_attr("IFLA_LINK"))
    if not any(link.kind in kinds for link in links.values()):
        return None
    for pod, interface in ways(pods).items():
        switch = switch_of(links, interface)
        if switch is not None and switch.kind in kinds:
            return pod, switch
    return None
