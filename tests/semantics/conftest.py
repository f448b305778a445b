"""One cluster for all semantics tests of a process, its nodes emptied between tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k8snetc.lab.cluster import Cluster
from tests.semantics import dataplanes, policy_cluster
from tests.semantics.dataplanes import Dataplane
from tests.semantics.world import TOPOLOGY


@pytest.fixture(scope="session")
def _world() -> Iterator[Cluster]:
    with Cluster(TOPOLOGY, with_cgroups=True) as cluster:
        yield cluster


@pytest.fixture
def world(_world: Cluster) -> Iterator[Cluster]:
    """The cluster of `world.py`, without any rules."""
    dataplanes.empty(_world)
    yield _world
    dataplanes.forget(_world)
    _world.reset()


@pytest.fixture
def case_world(_world: Cluster, dataplane: Dataplane) -> Iterator[Cluster]:
    """The same for one of many cases, which may follow on another."""
    with dataplanes.for_a_case(_world, dataplane):
        yield _world


@pytest.fixture(scope="session")
def _policy_lab() -> Iterator[Cluster]:
    with Cluster(policy_cluster.topology(), with_cgroups=True) as cluster:
        yield cluster


@pytest.fixture
def policy_lab(_policy_lab: Cluster) -> Iterator[Cluster]:
    """The cluster of `policy_cluster.py`, without any rules."""
    dataplanes.empty(_policy_lab)
    yield _policy_lab
    dataplanes.forget(_policy_lab)
    _policy_lab.reset()


@pytest.fixture
def case_lab(_policy_lab: Cluster, dataplane: Dataplane) -> Iterator[Cluster]:
    """The same for one of many cases, which may follow on another."""
    with dataplanes.for_a_case(_policy_lab, dataplane):
        yield _policy_lab
