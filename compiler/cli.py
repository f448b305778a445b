"""The command line.

Knows commands, flags and exit codes. Must not know how anything is done: it calls the pipeline, which is imported
only by the command that needs it, so that start-up stays quick.
"""

import click


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    """Print the installed version; reading package metadata costs time, so only when asked."""
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"k8snetc {version('k8snetc')}")
    ctx.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Compile Kubernetes Services and NetworkPolicies into one node's dataplane."""
