"""The text for people: nft takes it as it is, and what it then lists is what the text says."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from k8snetc.backends.nftables import library
from k8snetc.backends.nftables.install import target
from k8snetc.backends.nftables.observe import observed
from k8snetc.backends.nftables.read import read_tables
from k8snetc.backends.target import InstallOptions
from k8snetc.ir.addresses import Range, cover
from k8snetc.ir.types import AddressSet, Exposure, Family, Program, SourceIn
from k8snetc.lab.cluster import Cluster
from tests.backends.nftables.test_kernel_install import NODE, travel
from tests.backends.nftables.test_rules import cluster
from tests.support.repository import ROOT

pytestmark = pytest.mark.kernel

TEXTS = sorted(
    [
        *(ROOT / "tests/backends/nftables/golden").glob("*/*.nft"),
        *(ROOT / "examples").glob("*/golden/nftables/*.nft"),
    ]
)
TOP = (1 << 32) - 1


def taken(path: Path) -> str:
    """Check and load a file twice (it replaces itself), and compare with what runs then. Runs inside a node."""
    text = path.read_text()
    library.commit("flush ruleset")
    library.check(text)
    library.commit(text)
    library.commit(text)
    wanted = {t.family: t for t in read_tables(text)}
    seen = {t.family: t for t in observed().tables}
    return "" if seen == wanted else f"{path}: {seen} is not {wanted}"


def test_golden_texts_load_and_list_as_they_are(shared_cluster: Cluster) -> None:
    assert len(TEXTS) > 5
    for path in TEXTS:
        assert not shared_cluster.call(NODE, taken, path)
        assert shared_cluster.run(NODE, ["nft", "-c", "-f", str(path)]).returncode == 0


def edge(networks: tuple[str, ...], ranges: tuple[Range, ...] = ()) -> Program:
    """Two services; the cluster's networks, and ranges that are refused and may be sources."""
    made = cluster(2, 2)
    detector = SourceIn(tuple(map(ip_network, networks)))
    made = replace(made, node=replace(made.node, detector=detector))
    if not ranges:
        return made
    prefixes = cover(Family.IPV4, ranges)
    return replace(
        made,
        sets=(AddressSet("s", Family.IPV4, prefixes), AddressSet("r", Family.IPV4, prefixes)),
        rejects=("r",),
        frontends=tuple(replace(f, exposure=Exposure.LOAD_BALANCER, sources="s") for f in made.frontends),
    )


def test_intervals_at_the_edges_of_the_address_space(shared_cluster: Cluster) -> None:
    programs = (
        edge(("0.0.0.0/0",)),
        edge(("128.0.0.0/1",)),
        edge(("0.0.0.0/1", "255.255.255.255/32"), ((0, 5), (1 << 31, TOP))),
        edge(("10.0.0.0/8",), ((0, 0), (7, 9), (TOP, TOP))),
        edge(("10.0.0.0/8",), ((0, TOP - 1),)),
        edge(("10.0.0.0/8",), ((1, TOP),)),
    )
    grip = target(InstallOptions())
    wrong = shared_cluster.call(NODE, travel, [grip.desired(p) for p in programs])
    assert not wrong, "\n".join(wrong)
