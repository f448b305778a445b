"""What a command compiles: paths, the node's options, and how much is said about it.

Knows: the flags that all commands on manifests share. Must not know: the node's flags (`options`) or what compiling
does (`pipeline`); neither is imported at start-up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING

import click

from k8snetc.compiler.options import ContextOptions, node_options

if TYPE_CHECKING:
    from k8snetc.compiler.manifests import Manifests
    from k8snetc.compiler.pipeline import Compiled, Timings, Watch

Command = Callable[
    ..., object
]  # click calls commands by keyword; their types are checked where they are written

ASSUMED = "addresses are assumed (--assume-addresses): for review, not for a node"


IPVS_OPTIONS = (
    click.option(
        "--ipvs-scheduler",
        default="rr",
        show_default=True,
        metavar="NAME[:FLAG,FLAG]",
        help="How IPVS chooses an endpoint for Services that do not say it by annotation: rr, wrr, lc, wlc, lblc, "
        "lblcr, dh, sh (sh-port, sh-fallback), sed, nq, mh (mh-port, mh-fallback), fo, ovf. For the ipvs back end.",
    ),
    click.option(
        "--ipvs-strict-arp/--no-ipvs-strict-arp",
        default=False,
        show_default=True,
        help="Let the node not answer ARP for service addresses (arp_ignore 1, arp_announce 2). For the ipvs back end.",
    ),
)
"""What concerns the IPVS back end, named as kube-proxy names it; for commands that compile and that install."""

EBPF_OPTIONS = (
    click.option(
        "--ebpf-counters/--no-ebpf-counters",
        default=True,
        show_default=True,
        help="Let the eBPF programs count (`status` shows it), and record what policy denies for `monitor`.",
    ),
)
"""What concerns the eBPF back end, for commands that compile and that install."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a command compiles, and how much is said about it on stderr."""

    paths: tuple[str, ...]
    options: ContextOptions
    assume: bool = False
    verbose: int = 0
    quiet: bool = False

    def compile(self, watch: Watch | None = None, shown: Callable[[str], str] = str) -> Compiled:
        """The program. Says on stderr what is doubtful, was left out or made up. Raises `InputError`.

        `shown` gives a file the name that people know it by.
        """
        from k8snetc.compiler.pipeline import Timings, compile_program, no_collector
        from k8snetc.compiler.progress import Progress

        progress = Progress(quiet=self.quiet or watch is not None)
        timings = Timings(began=progress.step)
        with progress.shown(), no_collector(freeze=True):
            compiled = compile_program(
                self.paths, self.options, assume=self.assume, watch=watch, timings=timings
            )
        self._report(compiled.manifests, timings, shown)
        return compiled

    def say(self, text: str) -> None:
        """Say something on stderr, unless quiet."""
        if not self.quiet:
            click.echo(text, err=True)

    def _report(self, manifests: Manifests, timings: Timings, shown: Callable[[str], str]) -> None:
        for warning in manifests.warnings:
            self.say(str(replace(warning, file=shown(warning.file))))
        if self.assume:
            click.echo(f"k8snetc: {ASSUMED}", err=True)  # also when quiet: it must not be missed
        for one in manifests.skipped:
            if one.kind.endswith("NetworkPolicy"):  # also when quiet: somebody may count on it
                what = f"{one.number} {one.kind} ({one.api_version})"
                click.echo(f"k8snetc: not enforced: {what}, which is another project's policy", err=True)
        total = sum(s.number for s in manifests.skipped)
        if total:
            what = f"{total} object of another kind" if total == 1 else f"{total} objects of other kinds"
            self.say(f"k8snetc: skipped {what}{'' if self.verbose else ' (-v lists them)'}")
        if self.verbose:
            for one in manifests.skipped:
                self.say(f"  {one.number:6} {one.kind} ({one.api_version})")
            for name, seconds in timings.steps.items():
                self.say(f"  {seconds:6.2f} s {name}")


def manifest_options(command: Command) -> Command:
    """Add PATHS, the flags of the node and how much is said; the command gets `source: Source`."""
    return _with_source(command, required=True)


def optional_manifest_options(command: Command) -> Command:
    """As `manifest_options`, for a command that can do without PATHS."""
    return _with_source(command, required=False)


def _with_source(command: Command, *, required: bool) -> Command:

    @wraps(command)
    def wrapped(
        *,
        options: ContextOptions,
        paths: tuple[str, ...],
        assume_addresses: bool,
        verbose: int,
        quiet: bool,
        **kwargs: object,
    ) -> object:
        return command(source=Source(paths, options, assume_addresses, verbose, quiet), **kwargs)

    decorated: Command = node_options(wrapped)
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return click.argument("paths", nargs=-1, required=required, metavar="PATHS...")(decorated)


_OPTIONS: tuple[Callable[[Command], Command], ...] = (
    click.option(
        "--assume-addresses",
        is_flag=True,
        help="Make up the addresses that manifests from Git lack. For review only: apply refuses the result.",
    ),
    click.option(
        "-v",
        "--verbose",
        count=True,
        help="Say more: which kinds of objects were skipped, how long each step took.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
)
