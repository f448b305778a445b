"""Installs artifacts of iptables back ends in a lab node as a person would, with the tools themselves."""

from __future__ import annotations

from collections.abc import Iterable

from k8snetc.backends.base import Artifact
from k8snetc.lab.cluster import Cluster

VARIANTS = ("legacy", "nft")


def install(cluster: Cluster, place: str, artifacts: Iterable[Artifact], variant: str) -> None:
    """Feed every artifact to the program it is for, after `--test` accepted it. Raises `LabError`."""
    for artifact in artifacts:
        match artifact.name.split("-")[0]:
            case "ipset.restore":
                cluster.run(place, ["ipset", "-exist", "restore"], input=artifact.text)
            case "sysctl.conf":
                cluster.run(place, ["sysctl", "-p", "-"], input=artifact.text)
            case "iptables" | "ip6tables" as tool:
                command = [f"{tool}-{variant}-restore", "--noflush"]
                cluster.run(place, [*command, "--test"], input=artifact.text)
                cluster.run(place, command, input=artifact.text)
            case _:
                raise AssertionError(f"what is {artifact.name} for?")


def saved(cluster: Cluster, place: str, variant: str) -> dict[str, list[str]]:
    """Our lines of what each save program prints, sorted, counters zeroed."""
    lines: dict[str, list[str]] = {}
    for tool in ("iptables", "ip6tables"):
        out = cluster.run(place, [f"{tool}-{variant}-save"]).stdout.splitlines()
        mine = [line.split(" [")[0] if line.startswith(":") else line for line in out if "K8SNETC-" in line]
        lines[tool] = sorted(mine)
    return lines
