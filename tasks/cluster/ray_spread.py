"""`Spread` on Ray: run parts as tasks on whichever node is free; recompute what a lost node had computed.

Ray remembers each task's inputs and repeats it when its results are lost, so work must return the same for the same
part. At most two parts per processor wait at a time: their arguments are held in the memory of the driver's node.
Parts travel through Ray's object store, in memory, and above a limit in files of Ray's session folder, which end with
the session; no ticket text is put on the shared storage.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tasks.cluster.connect import Failed, n_processors, pack_error, translate_cluster_errors, unpack_error
from tasks.cluster.nodes import check_nodes
from tasks.cluster.shared import Shared
from tasks.compute.spread import ClusterPlace

T = TypeVar("T")
RETRIES = 8
"""How often a part is retried because its worker or node was lost."""
PARTS_PER_PROCESSOR = 2
"""Compared with one, a lost part costs half as much, and uneven parts even out."""


class RaySpread:
    """Connects and checks the nodes once, before the first part."""

    def __init__(self, place: ClusterPlace) -> None:
        self.place = place
        self._is_ready = False

    @property
    def n_parts(self) -> int:
        """Two per processor of the cluster."""
        self.get_ready()
        return PARTS_PER_PROCESSOR * n_processors()

    def get_ready(self) -> None:
        """Join the cluster and check its nodes, unless already done.

        Raises:
            TunegateError: as `check_nodes`.
        """
        if not self._is_ready:
            check_nodes(self.place)
            self._is_ready = True

    def share(self, path: Path) -> str:
        """See `Spread`; copies to the shared storage, where it stays until `Shared.remove`."""
        return Shared(self.place.shared).put(path)

    def each(self, work: Callable[..., T], parts: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """See `Spread`.

        Raises:
            ServiceError: TG0723, a part was lost in every retry.
        """
        import ray

        self.get_ready()
        task = ray.remote(_answer).options(
            num_cpus=1,
            max_retries=RETRIES,
            scheduling_strategy="SPREAD",  # else one node is filled before the next gets any work
        )
        n_waiting = PARTS_PER_PROCESSOR * n_processors()
        waiting: deque[Any] = deque()
        try:
            for part in parts:
                waiting.append(task.remote(work, *part))
                if len(waiting) >= n_waiting:
                    yield _opened(waiting.popleft(), work)
            while waiting:
                yield _opened(waiting.popleft(), work)
        finally:
            for reference in waiting:  # after an error, or when the caller stops early
                ray.cancel(reference, force=True)


def _opened(reference: Any, work: Callable[..., Any]) -> Any:
    import ray

    with translate_cluster_errors(work.__name__):
        found = ray.get(reference)
    if isinstance(found, Failed):
        raise unpack_error(found) from None
    return found


def _answer(work: Callable[..., T], *part: Any) -> T | Failed:
    try:
        return work(*part)
    except Exception as error:
        return pack_error(error)
