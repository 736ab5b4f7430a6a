"""A node that would give other bytes, or cannot access the storage, is reported before any work."""

import shutil
from pathlib import Path

import pytest

from schemas.errors import ConfigError, StorageError
from tasks.cluster import nodes
from tasks.cluster.nodes import check_nodes, inspect_nodes
from tasks.compute.spread import ClusterPlace
from tests.support.ray_cluster import TwoNodes

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own FutureWarning

NEVER_READY = """
import os, sys, time
if any("default_worker" in argument for argument in sys.orig_argv):
    time.sleep(15)
    os._exit(1)
"""
OTHER_CHECKOUT = """
import sys
from importlib.machinery import PathFinder

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [{source!r}]) if name in ("tasks", "schemas") else None

sys.meta_path.insert(0, Finder)
"""


def test_equal_nodes_pass(both: TwoNodes) -> None:
    before = set(both.shared.iterdir())  # left by other tests
    assert [node.fault for node in inspect_nodes(both.place)] == [None, None]
    assert set(both.shared.iterdir()) == before  # the probe was removed


def test_a_node_with_another_library_is_named_with_both_versions(both: TwoNodes, tmp_path: Path) -> None:
    metadata = tmp_path / "duckdb-0.0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: duckdb\nVersion: 0.0.1\n")
    other = both.add_node(env_vars={"PYTHONPATH": str(tmp_path)})
    try:
        with pytest.raises(ConfigError, match=r"TG0119.*duckdb 0\.0\.1, here ") as error:
            check_nodes(both.place)
        assert other.node_id[:8] in error.value.message
    finally:
        both.kill(other)


def test_a_node_with_other_source_is_named(both: TwoNodes, tmp_path: Path, project: Path) -> None:
    for package in ("tasks", "schemas"):
        shutil.copytree(project / package, tmp_path / "source" / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "source" / "tasks" / "spread.py").write_text("CHANGED = 1\n")
    # Ray puts the driver's folders first, which a machine with another checkout would not have.
    (tmp_path / "sitecustomize.py").write_text(OTHER_CHECKOUT.format(source=str(tmp_path / "source")))
    other = both.add_node(env_vars={"PYTHONPATH": str(tmp_path)})
    try:
        with pytest.raises(ConfigError, match="source of tasks/ ") as error:
            check_nodes(both.place)
        assert "source of schemas/" not in error.value.message
    finally:
        both.kill(other)


def test_a_node_that_does_not_answer_is_named(both: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "ANSWER_S", 4.0)
    (tmp_path / "sitecustomize.py").write_text(NEVER_READY)
    other = both.add_node(env_vars={"PYTHONPATH": str(tmp_path)})
    try:
        faults = [node.fault for node in inspect_nodes(both.place) if other.node_id[:8] in node.name]
        assert [fault.code for fault in faults if fault is not None] == ["TG0723"]
    finally:
        both.kill(other)


def test_a_node_that_cannot_access_the_storage_is_named(both: TwoNodes) -> None:
    # Only the driver has this storage: `memory://` is separate in every process.
    with pytest.raises(StorageError, match=r"TG0568.*cannot access the shared storage"):
        check_nodes(ClusterPlace(both.place.address, "memory://tunegate"))
