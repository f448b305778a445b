"""The back ends that the semantics tests run on, and how one is put on a node of the lab.

Knows: names of back ends and their variants. Must not know: rules or programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from k8snetc.backends.target import InstallOptions, target_for
from k8snetc.ir.types import Program
from k8snetc.lab.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Dataplane:
    """A back end with the options that it is installed with. `name` is for test ids.

    `sockets`: programs balance the sockets of the node's cgroup, too.
    """

    name: str
    backend: str
    lets_in: bool = True  # whether it can open a port that somebody else's rule closes
    options: InstallOptions = field(default_factory=InstallOptions)
    sockets: bool = False
    # Whether two connections from one port of a client to one endpoint, through two of its addresses, are told apart.
    tells_apart: bool = True


ALL = (
    Dataplane("iptables-legacy", "iptables", options=InstallOptions(iptables="legacy")),
    Dataplane("iptables-nft", "iptables", options=InstallOptions(iptables="nft")),
    Dataplane("nftables", "nftables", lets_in=False),
    Dataplane(
        "ebpf-packets", "ebpf", tells_apart=False, lets_in=False, options=InstallOptions(no_cgroup=True)
    ),
    Dataplane("ebpf-sockets", "ebpf", tells_apart=False, lets_in=False, sockets=True),
)
IN_VM = pytest.param(
    Dataplane("ipvs", "ipvs", options=InstallOptions(iptables="nft")), id="ipvs", marks=pytest.mark.vm
)
"""The parameter for what needs the kernel of the virtual machine; such a test runs there."""


def install(
    cluster: Cluster,
    dataplane: Dataplane,
    programs: Mapping[str, Program],
    old: Mapping[str, Program] | None = None,
) -> None:
    """Bring each node from whatever is on it to its program. `old`: what ran there before, if known."""
    for node, program in programs.items():
        options = dataplane.options
        if dataplane.sockets:
            options = replace(options, cgroup=str(cluster.cgroup(node)))
        here = replace(dataplane, options=options)
        cluster.call(f"node/{node}", _install_here, here, program, (old or {}).get(node))


def _install_here(dataplane: Dataplane, program: Program, old: Program | None) -> None:
    target = target_for(dataplane.backend, dataplane.options)
    goal = target.desired(program)
    for step in target.steps(target.observe(), goal):
        step.run()
    left = target.changes(target.observe(), goal)
    assert not left, f"what is installed differs from what was meant: {left[:3]}"
    target.cut(old, program)
