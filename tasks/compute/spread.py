"""The interface with which a step distributes independent parts of its work.

`tasks/cluster/ray_spread.py` implements it on a Ray cluster. Steps take `spread: Spread | None`; None means one
process. A step's result must not depend on the number of parts, their order or where they run.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class ClusterPlace:
    """A running Ray cluster, and a storage that all its nodes can access."""

    address: str
    """`RAY_ADDRESS`: host:port of the cluster's head, or `auto`. tunegate runs on one of its nodes and starts none."""
    shared: str
    """`TUNEGATE_SHARED`: an fsspec URL, such as `file:///mnt/shared` or `s3://bucket/prefix`."""


class Spread(Protocol):
    """Runs parts of a step's work elsewhere.

    `work` is a module-level function in `tasks/`, called as `work(*part)`; it must return the same for the same part,
    since a part whose worker is lost is repeated. Our own errors are raised unchanged.
    """

    @property
    def n_parts(self) -> int:
        """Into how many parts to cut the work, so that all workers get some."""
        ...

    def share(self, path: Path) -> str:
        """Make a file or a sealed folder available to all workers; returns its address, derived from its content.

        Workers read it with `tasks/cluster/shared.py`.
        """
        ...

    def each(self, work: Callable[..., T], parts: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """Yield results in the order of the parts, which are consumed as workers become free."""
        ...
