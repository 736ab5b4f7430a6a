"""A real two-node Ray cluster on this machine: a token, one CPU per node, a small object store.

The token comes from `tests/conftest.py`.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.compute.spread import ClusterPlace

STORE_BYTES = 200 << 20
_LEAVE_S = 20.0
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Notice a killed node at once.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "4",
}


class TwoNodes:
    """A head node, with this process as its driver, and a second node that tests may kill."""

    def __init__(self, folder: Path, *, store_bytes: int = STORE_BYTES) -> None:
        self.folder = folder
        self.shared = folder / "shared"
        self.shared.mkdir()
        os.environ.update(ENVIRONMENT)
        import ray
        from ray.cluster_utils import Cluster

        self._ray = ray
        self._store_bytes = store_bytes
        # Ray records the newest cluster in /tmp/ray. Socket paths may have at most 107 characters, and pytest's own
        # folders are too deep for that.
        self._temporary = tempfile.mkdtemp(prefix="tg-ray-", dir="/tmp")
        Path("/tmp/ray").mkdir(exist_ok=True)  # noqa: S108
        head = {"include_dashboard": False, "temp_dir": self._temporary}
        self._cluster = Cluster()
        self._add(head)
        self.second = self.add_node()

    @property
    def place(self) -> ClusterPlace:
        return ClusterPlace(self._cluster.address, f"file://{self.shared}")

    def add_node(self, **arguments: Any) -> Any:
        """Add a node with one CPU."""
        return self._add(arguments)

    def kill(self, node: Any) -> None:
        """Kill the node without warning, like a power cut."""
        self._cluster.remove_node(node, allow_graceful=False)

    def renew_second(self) -> None:
        """Restore the cluster to exactly two live nodes; Ray notices a killed node only after a while."""
        if self.second not in self._cluster.worker_nodes:
            self.second = self.add_node()
        self._cluster.wait_for_nodes(timeout=60)

    def stop(self) -> None:
        """Stop all processes."""
        # Ray's driver joins threads that wait for messages, sometimes forever; without the nodes they end. The nodes
        # are killed here, because `Cluster.shutdown` refuses while a driver still belongs to one of them.
        leaving = threading.Thread(target=self._ray.shutdown, daemon=True)
        leaving.start()
        leaving.join(_LEAVE_S)
        for node in reversed(self._cluster.list_all_nodes()):
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        leaving.join(_LEAVE_S)
        # The rest of `Cluster.shutdown`.
        self._ray.experimental.internal_kv._internal_kv_reset()
        self._ray._common.utils.reset_ray_address()
        self._ray._private.services.find_gcs_addresses.cache_clear()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _add(self, more: dict[str, Any]) -> Any:
        before = os.environ.get("TUNEGATE_CACHE")
        os.environ["TUNEGATE_CACHE"] = str(self.folder / "cache")  # for the nodes only
        try:
            return self._start(more)
        finally:
            del os.environ["TUNEGATE_CACHE"]
            if before is not None:
                os.environ["TUNEGATE_CACHE"] = before

    def _start(self, more: dict[str, Any], further: int = 3) -> Any:
        # A raylet ends when its agents, two Python processes, have not started within 15 s, a constant of Ray. They
        # take longer on a busy machine, most of all the first time, when their libraries are compiled.
        try:
            return self._cluster.add_node(num_cpus=1, object_store_memory=self._store_bytes, **more)
        except Exception as error:
            if not further or "timed out during startup" not in str(error):
                raise
            return self._start(more, further - 1)


@contextmanager
def two_nodes(folder: Path, **options: Any) -> Iterator[TwoNodes]:
    """Run a cluster for the duration of the block, then restore the environment."""
    before = dict(os.environ)
    cluster = TwoNodes(folder, **options)
    try:
        yield cluster
    finally:
        cluster.stop()
        os.environ.clear()
        os.environ.update(before)
