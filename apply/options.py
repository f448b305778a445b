"""Options that the commands on a node share: which back end, how it is installed, where the state is kept.

Knows: flags and their help. Must not know: what is done with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path

import click

from k8snetc.backends.registry import NAMES
from k8snetc.backends.target import InstallOptions, Target, target_for
from k8snetc.compiler.source import EBPF_OPTIONS, IPVS_OPTIONS, Command

STATE_DIR = Path("/run/k8snetc")

_Decorator = Callable[[Command], Command]


@dataclass(frozen=True, slots=True)
class OnNode:
    """The back end and how it is installed on this node. `backend` is None only where a command can do without."""

    backend: str | None
    install: InstallOptions
    state_dir: Path
    lock_timeout: float

    def target(self) -> Target[object]:
        """The back end's grip on the kernel. Raises `click.UsageError` if none is named or it isn't built yet."""
        if self.backend is None:
            raise click.UsageError(f"name the dataplane: --backend {'|'.join(NAMES)}")
        try:
            return target_for(self.backend, self.install)
        except ModuleNotFoundError as e:
            raise click.UsageError(f"the {self.backend} back end can't be installed here: {e}") from e


def node_command(command: Command) -> Command:
    """Add the options; the command gets `node: OnNode`."""

    @wraps(command)
    def wrapped(
        *,
        backend: str | None,
        comments: bool,
        iptables: str,
        wait: int,
        ipvs_scheduler: str,
        ipvs_strict_arp: bool,
        ebpf_counters: bool,
        uplink: tuple[str, ...],
        pod_interface: tuple[str, ...],
        cgroup: str | None,
        no_cgroup: bool,
        state_dir: Path,
        lock_timeout: float,
        **kwargs: object,
    ) -> object:
        install = InstallOptions(
            comments=comments,
            iptables=iptables,
            wait=wait,
            ipvs_scheduler=ipvs_scheduler,
            ipvs_strict_arp=ipvs_strict_arp,
            ebpf_counters=ebpf_counters,
            uplinks=uplink,
            pod_interfaces=pod_interface,
            cgroup=cgroup,
            no_cgroup=no_cgroup,
        )
        return command(node=OnNode(backend, install, state_dir, lock_timeout), **kwargs)

    decorated: Command = wrapped
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


_OPTIONS: tuple[_Decorator, ...] = (
    click.option("--backend", "-b", type=click.Choice(NAMES), help="The dataplane."),
    click.option(
        "--comments/--no-comments",
        default=True,
        show_default=True,
        help="Let each rule carry the manifest object it comes from, where the target has comments.",
    ),
    click.option(
        "--iptables",
        type=click.Choice(["auto", "legacy", "nft"]),
        default="auto",
        show_default=True,
        help="The variant of iptables; auto is what `iptables` on PATH is.",
    ),
    click.option(
        "--wait",
        type=click.IntRange(0, 3600),
        default=10,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for the lock of xtables when another program holds it.",
    ),
    *IPVS_OPTIONS,
    *EBPF_OPTIONS,
    click.option(
        "--uplink",
        multiple=True,
        metavar="DEV",
        help="eBPF: an interface to the outside; may be given again.  [default: from the Node object and routes]",
    ),
    click.option(
        "--pod-interface",
        multiple=True,
        metavar="DEV|PATTERN",
        help="eBPF: the node's end of a pod's interface, as `cali*`; may be given again.  [default: from routes]",
    ),
    click.option(
        "--cgroup",
        metavar="PATH",
        help="eBPF: balance sockets of processes below this cgroup.  [default: the root of cgroup2]",
    ),
    click.option("--no-cgroup", is_flag=True, help="eBPF: balance packets only, no sockets."),
    click.option(
        "--state-dir",
        type=click.Path(file_okay=False, readable=False, path_type=Path),
        default=STATE_DIR,
        show_default=True,
        metavar="DIR",
        help="Where lock, journal and receipts are kept.",
    ),
    click.option(
        "--lock-timeout",
        type=click.FloatRange(0, 3600),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait while another k8snetc changes this node.",
    ),
)
