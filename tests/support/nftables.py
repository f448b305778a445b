"""Installs artifacts of the nftables back end in a lab node as a person would, with nft itself."""

from __future__ import annotations

from collections.abc import Iterable

from k8snetc.backends.base import Artifact
from k8snetc.lab.cluster import Cluster


def install(cluster: Cluster, place: str, artifacts: Iterable[Artifact]) -> None:
    """Feed every artifact to the program it is for, after its check mode accepted it. Raises `LabError`."""
    for artifact in artifacts:
        match artifact.name:
            case "k8snetc.nft":
                cluster.run(place, ["nft", "-c", "-f", "-"], input=artifact.text)
                cluster.run(place, ["nft", "-f", "-"], input=artifact.text)
            case "sysctl.conf":
                cluster.run(place, ["sysctl", "-p", "-"], input=artifact.text)
            case _:
                raise AssertionError(f"what is {artifact.name} for?")


def listing(cluster: Cluster, place: str) -> str:
    """What runs there, as nft lists it."""
    return cluster.run(place, ["nft", "list", "ruleset"]).stdout
