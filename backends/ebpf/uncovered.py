"""Protected pods whose packets no program would see, because their interface is none of those that programs attach to.

Knows: routes, bridges and their ports, kinds of interfaces. Must not know programs or BPF.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from k8snetc.backends.base import Gap
from k8snetc.backends.common.ways import ways
from k8snetc.backends.ebpf.node import Device, Facts, Sites
from k8snetc.ir.types import Address, Origin, Program

# What leads to other nodes: a pod with such a route is not here (yet). The kernel's names.
_TUNNELS = frozenset(
    {
        "vxlan",
        "geneve",
        "gre",
        "gretap",
        "erspan",
        "ip6gre",
        "ip6gretap",
        "ipip",
        "ip6tnl",
        "sit",
        "wireguard",
    }
    | {"vti", "vti6", "xfrm", "bareudp"}
)
# What pods are behind as ports of a bridge. Other ports lead outside (a card, a VLAN, a tunnel) or nowhere (dummy).
_PORTS = frozenset({"veth", "netkit", "tun", "macvtap", "ipvtap"})
_SWITCH = "openvswitch"


def uncovered(program: Program, facts: Facts, sites: Sites) -> Iterator[Gap]:
    """A gap for each interface that protected pods are behind unseen. Asks the kernel for the way to each pod."""
    pods: dict[Address, Origin | None] = {}
    for enforcement in program.enforcements:
        for pod in enforcement.pods:
            pods.setdefault(pod, next(iter(enforcement.origins), None))
    if pods:
        yield from gaps(pods, ways(pods), facts, sites)


def gaps(
    pods: Mapping[Address, Origin | None], found: Mapping[Address, int], facts: Facts, sites: Sites
) -> Iterator[Gap]:
    """The same for ways that are known. Pure."""
    behind: dict[Device, list[Address]] = {}
    devices = {d.index: d for d in facts.devices}
    for pod in pods:
        device = devices.get(found.get(pod, 0))
        if device is not None:
            behind.setdefault(device, []).append(pod)
    for device, mine in behind.items():
        unseen = _unseen(device, facts, sites)
        if not unseen:
            continue
        more = f" and {len(mine) - 1} more" if len(mine) > 1 else ""
        names = ", ".join(d.name for d in unseen)
        ports = "" if unseen == (device,) else f", whose ports {names} have no programs"
        hint = f"name the pods' interfaces with --pod-interface, {names} among them; or --uplink {device.name}, if it"
        hint += " leads outside"
        if device.kind == _SWITCH:
            hint = "leave policy to the plugin that made the switch: take the NetworkPolicies out of these manifests"
        yield Gap(
            f"the pod {mine[0]}{more}: behind the interface {_told(device)}{ports}, where no program would see all of"
            " its packets: policy would not hold",
            hint,
            pods[mine[0]],
        )


def _unseen(device: Device, facts: Facts, sites: Sites) -> tuple[Device, ...]:
    """Where programs are missing, for pods behind an interface."""
    covered, outside = {d.index for d in sites.pods}, {d.index for d in sites.uplinks}
    if (
        device.kind == "bridge"
    ):  # also if it is named itself: what its ports send each other does not pass there
        ports = [d for d in facts.devices if d.master == device.index]
        return tuple(d for d in ports if d.kind in _PORTS and d.index not in covered | outside)
    if device.kind == _SWITCH and device.index not in outside:  # as a bridge, and its ports can't be seen
        return (device,)
    if device.index in covered | outside or device.index == facts.loopback.index or device.kind in _TUNNELS:
        return ()
    return (device,)


def _told(device: Device) -> str:
    return f"{device.name} ({device.kind})" if device.kind else device.name
