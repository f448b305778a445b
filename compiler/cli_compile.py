"""The commands `compile` and `check`: manifests to artifacts on stdout, in a folder, against golden files.

Knows: their options and output. Must not know: how manifests become a program (`pipeline`) or how a back
end writes it.
"""

from __future__ import annotations

import os
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click

from k8snetc.backends.base import EmitOptions
from k8snetc.backends.registry import NAMES
from k8snetc.compiler.source import EBPF_OPTIONS, IPVS_OPTIONS, Command, manifest_options

if TYPE_CHECKING:
    from k8snetc.backends.base import Artifact
    from k8snetc.compiler.pipeline import Compiled, Watch
    from k8snetc.compiler.source import Source
    from k8snetc.ir.types import Program


def artifact_options(command: Command) -> Command:
    """Which back end, and how its text is written; the command gets `backend` and `emit: EmitOptions`."""

    @wraps(command)
    def wrapped(
        *, comments: bool, ipvs_scheduler: str, ipvs_strict_arp: bool, ebpf_counters: bool, **kwargs: object
    ) -> object:
        emit = EmitOptions(comments, ipvs_scheduler, ipvs_strict_arp, ebpf_counters)
        return command(emit=emit, **kwargs)

    decorated: Command = wrapped
    for option in reversed(
        (
            click.option("--backend", "-b", type=click.Choice(NAMES), help="The dataplane to compile for."),
            click.option(
                "--comments/--no-comments",
                default=True,
                show_default=True,
                help="Let each rule carry the manifest object it comes from, where the target has comments.",
            ),
            *IPVS_OPTIONS,
            *EBPF_OPTIONS,
        )
    ):
        decorated = option(decorated)
    return decorated


@click.command("compile")
@manifest_options
@artifact_options
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write files into DIR (made if needed) instead of printing.",
)
@click.option(
    "--object",
    "as_object",
    is_flag=True,
    help="Also build the BPF object, with clang, into the folder of --output. For the ebpf back end.",
)
@click.option("--emit-ir", is_flag=True, help="Print the optimised program itself; needs no --backend.")
@click.option(
    "--print-between-passes",
    is_flag=True,
    help="Print the program as lowered, and after each pass that changed it, on stderr.",
)
def compile_command(
    *,
    source: Source,
    backend: str | None,
    emit: EmitOptions,
    output: Path | None,
    as_object: bool,
    emit_ir: bool,
    print_between_passes: bool,
) -> None:
    """Compile manifests to what one node's dataplane reads.

    PATHS are files, folders (searched for .yaml, .yml and .json), or - for standard input. One document is
    printed as it is, several after a line that names each. Nothing is installed, and no privileges are needed.
    """
    if backend is None and not emit_ir and not print_between_passes:
        raise click.UsageError(
            f"name the dataplane: --backend {'|'.join(NAMES)}; or look at the IR: --emit-ir"
        )
    if as_object and (backend != "ebpf" or output is None):
        raise click.UsageError("--object builds what the ebpf back end makes, into a folder: -b ebpf -o DIR")
    compiled = source.compile(_printer() if print_between_passes else None)
    artifacts = _artifacts(compiled, backend, emit, quiet=source.quiet) if backend else ()
    if emit_ir:
        from k8snetc.backends.base import Artifact
        from k8snetc.ir.text import text_of

        artifacts = (Artifact("program.ir", text_of(compiled.program)), *artifacts)
    if output is None:
        _print(artifacts)
        return
    from k8snetc.compiler.output import write

    binaries = _objects(artifacts) if as_object else {}
    write(output, artifacts, binaries)
    if not source.quiet:
        for artifact in artifacts:
            click.echo(f"wrote {output / artifact.name}: {artifact.text.count(chr(10))} lines", err=True)
        for name, content in binaries.items():
            click.echo(f"wrote {output / name}: {len(content)} bytes", err=True)


