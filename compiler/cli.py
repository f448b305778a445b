"""The command line: which commands there are, and what each way to end means.

Knows: the commands' names and one line of help each, exit codes, how errors are shown. Must not know how
anything is done: a command's module is imported only when that command runs, so that start-up stays quick.

Exit codes: 0 done (or nothing differs); 1 only where a command says so ("differs", "denied"); 2 bad input
or usage; 3 the back end can't express it; 4 the node (kernel, state) said no, 5 and 6
see `apply`; 70 a defect of k8snetc; 130 interrupted.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from typing import TextIO

import click

OK, DIFFERS, BAD_INPUT, UNSUPPORTED, NODE_ERROR, DEFECT, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130

# name: (module, attribute, one line of help); in the order of `k8snetc --help`.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "compile": (
        "k8snetc.compiler.cli_compile",
        "compile_command",
        "Manifests to the text that a dataplane reads.",
    ),
    "check": (
        "k8snetc.compiler.cli_compile",
        "check_command",
        "Check manifests, or compare with golden files.",
    ),
    "lint": (
        "k8snetc.compiler.cli_lint",
        "lint_command",
        "Warn of what is valid in manifests and probably not meant.",
    ),
    "diff": (
        "k8snetc.apply.cli_show",
        "diff_command",
        "What would change, on the node or between manifests.",
    ),
    "apply": ("k8snetc.apply.cli", "apply_command", "Make this node run what the manifests say."),
    "verify": ("k8snetc.apply.cli_show", "verify_command", "Check that the node runs what it should."),
    "status": ("k8snetc.apply.cli_show", "status_command", "What is installed on this node."),
    "monitor": ("k8snetc.apply.cli_monitor", "monitor_command", "Packets that policy denies, as it happens."),
    "rollback": ("k8snetc.apply.cli", "rollback_command", "Go back to what was installed before."),
    "gc": ("k8snetc.apply.cli_gc", "gc_command", "Collect endpoints that have left and are idle (IPVS)."),
    "remove": ("k8snetc.apply.cli", "remove_command", "Leave this node as it was before the first apply."),
    "trace": (
        "k8snetc.lab.cli_trace",
        "trace_command",
        "What becomes of one connection, and why. No kernel needed.",
    ),
    "lab": (
        "k8snetc.lab.cli",
        "lab_command",
        "Try it on real packets, in a cluster of network namespaces.",
    ),
}


class ClosedPipeError(Exception):
    """Whoever read our output has stopped."""


class Commands(click.Group):
    """A group that imports a command only to run it or to show its help."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as e:
            raise ClosedPipeError from e  # click would exit with 1, which means "differs"

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
            ctx.fail(f"no such command {name!r}; {hint}")
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    """Print the installed version; reading package metadata costs time, so only when asked."""
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"k8snetc {version('k8snetc')}")
    ctx.exit()


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Compile Kubernetes Services and NetworkPolicies into one node's dataplane."""


def run() -> int:
    """Run the command line; the exit code. What went wrong is said on stderr; no exception ends in exit code 1."""
    code = _run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _closed_pipe()
    except OSError as e:
        code = _failed(e)
        _drop(sys.stdout)
    with suppress(OSError):
        sys.stderr.flush()
        return code
    _drop(sys.stderr)
    return code


def _run() -> int:
    try:
        code = cli.main(prog_name="k8snetc", standalone_mode=False)
        return code if isinstance(code, int) else OK
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.ClickException as e:
        with suppress(OSError):
            e.show()
        return BAD_INPUT
    except (KeyboardInterrupt, click.Abort):
        _say("k8snetc: interrupted")
        return INTERRUPTED
    except ClosedPipeError:
        return _closed_pipe()
    except Exception as e:  # noqa: BLE001 - the last handler: known failures are told, the rest is our defect
        return _failed(e)


def _failed(error: Exception) -> int:
    """Say what went wrong; the imports are for errors only."""
    from k8snetc.apply.errors import ApplyError
    from k8snetc.backends.base import UnsupportedError
    from k8snetc.backends.common.run import CommandError
    from k8snetc.backends.target import InstallError
    from k8snetc.compiler.diagnostics import InputError

    match error:
        case InputError():
            for diagnostic in error.diagnostics:
                _say(str(diagnostic))
            count = len(error.diagnostics)
            _say(f"k8snetc: {count} error{'s' if count != 1 else ''}; nothing was written")
            return BAD_INPUT
        case UnsupportedError():
            for gap in error.gaps:
                place = f"{gap.origin.file}:{gap.origin.line}: " if gap.origin else ""
                _say(f"{place}{error.backend} can't do this: {gap.what}; {gap.hint}")
            _say(f"k8snetc: {error}; nothing was written")
            return UNSUPPORTED
        case ApplyError():
            _say(f"k8snetc: {error}")
            return error.exit_code
        case CommandError() | InstallError():
            _say(f"k8snetc: {error}")
            return NODE_ERROR
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            _say(f"k8snetc: {where}{error.strerror or error}")
            return BAD_INPUT
        case _:
            import traceback

            _say("".join(traceback.format_exception(error)).rstrip())
            _say("k8snetc: this is a defect of k8snetc; please report it with the lines above")
            return DEFECT


def _say(text: str) -> None:
    """To standard error, if it is still there: a terminal that was closed must not change the exit code."""
    with suppress(OSError):
        click.echo(text, err=True)


def _closed_pipe() -> int:
    """Whoever read our output has stopped (`| head`): no message, and none from the interpreter's exit either."""
    _drop(sys.stdout)
    return 141  # what a shell shows for SIGPIPE


def _drop(stream: TextIO) -> None:
    """What a stream can not take goes nowhere: else the interpreter tries again at its exit, and ends in 120."""
    import os

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
