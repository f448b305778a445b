"""The back ends that the semantics tests run on, and how one is put on a node of the lab.

Knows: names of back ends and their variants. Must not know: rules or programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from k8snetc.backends.target import InstallOptions, target_for
from k8snetc.ir.types import Program
from k8snetc.lab import flush
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
    in_turn: bool = False  # endpoints take turns, so that few connections see them all
    # Whether cases follow each other on nodes that are not emptied: where starting a program takes long. Each case is
    # then a change of the one before, and what its nodes hold is known without another look.
    follows_on: bool = False
    slowness: int = 1  # how many times longer things take where it runs


ALL = (
    Dataplane("iptables-legacy", "iptables", options=InstallOptions(iptables="legacy")),
    Dataplane("iptables-nft", "iptables", options=InstallOptions(iptables="nft")),
    Dataplane("nftables", "nftables", lets_in=False),
    Dataplane("ebpf-packets", "ebpf", lets_in=False, options=InstallOptions(no_cgroup=True)),
    Dataplane("ebpf-sockets", "ebpf", lets_in=False, sockets=True),
)
IN_VM = pytest.param(
    Dataplane(
        "ipvs", "ipvs", in_turn=True, follows_on=True, slowness=5, options=InstallOptions(iptables="nft")
    ),
    id="ipvs",
    marks=pytest.mark.vm,
)
"""The parameter for what needs the kernel of the virtual machine; such a test runs there."""

_held: dict[tuple[str, str], tuple[Program, object]] = {}
"""Of nodes that are not emptied between cases, by lab and node: the program, and what was seen of it."""


@contextmanager
def for_a_case(cluster: Cluster, dataplane: Dataplane) -> Iterator[Cluster]:
    """The cluster for one case: emptied after it, or kept for the next one that follows on."""
    if not dataplane.follows_on:
        empty(cluster)
    yield cluster
    if not dataplane.follows_on:
        cluster.reset()


def empty(cluster: Cluster) -> None:
    """Empty nodes that a case left as they were for the next one."""
    if forget(cluster):
        cluster.reset()


def forget(cluster: Cluster) -> bool:
    """The nodes will be emptied, or somebody else changes them. Returns whether anything was known of them."""
    held = [key for key in _held if key[0] == cluster.name]
    for key in held:
        del _held[key]
    return bool(held)


def install(
    cluster: Cluster,
    dataplane: Dataplane,
    programs: Mapping[str, Program],
    old: Mapping[str, Program] | None = None,
    *,
    look: bool = True,
) -> None:
    """Bring each node from whatever is on it to its program. `old`: what ran there before, if known.

    `look`: read back what was installed, and fail where it is not what was meant. Where cases follow on each other that
    takes longest; what services leave behind, like servers on their way out, is only known by it.
    """
    _prepare(dataplane, programs)
    for node, program in programs.items():
        options = dataplane.options
        if dataplane.sockets:
            options = replace(options, cgroup=str(cluster.cgroup(node)))
        here = replace(dataplane, options=options)
        held = _held.pop((cluster.name, node), None)
        if held is not None and held[0] == program and old is None:
            seen = held[1]  # as it is; whatever is still tracked was judged by the same program
        else:
            live = None if held is None else held[1]
            before = (old or {}).get(node)
            seen = cluster.call(f"node/{node}", _install_here, here, program, before, live, look)
        if dataplane.follows_on:
            _held[cluster.name, node] = (program, seen)


def _prepare(dataplane: Dataplane, programs: Mapping[str, Program]) -> None:
    """Import and compile before the nodes' processes are forked: they inherit what would else be done in each anew."""
    target_for(dataplane.backend, dataplane.options)
    if dataplane.backend == "ebpf":
        from k8snetc.backends.ebpf import emit, libbpf, lower
        from tests.vm import objects

        libbpf.library()
        objects.entry()
        for program in programs.values():
            objects.compiled(emit.program(lower.lower(program)))


def _install_here(
    dataplane: Dataplane, program: Program, old: Program | None, live: object, look: bool
) -> object:
    target = target_for(dataplane.backend, dataplane.options)
    goal = target.desired(program)
    if live is not None and old is None:
        flush.connections()  # of the case before
    for step in target.steps(target.observe() if live is None else live, goal):
        step.run()
    seen = goal
    if look:
        seen = target.observe()
        left = target.changes(seen, goal)
        assert not left, f"what is installed differs from what was meant: {left[:3]}"
    if live is None or old is not None:  # else nothing is tracked
        target.cut(old, program)
    return seen if dataplane.follows_on else None
