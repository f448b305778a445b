"""`python -m tests.vm`: the virtual machine for people."""

import sys
from pathlib import Path

import click

from tests.vm.kernel import KernelError, kernel
from tests.vm.machine import Vm, VmError, interact


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The small virtual machine of the tests: Debian's kernel, this machine's files (read only), IPVS."""


@main.command()
def build() -> None:
    """Download and unpack the kernel, if the cache lacks it, and say where it is."""
    linux = kernel()
    click.echo(f"{linux.release} in {linux.tree}")


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--timeout", default=600.0, show_default=True, help="Seconds until the command is ended.")
@click.option("--memory", default=2048, show_default=True, help="Memory of the machine in MiB.")
@click.option("--console", is_flag=True, help="Show the kernel's console at the end.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(timeout: float, memory: int, console: bool, command: tuple[str, ...]) -> None:
    """Run COMMAND in a fresh machine, in this folder; the exit status is the command's."""
    with Vm.boot(memory=memory) as vm:
        process = vm.start(command, timeout=timeout, cwd=Path.cwd())
        process.write(None)
        for stream, data in process.output():
            out = sys.stdout if stream == 1 else sys.stderr
            out.buffer.write(data)
            out.flush()
        if console:
            click.echo(vm.console(), err=True)
        if process.timed_out:
            click.echo(f"ended after {timeout:g} s", err=True)
    assert process.code is not None
    sys.exit(process.code if process.code >= 0 else 128 - process.code)


@main.command()
@click.option("--memory", default=2048, show_default=True, help="Memory of the machine in MiB.")
def shell(memory: int) -> None:
    """Open a shell in a fresh machine. It sees changes that you make to files on the host."""
    if not sys.stdin.isatty():
        raise click.UsageError("a shell needs a terminal; for scripts there is `run`")
    with Vm.boot(memory=memory, cache="none") as vm:
        sys.exit(interact(vm, ["bash", "-i"], Path.cwd()))


if __name__ == "__main__":
    try:
        main()
    except (VmError, KernelError) as error:
        click.echo(error, err=True)
        sys.exit(2)
