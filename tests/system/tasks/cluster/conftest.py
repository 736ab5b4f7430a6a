"""A two-node cluster for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.support.ray_cluster import TwoNodes, two_nodes


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("ray")) as running:
        yield running


@pytest.fixture
def both(cluster: TwoNodes) -> Iterator[TwoNodes]:
    """The cluster with both nodes, restored before and after the test."""
    cluster.renew_second()
    yield cluster
    cluster.renew_second()
