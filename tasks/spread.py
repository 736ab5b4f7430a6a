"""Where the independent parts of a step's work are done: what a step may ask for, and nothing of how it is done.

`tasks/cluster/ray_spread.py` does it on the nodes of a Ray cluster. Steps take `spread: Spread | None`; None is one
process. The result of a step must not depend on the number of parts, on their order or on who does them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Spread(Protocol):
    """Does parts of a step's work elsewhere.

    `work` is a function of a module of `tasks/`, called as `work(*part)`; it must give the same for the same part,
    since a part whose worker is lost is done again. Errors of ours come back as themselves.
    """

    @property
    def n_parts(self) -> int:
        """Into how many parts work should be cut, so that all workers have some."""
        ...

    def share(self, path: Path) -> str:
        """Make a file or a sealed folder readable for all workers; returns its address, which follows from its content.

        `tasks/cluster/shared.py` reads it there.
        """
        ...

    def each(self, work: Callable[..., T], parts: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """Results in the order of the parts, which are asked for as workers become free."""
        ...

    def hold(
        self, work: Callable[..., tuple[Any, ...]], parts: Iterable[tuple[Any, ...]], *, n_outputs: int
    ) -> list[tuple[Any, ...]]:
        """As `each`, but the `n_outputs` things that each part gives stay with the workers.

        Returns when all are done: for each part its handles. A handle that is itself an argument of a later part
        (not inside a list or tuple) arrives as the thing.
        """
        ...
