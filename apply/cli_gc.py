"""The command that collects what changes left behind: `gc`.

Knows: its options and what is said. Must not know: what is left behind, or how it is collected (`transaction`).
"""

from __future__ import annotations

import click

from k8snetc.apply.cli import of_what_runs
from k8snetc.apply.options import OnNode, node_command
from k8snetc.apply.session import Progress, session
from k8snetc.apply.transaction import collect
from k8snetc.backends.target import Collector


@click.command("gc")
@node_command
@click.option("--dry-run", is_flag=True, help="Say what there is and stop.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def gc_command(*, node: OnNode, dry_run: bool, quiet: bool) -> int:
    """Collect endpoints that have left and whose connections have ended.

    An endpoint that goes from an IPVS service gets no new connections (weight 0) and stays while it has old ones. The
    next apply collects it; this command does so without an apply. The other back ends leave nothing behind.

    \b
    Exit codes: 0 nothing waits any more, 1 some still have connections (try again later), 2 bad input, 4 refused and
    nothing was changed, 5 a tool failed on the way (what was collected stays so; try again).
    """
    with session(of_what_runs(node)) as here:
        if not isinstance(here.target, Collector):
            if not quiet:
                click.echo(f"Nothing to collect: {here.target.name} leaves nothing behind.")
            return 0
        if here.installed() is None:
            if not quiet:
                click.echo("Nothing to collect: nothing of k8snetc is installed.")
            return 0
        if dry_run:
            done = here.target.left_behind(here.target.observe())
        else:
            done = collect(
                here.target, here.target, here.store, wait=node.lock_timeout, watch=Progress(quiet=quiet)
            )
    if not quiet:
        verb = "To collect" if dry_run else "Collected"
        click.echo(f"{verb}: {done.idle:,} endpoints without connections; {done.busy:,} still have some.")
    return 1 if done.busy else 0
