"""The command `lint`: warnings about manifests, with file and line.

Knows: its options, output and exit codes. Must not know: what is worth a warning (`k8snetc.compiler.lint`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING

import click

from k8snetc.backends.registry import NAMES
from k8snetc.compiler.cli import BAD_INPUT, OK
from k8snetc.compiler.source import Command, manifest_options

if TYPE_CHECKING:
    from k8snetc.compiler.diagnostics import Diagnostic, Severity
    from k8snetc.compiler.lint import Finding
    from k8snetc.compiler.source import Source

FORMAT_VERSION = 1
DOUBTFUL = "doubtful"
"""The rule of warnings that come with reading the manifests, whatever the command."""


def _rules(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    """List the rules and stop."""
    if value:
        from k8snetc.compiler.lint import RULES

        for name, what in RULES.items():
            click.echo(f"{name:20} {what}")
        sys.exit(OK)


def lint_options(command: Command) -> Command:
    """What is checked, and how it is told."""
    for option in reversed(
        (
            click.option("--strict", is_flag=True, help="Warnings are errors: exit code 2 if there are any."),
            click.option(
                "--format",
                "form",
                type=click.Choice(["text", "json"]),
                default="text",
                show_default=True,
                help="Lines `file:line: ...` for people and editors, or one JSON object.",
            ),
            click.option(
                "--ignore",
                multiple=True,
                metavar="RULE",
                help="Leave a rule out (repeatable); --rules lists them.",
            ),
            click.option(
                "--backend", "-b", type=click.Choice(NAMES), help="Also warn of what this dataplane can't do."
            ),
            click.option(
                "--rules",
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_rules,
                help="List the rules.",
            ),
        )
    ):
        command = option(command)
    return command


@click.command("lint")
@manifest_options
@lint_options
def lint_command(
    *, source: Source, strict: bool, form: str, ignore: tuple[str, ...], backend: str | None
) -> int:
    """Warn of what is valid in manifests and probably not meant.

    PATHS are files, folders, or - for standard input. Nothing is compiled and no addresses are needed.

    \b
    Exit codes: 0 no warnings, or only warnings; 2 errors, with --strict also warnings.
    """
    from k8snetc.compiler.diagnostics import InputError, Severity
    from k8snetc.compiler.lint import RULES, lint
    from k8snetc.compiler.manifests import read

    unknown = sorted(set(ignore) - set(RULES))
    if unknown:
        raise click.UsageError(f"no such rule: {', '.join(unknown)}; --rules lists them")
    data = sys.stdin.buffer.read() if "-" in source.paths else b""
    try:
        manifests = read(source.paths, BytesIO(data))
    except InputError as error:
        if form != "json":
            raise
        click.echo(_json([_plain(d) for d in error.diagnostics]))
        return BAD_INPUT
    found = lint(manifests, backend=backend, localhost_nodeports=bool(source.options.localhost_nodeports))
    found = [f for f in found if f.rule not in ignore]
    severity = Severity.ERROR if strict else Severity.WARNING
    told: list[tuple[Diagnostic, Finding | None]] = [
        *((replace(w, severity=severity), None) for w in manifests.warnings if DOUBTFUL not in ignore),
        *zip(_located(found, source.paths, data, severity), found, strict=True),
    ]
    if form == "json":
        click.echo(_json(_detailed(d, f) if f else {**_plain(d), "rule": DOUBTFUL} for d, f in told))
    else:
        for diagnostic, finding in told:
            click.echo(f"{diagnostic} [{finding.rule if finding else DOUBTFUL}]")
        word = "error" if strict else "warning"
        source.say(
            f"k8snetc: {len(told)} {word}{'' if len(told) == 1 else 's'}" if told else "k8snetc: no warnings"
        )
        if not (manifests.pods or manifests.workloads):
            source.say("k8snetc: no pods and no workloads here, so what they decide was not checked")
    return BAD_INPUT if told and strict else OK


def _located(
    found: Sequence[Finding], paths: Sequence[str], data: bytes, severity: Severity
) -> list[Diagnostic]:
    """Each finding with the line of its field: the files are read again, as models know only their first."""
    from k8snetc.compiler.diagnostics import Diagnostic
    from k8snetc.compiler.load import load

    wanted: dict[tuple[str, int], list[int]] = {}
    for at, finding in enumerate(found):
        wanted.setdefault((finding.origin.file, finding.origin.line), []).append(at)
    lines = {at: finding.origin.line for at, finding in enumerate(found)}
    for document in load(paths, BytesIO(data)) if found else ():
        for at in wanted.get((document.file, document.line), ()):
            lines[at] = document.locate(found[at].place)
    return [Diagnostic(f.origin.file, lines[at], str(f), f.fix, severity) for at, f in enumerate(found)]


def _plain(diagnostic: Diagnostic) -> dict[str, object]:
    return {
        "file": diagnostic.file,
        "line": diagnostic.line,
        "severity": diagnostic.severity.value,
        "what": diagnostic.what,
        "fix": diagnostic.fix,
    }


def _detailed(diagnostic: Diagnostic, finding: Finding) -> dict[str, object]:
    from k8snetc.compiler.explain import path_text

    origin = finding.origin
    return {
        **_plain(diagnostic),
        "rule": finding.rule,
        "kind": origin.kind,
        "namespace": origin.namespace,
        "name": origin.name,
        "field": path_text(finding.place),
        "what": finding.what,
    }


def _json(findings: Iterable[dict[str, object]]) -> str:
    import json

    return json.dumps(
        {"format_version": FORMAT_VERSION, "findings": list(findings)}, indent=2, ensure_ascii=False
    )
