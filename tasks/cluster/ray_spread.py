"""`Spread` on Ray: parts as tasks on whichever node is free; what a lost node had made is made again.

Ray keeps of each task what it was made from and repeats it when its results are lost, so work must give the same for
the same part. At most two parts per processor wait at a time: their arguments lie in the memory of the driver's node.
What parts are made of goes through Ray's object store, in memory, and over a limit into files of Ray's session folder,
which go with the session; nothing of tickets is put on the shared storage.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tasks.cluster.connect import Failed, Place, n_processors, named_cluster_errors, packed, unpacked
from tasks.cluster.nodes import check_nodes
from tasks.cluster.shared import Shared

T = TypeVar("T")
RETRIES = 8
"""Times that a part is done again because its worker or node was lost."""
PARTS_PER_PROCESSOR = 2
"""A lost part costs half as much as with one, and uneven parts even out."""


class RaySpread:
    """Connects and looks at the nodes when the first part is to be done, once."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._is_ready = False

    @property
    def n_parts(self) -> int:
        """Two for each processor of the cluster."""
        self.get_ready()
        return PARTS_PER_PROCESSOR * n_processors()

    def get_ready(self) -> None:
        """Join the cluster and look at its nodes, unless that was done.

        Raises:
            TunegateError: as `check_nodes`.
        """
        if not self._is_ready:
            check_nodes(self.place)
            self._is_ready = True

    def share(self, path: Path) -> str:
        """See `Spread`; on the shared storage, where it stays until `Shared.remove`."""
        return Shared(self.place.shared).put(path)

    def each(self, work: Callable[..., T], parts: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """See `Spread`.

        Raises:
            ServiceError: TG0723, a part was lost again and again.
        """
        for references in self._started(_answer, work, parts, n_returns=1):
            yield self._opened(references[0], work)

    def hold(
        self, work: Callable[..., tuple[Any, ...]], parts: Iterable[tuple[Any, ...]], *, n_outputs: int
    ) -> list[tuple[Any, ...]]:
        """See `Spread`.

        Raises:
            ServiceError: TG0723, a part was lost again and again.
        """
        held = []
        for state, *outputs in self._started(_outputs, work, parts, n_returns=n_outputs + 1, n_outputs=n_outputs):
            self._opened(state, work)
            held.append(tuple(outputs))
        return held

    def _started(
        self, call: Callable[..., Any], work: Callable[..., Any], parts: Iterable[tuple[Any, ...]],
        *, n_returns: int, **told: int,
    ) -> Iterator[list[Any]]:  # fmt: skip
        """References to what each part returns, in order, at most so many of them unfinished."""
        import ray

        self.get_ready()
        task = ray.remote(call).options(
            num_cpus=1,
            num_returns=n_returns,
            max_retries=RETRIES,
            scheduling_strategy="SPREAD",  # else one node is filled before the next is asked
        )
        n_waiting = PARTS_PER_PROCESSOR * n_processors()
        waiting: deque[list[Any]] = deque()
        try:
            for part in parts:
                references = task.remote(work, *told.values(), *part)
                waiting.append([references] if n_returns == 1 else references)
                if len(waiting) >= n_waiting:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for references in waiting:  # an error, or nobody wants the rest
                ray.cancel(references[0], force=True)

    def _opened(self, reference: Any, work: Callable[..., Any]) -> Any:
        import ray

        with named_cluster_errors(work.__name__):
            found = ray.get(reference)
        if isinstance(found, Failed):
            raise unpacked(found) from None
        return found


def _answer(work: Callable[..., T], *part: Any) -> T | Failed:
    try:
        return work(*part)
    except Exception as error:
        return packed(error)


def _outputs(work: Callable[..., tuple[Any, ...]], n_outputs: int, *part: Any) -> tuple[Any, ...]:
    """What went wrong, if anything, and the outputs."""
    try:
        return (None, *work(*part))
    except Exception as error:
        return (packed(error), *([None] * n_outputs))