def _objects(artifacts: tuple[Artifact, ...]) -> dict[str, bytes]:
    """What clang makes of the artifacts that are C, by name. Raises `BuildError`."""
    from k8snetc.backends.ebpf.build import build

    sources = {a.name: a.text for a in artifacts if a.name.endswith(".bpf.c")}
    return {f"{name.removesuffix('.c')}.o": build(text) for name, text in sources.items()}


def _print(artifacts: tuple[Artifact, ...]) -> None:
    from k8snetc.compiler.output import stream

    if artifacts:
        click.echo(stream(artifacts), nl=False)


def _printer() -> Watch:
    from k8snetc.ir.text import text_of

    last = ""

    def watch(name: str, program: Program) -> None:
        nonlocal last
        text = text_of(program)
        click.echo(f"# ---- after {name}{': unchanged' if text == last else ''} ----", err=True)
        if text != last:
            click.echo(text, err=True, nl=False)
        last = text

    return watch


def _artifacts(compiled: Compiled, backend: str, emit: EmitOptions, *, quiet: bool) -> tuple[Artifact, ...]:
    from k8snetc.backends.registry import load
    from k8snetc.compiler.output import marked_assumed
    from k8snetc.compiler.pipeline import no_collector
    from k8snetc.compiler.progress import Progress

    progress = Progress(quiet=quiet)
    with progress.shown(), no_collector():
        progress.step(f"emit for {backend}")
        artifacts = load(backend).compile(compiled.program, emit)
    return marked_assumed(artifacts) if compiled.program.assumed else artifacts


@click.command("check")
@manifest_options
@artifact_options
@click.option(
    "--golden",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Compare with the files in DIR, which hold the artifacts as they should be.",
)
@click.option("--update", is_flag=True, help="Write what was compiled into the golden folder.")
def check_command(
    *, source: Source, backend: str | None, emit: EmitOptions, golden: Path | None, update: bool
) -> int:
    """Check manifests; with --golden compare what they compile to with files kept in Git.

    \b
    Exit codes: 0 good (or equal), 1 the golden files differ, 2 and above errors.
    """
    if update and golden is None:
        raise click.UsageError("--update needs to know where: --golden DIR")
    if golden is not None and backend is None:
        raise click.UsageError(f"name the dataplane of the golden files: --backend {'|'.join(NAMES)}")
    compiled = source.compile(None)
    artifacts = _artifacts(compiled, backend, emit, quiet=source.quiet) if backend else ()
    if golden is None:
        if not source.quiet:
            program = compiled.program
            click.echo(
                f"good: {len(program.frontends)} frontends, {len(program.balancers)} balancers, "
                f"{len(program.enforcements)} enforcements"
            )
        return 0
    return _compare(source, artifacts, golden, update=update)


def _compare(source: Source, artifacts: tuple[Artifact, ...], golden: Path, *, update: bool) -> int:
    from k8snetc.compiler.output import differences, write

    if update:
        write(golden, artifacts)
    elif not golden.is_dir():
        raise click.UsageError(f"{golden} is no folder; make it and its files with --update")
    found = list(differences(golden, artifacts))
    for text in found:
        click.echo(text, nl=False)
    number = f"{len(found)} file{'' if len(found) == 1 else 's'}"
    if found and update:
        what = (
            "holds a file that is no artifact" if len(found) == 1 else f"holds {number} that are no artifacts"
        )
        click.echo(f"k8snetc: {golden}{os.sep} {what} (any more); remove what is shown above", err=True)
    elif found:
        click.echo(
            f"k8snetc: {number} of {golden}{os.sep} differ{'s' if len(found) == 1 else ''} from what is compiled; "
            "if that is meant, run again with --update",
            err=True,
        )
    elif not source.quiet:
        verb = "written to" if update else "equal to those in"
        count = f"{len(artifacts)} file{'' if len(artifacts) == 1 else 's'}"
        click.echo(f"{count} {verb} {golden}{os.sep}")
    return 1 if found else 0
