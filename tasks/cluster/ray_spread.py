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

from tasks.cluster.connect import ClusterPlace, Failed, n_processors, pack_error, translate_cluster_errors, unpack_error
from tasks.cluster.nodes import check_nodes
from tasks.cluster.shared import Shared

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
        for references in self._started(_answer, work, parts, n_returns=1):
            yield self._opened(references[0], work)

    def hold(
        self, work: Callable[..., tuple[Any, ...]], parts: Iterable[tuple[Any, ...]], *, n_outputs: int
    ) -> list[tuple[Any, ...]]:
        """See `Spread`.

        Raises:
            ServiceError: TG0723, a part was lost in every retry.
        """
        held = []
        for state, *outputs in self._started(_outputs, work, parts, n_returns=n_outputs + 1, n_outputs=n_outputs):
            self._opened(state, work)
            held.append(tuple(outputs))
        return held

    def _started(
        self, call: Callable[..., Any], work: Callable[..., Any], parts: Iterable[tuple[Any, ...]],
        *, n_returns: int, **options: int,
    ) -> Iterator[list[Any]]:  # fmt: skip
        """References to what each part returns, in order; the number of unfinished ones is limited."""
        import ray

        self.get_ready()
        task = ray.remote(call).options(
            num_cpus=1,
            num_returns=n_returns,
            max_retries=RETRIES,
            scheduling_strategy="SPREAD",  # else one node is filled before the next gets any work
        )
        n_waiting = PARTS_PER_PROCESSOR * n_processors()
        waiting: deque[list[Any]] = deque()
        try:
            for part in parts:
                references = task.remote(work, *options.values(), *part)
                waiting.append([references] if n_returns == 1 else references)
                if len(waiting) >= n_waiting:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for references in waiting:  # after an error, or when the caller stops early
                ray.cancel(references[0], force=True)

    def _opened(self, reference: Any, work: Callable[..., Any]) -> Any:
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


def _outputs(work: Callable[..., tuple[Any, ...]], n_outputs: int, *part: Any) -> tuple[Any, ...]:
    """The error, if any, and the outputs."""
    try:
        return (None, *work(*part))
    except Exception as error:
        return (pack_error(error), *([None] * n_outputs))
