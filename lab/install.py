"""Install a back end's artifacts on a node of the lab, as a person would by hand: with the tool of each file.

Knows which tool reads which file name. Must not know any back end's rules. For the way `k8snetc apply` does it, call
that in the node (`Cluster.call`).
"""

from __future__ import annotations

from collections.abc import Iterable

from k8snetc.backends.base import Artifact
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.handle import LabError


def install_artifacts(
    cluster: Cluster, node: str, artifacts: Iterable[Artifact], *, variant: str = ""
) -> None:
    """Feed each artifact to its tool, in order. `variant` is "", "legacy" or "nft", for iptables.

    Raises LabError with the tool's words, or for a file that no tool is known for.
    """
    place = f"node/{node}"
    for artifact in artifacts:
        cluster.run(place, _tool(artifact.name, variant), input=artifact.text)


def _tool(name: str, variant: str) -> list[str]:
    if name == "ipset.restore":
        return ["ipset", "-exist", "restore"]
    if name == "ipvsadm.restore":
        return ["ipvsadm", "--restore"]
    if name == "sysctl.conf":
        return ["sysctl", "-q", "-p", "-"]
    if name.endswith(".nft"):
        return ["nft", "-f", "-"]
    for tool in ("iptables", "ip6tables"):
        if name.startswith(f"{tool}-") and name.endswith(".restore"):
            return [f"{tool}-{variant}-restore" if variant else f"{tool}-restore", "--noflush"]
    raise LabError(f"no tool is known that installs {name}")
