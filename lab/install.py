"""Put a program on a node of the lab, the way `k8snetc apply` does: the back end's own steps, inside the node. Or put
artifacts there as a person would by hand, with the tool of each file.

Knows: the border that back ends fill (`backends.target`), and which tool reads which file name. Must not know any
back end's rules. Locks, journals and receipts are `apply`'s; a lab is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from k8snetc.backends.base import Artifact
from k8snetc.backends.target import InstallOptions, target_for
from k8snetc.ir.types import Program
from k8snetc.lab import wiring
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.handle import LabError


def install_program(
    cluster: Cluster, node: str, backend: str, program: Program, options: InstallOptions | None = None
) -> tuple[str, ...]:
    """Bring a node from whatever is on it to the program; return the titles of the steps.

    Interfaces and cgroup that `options` leaves open are the lab's. Raises what the back end raises
    (`InstallError`, `CommandError`, `UnsupportedError`), and LabError when the node does not hold what it was given.
    """
    options = options or InstallOptions()
    if not options.uplinks:
        options = replace(options, uplinks=("eth0",))
    if not options.pod_interfaces:
        pods = wiring.pods_on(cluster.topology, node)
        options = replace(options, pod_interfaces=tuple(wiring.interface(cluster.topology, p) for p in pods))
    if options.cgroup is None and not options.no_cgroup and cluster.has_cgroups:
        options = replace(options, cgroup=str(cluster.cgroup(node)))
    return cluster.call(f"node/{node}", _here, backend, program, options)


def remove_program(cluster: Cluster, node: str, backend: str) -> tuple[str, ...]:
    """Remove everything of a back end from a node; return the titles of the steps."""
    return cluster.call(f"node/{node}", _here, backend, None, InstallOptions())


def _here(backend: str, program: Program | None, options: InstallOptions) -> tuple[str, ...]:
    try:
        target = target_for(backend, options)
    except ModuleNotFoundError as error:
        if error.name != f"k8snetc.backends.{backend}.install":
            raise
        raise LabError(
            f"{backend} can be compiled, but this version can't install it; try another back end"
        ) from None
    goal = target.empty() if program is None else target.desired(program)
    titles = []
    for step in target.steps(target.observe(), goal):
        step.run()
        titles.append(step.title)
    left = target.changes(target.observe(), goal)
    if left:
        lines = [f"+ {t}" for t in left[0].added] + [f"- {t}" for t in left[0].removed]
        raise LabError(
            f"{backend}: what is installed differs from what was meant, at {left[0].where}:\n"
            + "\n".join(lines[:20])
        )
    return tuple(titles)


def install_artifacts(
    cluster: Cluster, node: str, artifacts: Iterable[Artifact], *, variant: str = ""
) -> None:
    """Feed each artifact to its tool, in order. `variant` is "", "legacy" or "nft", for iptables.

    Raises LabError with the tool's words, or for a file that no tool is known for.
    """
    place = f"node/{node}"
    for artifact in artifacts:
        if artifact.name.endswith((".txt", ".origins")):  # for people
            continue
        cluster.run(place, _tool(artifact.name, variant), input=artifact.text)


def _tool(name: str, variant: str) -> list[str]:
    if name == "ipset.restore":
        return ["ipset", "-exist", "restore"]
    if name == "ipvsadm.restore":
        return ["ipvsadm", "--restore"]
    if name == "sysctl.conf":
        return ["sysctl", "-q", "-p", "-"]
    if name == "ip.batch":
        return ["ip", "-force", "-batch", "-"]
    if name.endswith(".nft"):
        return ["nft", "-f", "-"]
    for tool in ("iptables", "ip6tables"):
        if name.startswith(f"{tool}-") and name.endswith(".restore"):
            return [f"{tool}-{variant}-restore" if variant else f"{tool}-restore", "--noflush"]
    raise LabError(f"no tool is known that installs {name}")
