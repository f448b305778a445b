"""How fast policy is compiled, and how large the result is.

    python -m bench.policy                  both sizes that have bars, and what was asked beside what was measured
    python -m bench.policy --quick          250 policies x 10,000 pods alone
    python -m bench.policy [--namespaces 1000 --policies 10000 --pods 50000] [--dual-stack]      another size

The cluster looks as real ones do: the pods of a namespace belong to a few applications and are spread over all
nodes; a policy selects one application (every tenth: the whole namespace) and admits some of: other applications of
its namespace, an application of another namespace, a monitoring namespace to a named port, blocks of addresses; every
tenth also isolates egress. `--wide`: peers are the applications of a whole team (twenty namespaces), and every fourth
policy isolates egress, to named ports, which is what needs the most set elements. Deterministic.

Bars (2 cores): 1,000 namespaces, 10,000 policies and 50,000 pods, 110 of them on the node, under 15 s and 1.5 GB, with
under 5,000 lines for the node; 250 policies over 10,000 pods under 3 s. Measured is the whole way from the file to the
text of iptables; on a busy machine the processor's time says more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from bench import _bars
from bench._bars import Bar

PODS_PER_NODE = 110
APPLICATIONS = 8
Object = dict[str, object]


@dataclass(frozen=True, slots=True)
class Size:
    """How large a cluster is, and its bars: seconds, megabytes, lines for a node (None: not asked)."""

    namespaces: int
    policies: int
    pods: int
    bars: tuple[float | None, float | None, float | None] = (None, None, None)


LARGE = Size(1000, 10_000, 50_000, (15, 1500, 4999))
QUICK = Size(100, 250, 10_000, (3, None, None))


def main() -> None:
    """Generate, compile in a process of its own, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--namespaces", type=int, default=LARGE.namespaces)
    parser.add_argument("--policies", type=int, default=LARGE.policies)
    parser.add_argument("--pods", type=int, default=LARGE.pods)
    parser.add_argument("--dual-stack", action="store_true")
    parser.add_argument(
        "--wide", action="store_true", help="peers in twenty namespaces, more and named egress"
    )
    parser.add_argument("--all-nodes", action="store_true", help="the program of a node that hosts every pod")
    parser.add_argument("--quick", action="store_true", help="250 policies x 10,000 pods")
    parser.add_argument("--measure", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--keep", metavar="FILE", help="write the cluster to FILE and stop")
    args = parser.parse_args()
    size = Size(args.namespaces, args.policies, args.pods)
    if args.measure:
        measure(Path(args.measure), None if args.all_nodes else "worker-0007", size)
        return
    other = args.dual_stack or args.wide or args.all_nodes or args.keep
    sizes = [QUICK] if args.quick else [LARGE, QUICK] if _same(size, LARGE) and not other else [size]
    with tempfile.TemporaryDirectory(prefix="k8snetc-bench-") as folder:
        alone = None if _bars.FILE in os.environ else Path(folder) / "bars"
        if alone is not None:
            alone.touch()
            os.environ[_bars.FILE] = str(alone)
        for one in sizes:
            _run(one, args, Path(args.keep or Path(folder) / "cluster.json"))
        if alone is not None and not args.keep:
            print(_bars.table(_bars.read(alone)))


def _same(one: Size, other: Size) -> bool:
    return (one.namespaces, one.policies, one.pods) == (other.namespaces, other.policies, other.pods)


def _run(size: Size, args: argparse.Namespace, path: Path) -> None:
    counts = (size.namespaces, size.policies, size.pods)
    with path.open("w", encoding="utf-8") as out:
        items = list(cluster(*counts, dual_stack=args.dual_stack, wide=args.wide))
        json.dump({"apiVersion": "v1", "kind": "List", "items": items}, out)
    print(
        f"{counts[0]} namespaces, {counts[1]} policies, {counts[2]} pods"
        f"{', dual-stack' if args.dual_stack else ''}; {path.stat().st_size / 1e6:.0f} MB of JSON",
        flush=True,
    )
    if args.keep:
        return
    words = ["--namespaces", str(counts[0]), "--policies", str(counts[1]), "--pods", str(counts[2])]
    words += ["--all-nodes"] * args.all_nodes + ["--wide"] * args.wide + ["--dual-stack"] * args.dual_stack
    subprocess.run([sys.executable, "-m", "bench.policy", "--measure", str(path), *words], check=True)


def measure(path: Path, node: str | None, size: Size) -> None:
    """Compile in this process; print the time of each step, the peak of memory and the size of the result."""
    from k8snetc.backends.base import EmitOptions
    from k8snetc.backends.registry import load
    from k8snetc.compiler.options import ContextOptions
    from k8snetc.compiler.pipeline import Timings, compile_program

    timings = Timings()
    start, begun = time.perf_counter(), time.process_time()
    compiled = compile_program([str(path)], ContextOptions(node=node), timings=timings)
    with timings.step("emit iptables"):
        artifacts = load("iptables").compile(compiled.program, EmitOptions())
    total, processor = time.perf_counter() - start, time.process_time() - begun
    for step, seconds in timings.steps.items():
        print(f"  {step:14} {seconds:7.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = {a.name: a.text.count("\n") for a in artifacts}
    program = compiled.program
    pods = {p for e in program.enforcements for p in e.pods}
    print(f"  {'total':14} {total:7.2f} s, {processor:.2f} s of the processor, {peak:.0f} MB at the peak")
    print(
        f"  {len(pods)} pods of {node or 'all nodes'} in {len(program.enforcements)} enforcements, "
        f"{sum(len(e.rules) for e in program.enforcements)} rules, {len(program.sets)} sets with "
        f"{sum(len(s.prefixes) for s in program.sets)} prefixes; iptables: {sum(lines.values())} lines {lines}"
    )
    longest, memory, most = next((s.bars for s in (LARGE, QUICK) if _same(s, size)), size.bars)
    title = f"{size.policies:,} policies, {size.pods:,} pods"
    _bars.show(
        [
            Bar(f"{title}: compiled", total, "s", longest),
            Bar(f"{title}: of which the processor worked", processor, "s"),
            Bar(f"{title}: memory at the peak", peak, "MB", memory),
            Bar(f"{title}: lines for the node", sum(lines.values()), "lines", most),
        ]
    )


# --- the cluster ----------------------------------------------------------------------------------------------


def cluster(
    namespaces: int, policies: int, pods: int, *, dual_stack: bool = False, wide: bool = False
) -> Iterator[Object]:
    """Nodes, namespaces, pods and policies."""
    pick = random.Random(namespaces * 7 + policies * 3 + pods)
    nodes = -(-pods // PODS_PER_NODE)
    for i in range(nodes):
        yield _node(i, dual_stack=dual_stack)
    for i in range(namespaces):
        labels = {"team": f"team-{i % 50:02d}", "env": ("prod", "stage", "dev")[i % 3]}
        yield _object("v1", "Namespace", {"name": _namespace(i), "labels": labels})
    places = [(n, k) for n in range(nodes) for k in range(PODS_PER_NODE)][:pods]
    pick.shuffle(places)
    for i, (node, slot) in enumerate(places):
        yield _pod(i, namespaces, node, slot, dual_stack=dual_stack)
    for i in range(policies):
        yield _policy(i, namespaces, pick, wide=wide)


def _object(version: str, kind: str, metadata: Object, **rest: object) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def _namespace(i: int) -> str:
    return f"namespace-{i:04d}"


def _addresses(node: int, slot: int, *, dual_stack: bool) -> list[str]:
    found = [str(IPv4Address((10 << 24) + (128 << 16) + (node << 8) + slot + 2))]
    if dual_stack:
        found.append(str(IPv6Address((0xFD00_0010_0128 << 80) + (node << 64) + slot + 2)))
    return found


def _node(i: int, *, dual_stack: bool) -> Object:
    cidrs = [f"{IPv4Address((10 << 24) + (128 << 16) + (i << 8))}/24"]
    addresses: list[Object] = [
        {"type": "InternalIP", "address": str(IPv4Address((172 << 24) + (16 << 16) + i + 1))}
    ]
    if dual_stack:
        cidrs.append(f"{IPv6Address((0xFD00_0010_0128 << 80) + (i << 64))}/64")
        addresses.append({"type": "InternalIP", "address": str(IPv6Address((0xFD00_0172 << 96) + i + 1))})
    spec: Object = {"podCIDR": cidrs[0], "podCIDRs": cidrs}
    return _object("v1", "Node", {"name": f"worker-{i:04d}"}, spec=spec, status={"addresses": addresses})


def _pod(i: int, namespaces: int, node: int, slot: int, *, dual_stack: bool) -> Object:
    application = i // namespaces % APPLICATIONS
    labels = {
        "app": f"app-{application}",
        "tier": ("front", "middle", "back")[application % 3],
        "pod-template-hash": f"{application:05x}",
        "version": f"v{i % 2}",
    }
    ports = [
        {"name": "http", "containerPort": 8080 + application},
        {"name": "metrics", "containerPort": 9090},
    ]
    own = _addresses(node, slot, dual_stack=dual_stack)
    metadata: Object = {"name": f"pod-{i:05d}", "namespace": _namespace(i % namespaces), "labels": labels}
    spec: Object = {"nodeName": f"worker-{node:04d}", "containers": [{"name": "main", "ports": ports}]}
    status: Object = {"phase": "Running", "podIP": own[0], "podIPs": [{"ip": a} for a in own]}
    return _object("v1", "Pod", metadata, spec=spec, status=status)


def _policy(i: int, namespaces: int, pick: random.Random, *, wide: bool) -> Object:
    application = i // namespaces % APPLICATIONS
    selector: Object = {} if i // namespaces % 10 == 9 else {"matchLabels": {"app": f"app-{application}"}}
    other = {"matchLabels": {"app": f"app-{pick.randrange(APPLICATIONS)}"}}
    rules: list[Object] = [{"from": [{"podSelector": other}], "ports": [{"port": "http"}]}]
    kind = pick.randrange(4)
    if kind == 0:
        where: Object = {
            "matchLabels": {"kubernetes.io/metadata.name": _namespace(pick.randrange(namespaces))}
        }
        if wide:
            where = {
                "matchExpressions": [{"key": "team", "operator": "In", "values": [f"team-{i % 50:02d}"]}]
            }
        rules.append(
            {"from": [{"namespaceSelector": where, "podSelector": other}], "ports": [{"port": 8080}]}
        )
    elif kind == 1:
        name = {"matchLabels": {"kubernetes.io/metadata.name": _namespace(0)}}
        rules.append({"from": [{"namespaceSelector": name}], "ports": [{"port": "metrics"}]})
    elif kind == 2:
        block = {"cidr": "192.168.0.0/16", "except": [f"192.168.{pick.randrange(256)}.0/24"]}
        rules.append({"from": [{"ipBlock": block}], "ports": [{"port": 8080, "endPort": 8090}]})
    spec: Object = {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": rules}
    if i // namespaces == 4 or (wide and i % 4 == 0):
        spec["policyTypes"] = ["Ingress", "Egress"]
        dns: Object = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]}
        inside: Object = {"to": [{"podSelector": {}}]}
        spec["egress"] = [dns, {**inside, "ports": [{"port": "http"}]} if wide else inside]
    metadata: Object = {"name": f"policy-{i:05d}", "namespace": _namespace(i % namespaces)}
    return _object("networking.k8s.io/v1", "NetworkPolicy", metadata, spec=spec)


if __name__ == "__main__":
    main()
