"""Whether packets between the node's pods come by the netfilter hooks at all.

Pods that are ports of one Linux bridge reach each other without being routed. Such packets pass iptables and nftables
only where br_netfilter hands them over (`net.bridge.bridge-nf-call-*`); else policy between these pods would be written
down and not hold. Knows: links, routes, these settings. Must not know: rules.
"""

from __future__ import annotations

from collections.abc import Iterator

from k8snetc.backends.base import Gap
from k8snetc.backends.common.settings import read_settings
from k8snetc.ir.types import Address, Family, Program

SETTINGS = {
    Family.IPV4: "net.bridge.bridge-nf-call-iptables",
    Family.IPV6: "net.bridge.bridge-nf-call-ip6tables",
}


def unjudged_bridges(program: Program) -> Iterator[Gap]:
    """A gap for each family whose policies would not hold on this node. Reads the caller's network namespace."""
    values = read_settings(tuple(SETTINGS.values()))
    for family, setting in SETTINGS.items():
        mine = [e for e in program.enforcements if e.family is family]
        if not mine or values.get(setting) == "1":
            continue
        found = _bridge([pod for e in mine for pod in e.pods])
        if found is not None:
            pod, bridge = found
            yield Gap(
                f"the pod {pod} is behind the bridge {bridge}, whose ports reach each other past the rules:"
                f" policy would not hold between them (IPv{family.value})",
                f"modprobe br_netfilter && sysctl -w {setting}=1, as kubeadm asks for too",
                next(iter(mine[0].origins), None),
            )


def _bridge(pods: list[Address]) -> tuple[Address, str] | None:
    """The first pod that is reached by a bridge, and that bridge's name."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as route:
        bridges = {
            link["index"]: str(link.get_attr("IFLA_IFNAME"))
            for link in route.get_links()
            if (info := link.get_attr("IFLA_LINKINFO")) and info.get_attr("IFLA_INFO_KIND") == "bridge"
        }
        if not bridges:
            return None
        for pod in pods:
            try:
                ways = list(route.route("get", dst=str(pod), family=2 if pod.version == 4 else 10))
            except NetlinkError:
                continue  # no way there: nothing to judge
            for way in ways:
                name = bridges.get(way.get_attr("RTA_OIF"))
                if name is not None:
                    return pod, name
    return None
