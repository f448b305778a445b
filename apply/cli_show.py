"""The commands that only look: `diff`, `verify`, `status`.

Knows: their options and output. Must not change anything, on the node or in the state directory.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from k8snetc.apply import receipts
from k8snetc.apply.cli import of_what_runs, plan_output, show
from k8snetc.apply.connectivity import Effect, effects
from k8snetc.apply.document import SavedPlan, document, save, schema
from k8snetc.apply.errors import ApplyError
from k8snetc.apply.manifests import Read, read
from k8snetc.apply.options import OnNode, node_command
from k8snetc.apply.plan import Plan, many, set_plan
from k8snetc.apply.receipts import Receipt
from k8snetc.apply.render import clean
from k8snetc.apply.session import session
from k8snetc.compiler.source import Source, optional_manifest_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k8snetc.backends.base import Artifact
    from k8snetc.backends.target import Section


@click.command("diff")
@optional_manifest_options
@node_command
@plan_output
@click.option(
    "--from",
    "old",
    multiple=True,
    metavar="PATH",
    help="Compare with these manifests instead of the node; may be given again.",
)
@click.option("--live", is_flag=True, help="Compare with the node, also if two PATHS are given.")
@click.option(
    "--golden",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Compare with golden files (`check --golden --update` writes them).",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Save the plan for `apply --plan`.",
)
@click.option(
    "--schema", "print_schema", is_flag=True, help="Print the JSON schema of --format json and exit."
)
def diff_command(
    *,
    source: Source,
    node: OnNode,
    form: str,
    full: bool,
    old: tuple[str, ...],
    live: bool,
    golden: Path | None,
    out: Path | None,
    print_schema: bool,
) -> int:
    """Show what would change: for connections, and in rules. Nothing is changed.

    \b
    diff PATHS --backend B              the live node against the manifests
    diff OLD NEW                        two sets of manifests, folders or git:REV:PATH
    diff --from OLD... NEW...           the same, of several paths each
    diff PATHS --backend B --golden DIR golden files against what the manifests compile to

    \b
    Exit codes: 0 no changes, 1 changes, 2 and above errors.
    """
    if print_schema:
        click.echo(schema().decode(), nl=False)
        return 0
    if not source.paths:
        raise click.UsageError("name manifests")
    if golden is not None:
        plan = _golden(source, node, golden)
    elif old or (len(source.paths) == 2 and not live):
        before, after = (old, source.paths) if old else (source.paths[:1], source.paths[1:])
        plan = _sets(source, node, before, after)
    elif len(source.paths) > 2 and not live:
        raise click.UsageError("more than two PATHS: say --live to compare them with the node, or --from OLD")
    else:
        return _live(source, node, form, out, full=full)
    if out is not None:
        raise click.UsageError("--out saves a plan for a node; it needs the live node, not files")
    show(plan, form, full=full)
    return int(plan.differs)


def _live(source: Source, node: OnNode, form: str, out: Path | None, *, full: bool) -> int:
    found = read(source)
    with session(node) as here:
        here.mention("is not undone yet; the next apply does that")
        plan = here.plan(found.program, found.names, ", ".join(source.paths))
    show(plan, form, full=full)
    if out is not None:
        save(
            out,
            plan,
            SavedPlan(
                plan.backend,
                plan.base,
                found.program,
                node.install,
                source.paths,
                found.digest,
                plan.summary,
                found.names,
            ),
        )
        source.say(f"saved the plan: k8snetc apply --plan {out}")
    return int(plan.differs)


def _sets(source: Source, node: OnNode, before: tuple[str, ...], after: tuple[str, ...]) -> Plan:
    old, new = (read(replace(source, paths=paths)) for paths in (before, after))
    target = node.target() if node.backend is not None else None
    return set_plan(
        old.program,
        new.program,
        names=(old.names, new.names),
        target=target,
        labels=(", ".join(before), ", ".join(after)),
    )


def _golden(source: Source, node: OnNode, golden: Path) -> Plan:
    from k8snetc.backends.registry import load
    from k8snetc.compiler.output import differences

    if node.backend is None:
        raise click.UsageError("name the dataplane of the golden files: --backend")
    if not golden.is_dir():
        raise click.UsageError(f"{golden} is no folder; `k8snetc check --golden {golden} --update` makes it")
    found = read(source)
    artifacts = load(node.backend).compile(found.program, node.install.emit)
    kept = golden / "program.ir"
    with_ir: tuple[Artifact, ...] = artifacts
    if kept.is_file():
        with_ir = (*artifacts, _ir(found))
    return Plan(
        str(golden),
        ", ".join(source.paths),
        node.backend,
        found.program.node.name or "",
        effects=_effects_since(kept, found),
        texts=tuple(differences(golden, with_ir)),
        assumed=found.program.assumed,
    )


def _ir(found: Read) -> Artifact:
    from k8snetc.backends.base import Artifact
    from k8snetc.ir.text import text_of

    return Artifact("program.ir", text_of(found.program))


def _effects_since(kept: Path, found: Read) -> tuple[Effect, ...] | None:
    """What changes for connections, if the golden folder holds the program too (`compile --emit-ir`)."""
    if not kept.is_file():
        return None
    from k8snetc.ir.parse import parse

    return effects(parse(kept.read_text("utf-8")), found.program, found.names)


_NOTHING = "nothing is installed here; name the manifests to compare with"


@click.command("verify")
@optional_manifest_options
@node_command
@plan_output
def verify_command(*, source: Source, node: OnNode, form: str, full: bool) -> int:
    """Check that this node runs what the manifests say, or without PATHS what was installed last.

    Names every rule, set and setting that is gone, added or changed.

    \b
    Exit codes: 0 all is there, 1 the node differs, 2 and above errors.
    """
    if not source.paths:
        node = of_what_runs(node)
        if node.backend is None:
            raise ApplyError(_NOTHING)
    with session(node) as here:
        here.mention("is not undone yet; the next apply does that")
        if source.paths:
            if source.options.node is None:
                raise click.UsageError("name the node that this is: --node NAME")
            found = read(source)
            plan = here.plan(found.program, found.names, ", ".join(source.paths), as_is=True)
        else:
            now = here.installed()
            if now is None:
                raise ApplyError(_NOTHING)
            plan = here.plan(now[1], here.pods(now[0]), f"receipt {now[0].number}", as_is=True)
    # The node is looked at against what it should be, so what an apply would add is what is missing.
    wrong = replace(plan, effects=(), drift=())
    if form != "text" or not wrong.differs:
        show(wrong, form, full=full)
    else:
        for warning in plan.warnings:
            click.echo(f"warning: {clean(warning)}", err=True)
        for change in plan.changes:
            for line in change.added:
                click.echo(f"missing: {clean(change.where)}: {clean(line)}")
            for line in change.removed:
                click.echo(f"not ours to be there: {clean(change.where)}: {clean(line)}")
            if not change.added and not change.removed:
                click.echo(f"differs: {clean(change.where)}")
        click.echo(f"The node differs from {plan.new} in {places(plan)}; `k8snetc apply` repairs it.")
    return int(bool(plan.changes))


@click.command("status")
@node_command
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How it is printed.",
)
def status_command(*, node: OnNode, form: str) -> int:
    """Show what is installed here: from which manifests, when, by which version, and whether it is still there.

    \b
    Exit codes: 0 what was installed is there, 1 nothing is installed or the node differs, 2 and above errors.
    """
    chosen = of_what_runs(node)
    if chosen.backend is None:
        _nothing(form)
        return 1
    with session(chosen) as here:
        now = here.installed()
        left = here.interrupted()
        if now is None:
            _nothing(form)
            return 1
        receipt, program = now
        plan = here.plan(program, here.pods(receipt), f"receipt {receipt.number}", as_is=True)
        history = [receipts.load(here.store, n) for n in receipts.numbers(here.store)]
        details = here.target.details(program)
    if form == "json":
        data = {
            "format_version": 1,
            "installed": asdict(receipt),
            "intact": not plan.changes,
            "drift": document(plan)["rules"],
            "interrupted": left,
            "receipts": [asdict(r) for r in history],
            "warnings": list(plan.warnings),
            "details": {s.name: [dict(zip(s.columns, row, strict=True)) for row in s.rows] for s in details},
        }
        click.echo(json.dumps(data, indent=2))
    else:
        _print_status(receipt, plan, left, history)
        for section in details:
            click.echo("\n".join(_table(section)))
    return int(bool(plan.changes) or bool(left))


def _table(section: Section) -> Iterator[str]:
    """A section for people: its name, then columns; numbers to the right."""
    yield section.name
    if not section.rows:
        yield "  (none)"
        return
    rows = [section.columns, *section.rows]
    texts = [[f"{c:,}" if isinstance(c, int) else clean(c or "") for c in row] for row in rows]
    widths = [max(len(t) for t in column) for column in zip(*texts, strict=True)]
    right = [all(isinstance(row[i], int) or not row[i] for row in section.rows) for i in range(len(widths))]
    for row in texts:
        cells = (
            text.rjust(w) if number else text.ljust(w)
            for text, w, number in zip(row, widths, right, strict=True)
        )
        yield ("  " + "  ".join(cells)).rstrip()


def places(plan: Plan) -> str:
    """In how many places a node differs."""
    return many(len(plan.changes), "place")


def _nothing(form: str) -> None:
    if form == "json":
        click.echo(json.dumps({"format_version": 1, "installed": None}))
    else:
        click.echo("Nothing is installed here by k8snetc.")


def _print_status(receipt: Receipt, plan: Plan, left: str, history: list[Receipt]) -> None:
    rows = [
        ("back end", receipt.backend),
        ("node", receipt.node or "(hosts every pod)"),
        ("receipt", f"{receipt.number}, {receipt.time}"),
        ("manifests", clean(", ".join(receipt.sources)) or "(unknown)"),
        ("digest", receipt.manifests or f"{receipt.program} (of the program)"),
        ("version", receipt.version),
        ("change", receipt.summary or "(unknown)"),
        (
            "state",
            "as installed" if not plan.changes else f"differs in {places(plan)} (see verify)",
        ),
    ]
    if left:
        rows.append(("interrupted", f"{clean(left)}; the next apply undoes it"))
    for name, value in rows:
        click.echo(f"{name:12} {value}")
    if len(history) > 1:
        click.echo("receipts")
        for one in history:
            mark = "*" if one.number == receipt.number else " "
            back = f" (roll-back to {one.restores})" if one.restores is not None else ""
            click.echo(
                f"{mark} {one.number:5} {one.time} {one.backend} {clean(', '.join(one.sources))}{back}"
            )
    for warning in plan.warnings:
        click.echo(f"warning: {clean(warning)}", err=True)
