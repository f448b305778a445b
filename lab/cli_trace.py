"""The command `k8snetc trace`: what becomes of one connection, step by step, without a kernel.

Knows: its options and output. Must not know: how it is worked out: that is the lab's `Predictor`, which asks the
interpreter of each node that the packet crosses.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from k8snetc.compiler.source import Source, manifest_options

if TYPE_CHECKING:
    from k8snetc.lab.expect import Arrival, Expected
    from k8snetc.lab.probe import Probe
    from k8snetc.lab.targets import Target

DENIED = 1


@click.command("trace")
@manifest_options
@click.option(
    "--from",
    "client",
    required=True,
    metavar="PLACE",
    help="Who connects: pod/NAMESPACE/NAME, node/NAME, or client/outside for a machine outside the cluster.",
)
@click.option(
    "--to",
    "target",
    required=True,
    metavar="TARGET",
    help="To what: svc/NAMESPACE/NAME[:PORT], pod/NAMESPACE/NAME:PORT, node/NAME:PORT or IP:PORT, then /tcp, /udp, "
    "/sctp or /icmp. A port may be a service's port name.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="How the answer is printed.",
)
def trace_command(*, source: Source, client: str, target: str, form: str) -> int:
    """Say what becomes of a connection: every place where it may arrive, who says no, and because of which manifest.

    It follows a new connection through the program of each node that it crosses; --node leaves only those named,
    separated by commas. Choosing an endpoint is random, so the answer holds all that are possible. Whether something
    listens where it arrives no manifest can tell for sure; where none says so, the answer does.

    \b
    Exit codes: 0 it always arrives, 1 it is refused or dropped, at least sometimes, 2 and above errors.
    """
    from k8snetc.compiler.output import ASSUMED
    from k8snetc.compiler.pipeline import read
    from k8snetc.lab import targets
    from k8snetc.lab.cli import programs_of
    from k8snetc.lab.expect import Predictor
    from k8snetc.lab.from_manifests import topology_of
    from k8snetc.lab.topology import TopologyError

    manifests = read(source.paths, source.options, assume=source.assume)
    try:
        topology = topology_of(manifests)
        programs = programs_of(source, manifests, topology)
        who, wanted = targets.ask(topology, programs, f"from {client} to {target}")
    except (TopologyError, targets.QuestionError) as error:
        raise click.UsageError(str(error)) from None
    predictor = Predictor(topology, programs, complete=False)
    found = [
        (one, probe, predictor.predict(probe))
        for one in wanted
        for probe in targets.probes(topology, who, one, timeout=1)[:1]
    ]
    if not found:
        raise click.UsageError(f"{client} has no address of the family of {target}")
    if form == "json":
        click.echo(json.dumps([_as_json(*f, assumed=manifests.assumed) for f in found], indent=2))
    else:
        for one, probe, expected in found:
            _print(one, probe, expected)
        if manifests.assumed:
            click.echo(ASSUMED)
    return DENIED if any(expected.outcomes for _, _, expected in found) else 0


def _print(target: Target, probe: Probe, expected: Expected) -> None:
    known = f" ({target.name})" if target.name else ""
    click.echo(f"{probe}{known}")
    for step in expected.steps:
        click.echo(f"  {step}")
    for arrival in sorted(expected.arrivals, key=str):
        click.echo(f"  = {_words(arrival)}")
    for outcome in sorted(o.value for o in expected.outcomes):
        click.echo(f"  = {outcome}")


def _words(arrival: Arrival) -> str:
    from k8snetc.lab.expect import OUTSIDE

    if arrival.server == OUTSIDE:
        return f"sent on, {arrival}: no manifest says whose address that is"
    if not arrival.listens:
        return f"arrives, {arrival}: no manifest says that anything listens there"
    return f"answered by {arrival}"


def _as_json(target: Target, probe: Probe, expected: Expected, *, assumed: bool) -> dict[str, object]:
    return {
        "format_version": 1,
        "assumed": assumed,
        "from": probe.client,
        "to": str(target),
        "service": target.name,
        "steps": list(expected.steps),
        "arrivals": [
            {
                "place": a.server,
                "listens": a.listens,
                "address": str(a.endpoint.address) if a.endpoint else None,
                "port": a.endpoint.port if a.endpoint else None,
                "source": str(a.source) if a.source else None,
            }
            for a in sorted(expected.arrivals, key=str)
        ],
        "refusals": sorted(o.value for o in expected.outcomes),
    }
