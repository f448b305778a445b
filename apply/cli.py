"""The commands that change a node: `apply`, `rollback`, `remove`.

Knows: their options, what is asked and what is said. Must not know: how a change is made (`transaction`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import click

from k8snetc.apply import receipts
from k8snetc.apply.document import as_json, load
from k8snetc.apply.errors import ApplyError, StaleError
from k8snetc.apply.manifests import read
from k8snetc.apply.options import OnNode, node_command
from k8snetc.apply.plan import Plan, live_plan, many
from k8snetc.apply.render import as_markdown, as_text, clean
from k8snetc.apply.session import Progress, Session, colourful, session
from k8snetc.apply.transaction import (
    STALE,
    Outcome,
    apply,
    before_first,
    refuse_assumed,
    remove,
)
from k8snetc.apply.transaction import (
    Source as Installed,
)
from k8snetc.backends.target import InstallOptions
from k8snetc.compiler.source import Command, Source, optional_manifest_options
from k8snetc.ir.types import Program

FORMATS = ("text", "json", "markdown")


def plan_output(command: Command) -> Command:
    """Add the options that say how a plan is shown."""
    for option in (
        click.option("--full", is_flag=True, help="Show every line, however many there are."),
        click.option(
            "--format",
            "form",
            type=click.Choice(FORMATS),
            default="text",
            show_default=True,
            help="How the plan is printed; json is described by `k8snetc diff --schema`.",
        ),
    ):
        command = option(command)
    return command


def show(plan: Plan, form: str, *, full: bool) -> None:
    """Print the plan on standard output, its warnings on standard error too where they would be lost."""
    match form:
        case "json":
            click.echo(as_json(plan), nl=False)
        case "markdown":
            click.echo(as_markdown(plan, full=full), nl=False)
        case _:
            for warning in plan.warnings:
                click.echo(f"warning: {clean(warning)}", err=True)
            click.echo(as_text(plan, colour=colourful(), full=full), nl=False)


def yes_option(command: Command) -> Command:
    """Add --yes."""
    decorated: Command = click.option("--yes", "-y", is_flag=True, help="Do not ask, also on a terminal.")(
        command
    )
    return decorated


def confirmed(question: str, *, yes: bool) -> bool:
    """Ask on a terminal; without one, or with --yes, go on."""
    return yes or not sys.stdin.isatty() or click.confirm(question, err=True)


@click.command("apply")
@optional_manifest_options
@node_command
@plan_output
@yes_option
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Apply a plan that `diff --out` saved, if the node is still as it was then. Takes no PATHS.",
)
def apply_command(
    *,
    source: Source,
    node: OnNode,
    form: str,
    full: bool,
    yes: bool,
    dry_run: bool,
    plan_file: Path | None,
) -> int:
    """Make this node run what the manifests say, atomically, and check that it does.

    Shows the plan, asks on a terminal, locks the node, installs only what changed, and looks at the kernel again.
    When anything fails, or Ctrl-C comes before the end, what ran before is put back.

    \b
    Exit codes: 0 done or nothing to do, 2 bad input, 3 the dataplane can't express it, 4 refused and nothing was
    changed, 5 failed and what ran before runs again, 6 failed and the next apply has to put it right.
    """
    if plan_file is not None:
        return _apply_saved(source, node, plan_file, _Shown(form, full=full), yes=yes, dry_run=dry_run)
    if not source.paths:
        raise click.UsageError("name manifests, or a saved plan with --plan FILE")
    if source.options.node is None:
        raise click.UsageError("name the node that this is: --node NAME")
    found = read(source)
    if not dry_run:
        refuse_assumed(found.program)
    with session(node) as here:
        here.mention("will be undone first")
        plan = here.plan(found.program, found.names, ", ".join(source.paths))
        show(plan, form, full=full)
        if dry_run or not _worth_it(here, plan, found.program):
            return 0
        if not confirmed("Apply?", yes=yes):
            click.echo("k8snetc: nothing was changed", err=True)
            return 0
        outcome = apply(
            here.target,
            found.program,
            here.store,
            source=Installed(
                source.paths, found.digest, plan.summary, pods=found.names, install=node.install
            ),
            base=plan.base,
            wait=node.lock_timeout,
            watch=Progress(quiet=source.quiet),
        )
        _report(outcome, verbose=source.verbose, quiet=source.quiet)
    return 0


@dataclass(frozen=True, slots=True)
class _Shown:
    """How a plan is shown."""

    form: str
    full: bool


def _apply_saved(
    source: Source, node: OnNode, plan_file: Path, shown: _Shown, *, yes: bool, dry_run: bool
) -> int:
    if source.paths:
        raise click.UsageError("--plan FILE takes no PATHS: the plan holds the program")
    saved = load(plan_file)
    if node.backend not in (None, saved.backend):
        raise click.UsageError(f"the plan is for {saved.backend}, not {node.backend}")
    refuse_assumed(saved.program)
    with session(OnNode(saved.backend, saved.options, node.state_dir, node.lock_timeout)) as here:
        here.mention("will be undone first")
        plan = here.plan(saved.program, saved.pods, ", ".join(saved.paths))
        if plan.base != saved.base:
            raise StaleError(STALE)
        show(plan, shown.form, full=shown.full)
        if dry_run:
            return 0
        if not confirmed(f"Apply {plan_file}?", yes=yes):
            click.echo("k8snetc: nothing was changed", err=True)
            return 0
        outcome = apply(
            here.target,
            saved.program,
            here.store,
            source=Installed(
                saved.paths, saved.manifests, saved.summary, pods=saved.pods, install=saved.options
            ),
            base=saved.base,
            wait=node.lock_timeout,
            watch=Progress(quiet=source.quiet),
        )
        _report(outcome, verbose=source.verbose, quiet=source.quiet)
    return 0


def _worth_it(here: Session, plan: Plan, program: Program) -> bool:
    """Whether there is anything to install, undo or write down."""
    known = here.known()
    return plan.differs or bool(here.interrupted()) or known is None or known[1] != program


def _report(outcome: Outcome, *, verbose: int, quiet: bool) -> None:
    if quiet:
        return
    receipt = outcome.receipt
    if receipt is None:
        click.echo("Nothing to do: the node runs this already.")
        return
    cut = f", {outcome.cut} kinds of old connections cut" if outcome.cut else ""
    click.echo(
        f"Applied and verified: receipt {receipt.number}, {many(len(outcome.steps), 'step')}, "
        f"{many(outcome.size, 'line')} to the kernel{cut}, {receipt.seconds:.2f} s."
    )
    if verbose:
        for phase, seconds in outcome.timings:
            click.echo(f"  {seconds:6.2f} s {phase}", err=True)


@click.command("rollback")
@node_command
@plan_output
@yes_option
@click.option(
    "--to", "number", type=int, metavar="RECEIPT", help="Go back to this receipt.  [default: the one before]"
)
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def rollback_command(
    *, node: OnNode, form: str, full: bool, yes: bool, number: int | None, dry_run: bool, quiet: bool
) -> int:
    """Go back to what the previous receipt installed; again, to the one before that.

    `status` lists the receipts. What is installed is compiled anew from the program that the receipt kept.
    """
    node = of_what_runs(node)
    nothing = ApplyError("nothing is installed here, so there is nothing to go back to")
    if node.backend is None:
        raise nothing
    with session(node) as here:
        now = here.installed()
        if now is None:
            raise nothing
        if number is None:
            back = receipts.previous(here.store, now[0])
            if back is None:
                raise ApplyError(
                    "there is no earlier receipt to go back to; `k8snetc remove` takes all rules away"
                )
        else:
            back = receipts.load(here.store, number)
        program = receipts.program_of(here.store, back.number)
        here.mention("will be undone first")
        pods = here.pods(back)
        plan = here.plan(program, pods, f"receipt {back.number} of {back.time}")
        show(plan, form, full=full)
        if dry_run:
            return 0
        if not confirmed(f"Roll back to receipt {back.number}?", yes=yes):
            click.echo("k8snetc: nothing was changed", err=True)
            return 0
        outcome = apply(
            here.target,
            program,
            here.store,
            source=Installed(
                back.sources,
                back.manifests,
                f"roll-back to receipt {back.number}",
                back.number,
                pods,
                here.node.install,
            ),
            base=plan.base,
            wait=node.lock_timeout,
            watch=Progress(quiet=quiet),
        )
        _report(outcome, verbose=0, quiet=quiet)
    return 0


def of_what_runs(node: OnNode) -> OnNode:
    """The options of the newest receipt: its back end where none is named, and all others where none is given."""
    from k8snetc.apply.store import open_store

    store = open_store(node.state_dir)
    try:
        now = receipts.newest(store)
    finally:
        store.close()
    if now is None or node.backend not in (None, now.backend):
        return node
    asked = node.install != InstallOptions()
    install = node.install if asked or now.install is None else now.install
    return OnNode(now.backend, install, node.state_dir, node.lock_timeout)


@click.command("remove")
@node_command
@yes_option
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def remove_command(*, node: OnNode, yes: bool, quiet: bool) -> int:
    """Take away everything that is k8snetc's, and leave the node as it was before the first apply.

    Foreign rules stay. Settings (sysctl) get the values that the first apply found. Open connections are left alone.
    """
    with session(of_what_runs(node)) as here:
        live = here.target.observe()
        plan = live_plan(
            here.target,
            Program(),
            live=live,
            before=before_first(here.target, here.store) or live,
            installed=None,
            new="nothing",
        )
        if not plan.changes and not receipts.numbers(here.store) and not here.interrupted():
            click.echo("Nothing to do: nothing of k8snetc is installed.")
            return 0
        if not confirmed(f"Remove all rules of k8snetc ({many(len(plan.changes), 'change')})?", yes=yes):
            click.echo("k8snetc: nothing was changed", err=True)
            return 0
        outcome = remove(here.target, here.store, wait=node.lock_timeout, watch=Progress(quiet=quiet))
        if not quiet:
            click.echo(f"Removed and verified: {many(len(outcome.steps), 'step')}.")
    return 0
