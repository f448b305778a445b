"""The lab's small cluster, with a cgroup for each node's sockets."""

from collections.abc import Iterator

import pytest

from k8snetc.lab.cluster import Cluster
from tests.support.lab import small


@pytest.fixture(scope="session")
def _cluster_with_cgroups() -> Iterator[Cluster]:
    with Cluster(small(), with_cgroups=True) as cluster:
        yield cluster


@pytest.fixture
def cluster(_cluster_with_cgroups: Cluster) -> Iterator[Cluster]:
    """That cluster, without any programs; what a test puts into its nodes is flushed after it."""
    yield _cluster_with_cgroups
    _cluster_with_cgroups.reset()
