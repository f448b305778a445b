"""One cluster for all semantics tests of a process, its nodes emptied between tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k8snetc.lab.cluster import Cluster
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
