"""One cluster for all semantics tests of a process, its nodes emptied between tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k8snetc.lab.cluster import Cluster
from tests.semantics import policy_cluster
from tests.semantics.world import TOPOLOGY


@pytest.fixture(scope="session")
def _world() -> Iterator[Cluster]:
    with Cluster(TOPOLOGY, with_cgroups=True) as cluster:
        yield cluster


@pytest.fixture
def world(_world: Cluster) -> Iterator[Cluster]:
    """The cluster of `world.py`, without any rules."""
    yield _world
    _world.reset()


@pytest.fixture(scope="session")
def _policy_lab() -> Iterator[Cluster]:
    with Cluster(policy_cluster.topology(), with_cgroups=True) as cluster:
        yield cluster


@pytest.fixture
def policy_lab(_policy_lab: Cluster) -> Iterator[Cluster]:
    """The cluster of `policy_cluster.py`, without any rules."""
    yield _policy_lab
    _policy_lab.reset()
