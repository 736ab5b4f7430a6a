"""Declare a plain function of `tasks/` as a step of a graph.

    @as_step("dedup", libraries=("duckdb", "numpy"), heavy=False)
    def drop_duplicates(out: Path, *, tickets: TicketTable, step: DedupStep) -> TicketTable:

A step's first argument is an empty folder `out`; it fills it and returns an artifact with `root=out`. The runner also
passes `scratch` (a folder that outlives a killed attempt of the same key), `progress` and `limit` to functions that
take them. `flows/graph` reads the declaration.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
DECLARED = "__step__"


BY_RUNNER: Any = None
"""Default of an argument that the runner always passes, so that graph declarations need not."""


@dataclass(frozen=True)
class StepInfo:
    """The declaration of one function."""

    name: str
    """The step's kind: the store's folder, part of the key, and the default name in the graph."""
    libraries: tuple[str, ...] = ()
    """Distributions that are part of the key, with their version."""
    context: tuple[str, ...] = ()
    """Arguments that cannot change the result (folders, where the work runs). Not part of the key."""
    heavy: bool = False
    """Uses all cores but one and the accelerators: only one such step runs at a time."""
    memory_gb: float = 0.5
    """Approximate peak memory, besides what a training predicts for itself."""
    extends: str = ""
    """Argument that takes an earlier result of this step. If nothing else has changed since, that result is reused:
    run again on its own result, the step must return it unchanged."""


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
        TypeError: it is not declared as a step.
    """
    info = getattr(function, DECLARED, None)
    if not isinstance(info, StepInfo):
        raise TypeError(f"{function!r} is not a step\nhint: declare it with `@as_step(NAME)` from tasks/step.py")
    return info
