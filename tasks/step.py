"""What a function of `tasks/` says of itself as a step of a graph; the function stays a plain one.

    @as_step("dedup", libraries=("duckdb", "numpy"), heavy=False)
    def drop_duplicates(out: Path, *, tickets: TicketTable, step: DedupStep) -> TicketTable:

A step gets an empty folder `out` first, fills it and returns an artifact with `root=out`. Whoever runs it also hands in
`scratch` (a folder that outlives a killed attempt of the same key), `progress` and `limit` where the function takes
them. It knows nothing of graphs, stores and keys: `flows/graph` reads what is declared here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
DECLARED = "__step__"


BY_RUNNER: Any = None
"""Default of an argument that the runner always hands in, so that a declaration need not."""


@dataclass(frozen=True)
class StepInfo:
    """The declaration of one function."""

    name: str
    """Its kind: the store's folder, part of the key, and the name in the graph unless that gives another."""
    libraries: tuple[str, ...] = ()
    """Distributions whose version is part of the key."""
    context: tuple[str, ...] = ()
    """Arguments that cannot change the result (folders, who does the work). No part of the key."""
    heavy: bool = False
    """Takes all cores but one and the accelerators: only one such step runs at a time."""
    memory_gb: float = 0.5
    """What it takes at most, roughly, besides what a training predicts for itself."""
    extends: str = ""
    """Argument that is an earlier result of this very step. When nothing else has changed since, that result is the
    result: the step must return what it was given when it is run again on its own result."""


def as_step(
    name: str,
    *,
    libraries: tuple[str, ...] = (),
    context: tuple[str, ...] = (),
    heavy: bool = False,
    memory_gb: float = 0.5,
    extends: str = "",
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Declare a function as a step; the fields are those of `StepInfo`."""

    def declare(function: Callable[P, T]) -> Callable[P, T]:
        setattr(function, DECLARED, StepInfo(name, libraries, context, heavy, memory_gb, extends))
        return function

    return declare


def info_of(function: Callable[..., object]) -> StepInfo:
    """What the function declares.

    Raises:
        TypeError: it declares nothing.
    """
    info = getattr(function, DECLARED, None)
    if not isinstance(info, StepInfo):
        raise TypeError(f"{function!r} is no step\nhint: declare it with `@as_step(NAME)` of tasks/step.py")
    return info
