"""The command `k8snetc lab`: manifests become a cluster of namespaces, and the kernel shows what a back end does to it.

Knows: its options, the order of building, installing, probing and telling. Must not know: how any of these is done.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from k8snetc.backends.registry import NAMES
from k8snetc.compiler.source import Source, manifest_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k8snetc.compiler.manifests import Manifests
    from k8snetc.ir.types import Program
    from k8snetc.lab.cluster import Cluster
    from k8snetc.lab.expect import Predictor
    from k8snetc.lab.outcome import Trial
    from k8snetc.lab.targets import Target
    from k8snetc.lab.topology import Topology

NODE_ERROR = 4
DIFFERENT = 1


def _clean(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    """Remove leftovers and end; needs no manifests."""
    if not value or ctx.resilient_parsing:
        return
    from k8snetc.lab.cluster import clean_leftovers

    removed = clean_leftovers()
    for name in removed:
        click.echo(f"removed {name}")
    if not removed:
        click.echo("nothing is left over")
    ctx.exit()


@click.command("lab")
@manifest_options
@click.option(
    "--backend",
    "-b",
    type=click.Choice(NAMES),
    help="The dataplane to install.  [default: none; plain routing]",
)
@click.option(
    "--iptables",
    "variant",
    type=click.Choice(("auto", "legacy", "nft")),
    default="auto",
    show_default=True,
    help="Which of the two iptables to use.",
)
@click.option(
    "--probe",
    "questions",
    multiple=True,
    metavar="QUESTION",
    help="Try only this, as 'from pod/shop/cart-0 to svc/shop/db:5432/tcp'. May be given several times.",
)
@click.option(
    "--tries",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="How often each probe is made: a balancer chooses anew each time.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.05, 30),
    default=0.4,
    show_default=True,
    help="Seconds of silence after which a probe counts as dropped.",
)
@click.option(
    "--most",
    type=click.IntRange(1),
    default=20_000,
    show_default=True,
    help="With more probes than this, take fewer pods of each node as clients.",
)
@click.option("--hold", is_flag=True, help="Then keep the lab, and say how to get into it, until Ctrl-C.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="How results are printed.",
)
@click.option(
    "--clean",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_clean,
    help="Remove what killed labs left behind, and end.",
)
def lab_command(
    *,
    source: Source,
    backend: str | None,
    variant: str,
    questions: tuple[str, ...],
    tries: int,
    timeout: float,
    most: int,
    hold: bool,
    form: str,
) -> int:
    """Build the cluster of the manifests out of network namespaces and see what real packets do in it.

    Each node, pod and a client outside is a network namespace of this machine; nothing outside of them is touched, and
    all of it is gone when the command ends, however it ends. The back end is installed on every node (or those that
    --node names, separated by commas), every client tries every service, and what happened is compared with what the
    program means. Needs root.

    \b
    Exit codes: 0 all as meant, 1 something else happened, 2 and above errors.
    """
    from k8snetc.backends.common.run import CommandError
    from k8snetc.backends.target import InstallError
    from k8snetc.compiler.pipeline import read
    from k8snetc.compiler.progress import Progress
    from k8snetc.lab.cluster import Cluster
    from k8snetc.lab.expect import Predictor
    from k8snetc.lab.from_manifests import topology_of
    from k8snetc.lab.handle import LabError
    from k8snetc.lab.topology import TopologyError

    manifests = read(source.paths, source.options, assume=source.assume)
    try:
        topology = topology_of(manifests)
        programs = programs_of(source, manifests, topology)
        wanted = _wanted(topology, programs, questions, most // tries)
        progress = Progress(quiet=source.quiet, patience=0)
        with Cluster(topology, with_cgroups=backend == "ebpf") as cluster:
            source.say(_built(topology))
            if backend is not None:
                _install(source, cluster, backend, variant, programs)
            predictor = Predictor(topology, programs if backend else {}, at_sockets=cluster.has_cgroups)
            with progress.shown():
                progress.step(f"{len(wanted)} targets to try, {tries} times each")
                trials = _try(cluster, predictor, wanted, tries, timeout)
            _show(topology, trials, form, assumed=manifests.assumed)
            if hold:
                _hold(cluster)
    except (CommandError, InstallError, LabError, TopologyError) as error:
        click.echo(f"k8snetc lab: {error}", err=True)
        return NODE_ERROR
    return 0 if all(t.good for t in trials) else DIFFERENT


def programs_of(source: Source, manifests: Manifests, topology: Topology) -> dict[str, Program]:
    """The program of each node that is to have one."""
    from k8snetc.compiler.pipeline import compile_manifests

    options = source.options
    if not manifests.nodes:
        # The lab's only node hosts every pod, and has addresses that no manifest gave.
        (node,) = topology.nodes
        if options.node is None and options.node_address is None:
            options = replace(options, node_address=node.addresses)
        return {node.name: compile_manifests(manifests, options).program}
    chosen = (
        [n.strip() for n in options.node.split(",")] if options.node else [n.name for n in topology.nodes]
    )
    return {name: compile_manifests(manifests, replace(options, node=name)).program for name in chosen}


def _wanted(
    topology: Topology, programs: Mapping[str, Program], questions: Sequence[str], most: int
) -> list[tuple[str, Target]]:
    """Who tries what."""
    from k8snetc.lab import targets

    if questions:
        try:
            asked = [targets.ask(topology, programs, q) for q in questions]
        except targets.QuestionError as error:
            raise click.UsageError(str(error)) from None
        return [(client, target) for client, some in asked for target in some]
    what = targets.services(topology, programs)
    if not what or any(p.enforcements for p in programs.values()):
        what += targets.ports(topology)
    who = targets.clients(topology)
    few = targets.thinned(topology, who, max(1, most // max(1, len(what))))
    if len(few) < len(who):
        click.echo(f"k8snetc lab: {len(few)} of {len(who)} clients take part (--most)", err=True)
    return [(client, target) for target in what for client in few]


def _built(topology: Topology) -> str:
    counts = (
        (len(topology.nodes), "node"),
        (len(topology.pods), "pod"),
        (len(topology.clients), "outside client"),
    )
    return "lab: " + ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for n, what in counts)


def _install(
    source: Source, cluster: Cluster, backend: str, variant: str, programs: Mapping[str, Program]
) -> None:
    from k8snetc.backends.target import InstallOptions
    from k8snetc.lab.install import install_program

    for node, program in programs.items():
        titles = install_program(cluster, node, backend, program, InstallOptions(iptables=variant))
        source.say(f"installed {backend} on {node}: {len(titles)} steps")
        for title in titles if source.verbose else ():
            source.say(f"  {title}")


def _try(
    cluster: Cluster,
    predictor: Predictor,
    wanted: Sequence[tuple[str, Target]],
    tries: int,
    timeout: float,
) -> list[Trial]:
    from k8snetc.lab.expect import observe
    from k8snetc.lab.outcome import Trial
    from k8snetc.lab.targets import probes

    planned = [
        (probe, target)
        for client, target in wanted
        for probe in probes(cluster.topology, client, target, timeout)
    ]
    expected = [predictor.predict(probe) for probe, _ in planned]
    results = observe(cluster, [probe for probe, _ in planned], expected, repeat=tries)
    return [
        Trial(probe, target, what, tuple(seen))
        for (probe, target), what, seen in zip(planned, expected, results, strict=True)
    ]


def _show(topology: Topology, trials: Sequence[Trial], form: str, *, assumed: bool) -> None:
    from k8snetc.compiler.output import ASSUMED
    from k8snetc.lab import outcome

    if form == "json":
        import json

        click.echo(json.dumps(outcome.to_data(trials, assumed=assumed), indent=2))
        return
    from k8snetc.lab.table import print_rows

    print_rows(outcome.rows(topology, trials))
    different = [t for t in trials if not t.good]
    for trial in different[:10]:
        for step in trial.expected.steps:
            click.echo(f"  {trial.probe}: {step}")
    count = sum(len(t.results) for t in trials)
    if different:
        click.echo(f"{count} probes; {len(different)} flows are not as the program means")
    else:
        click.echo(f"{count} probes; all as the program means")
    if assumed:
        click.echo(ASSUMED)


def _hold(cluster: Cluster) -> None:
    """Say how to get in, and wait."""
    import shlex

    click.echo("\nThe lab stays until Ctrl-C. To get into it, in another terminal:", err=True)
    for place in cluster.topology.places:
        words = shlex.join(cluster.enter_command(place))
        click.echo(f"  {place + ':':30} {words} bash", err=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        click.echo("removing the lab", err=True)


def _for_nodes(command: click.Command) -> None:
    """--node names several nodes here."""
    for param in command.params:
        if isinstance(param, click.Option) and param.name == "node":
            param.metavar = "NAME[,NAME]"
            param.help = "Install on these nodes only; the others forward as they are.  [default: all]"


_for_nodes(lab_command)
