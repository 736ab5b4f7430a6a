"""A step: one plain function of `tasks/`, what goes into it and what decides whether it runs again.

`flows/curate.py`, `finetune.py`, `assess.py` and `release.py` declare lists of these; `flows/engine/plan.py` and the
flows walk the same list, so that what `plan` says is what `run` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.artifacts import Artifact

Input = str | Artifact


@dataclass(frozen=True)
class Late:
    """A parameter that is known only when earlier steps have run."""

    needs: tuple[str, ...]
    """Names of those steps."""
    compute: Callable[..., Any]
    """Called with their results, in that order; None for one that was left out. Must give the same for the same
    results within one run."""


@dataclass(frozen=True)
class Condition:
    """When a step is wanted; else it is left out."""

    needs: tuple[str, ...]
    """Names of earlier steps."""
    holds: Callable[..., bool]
    """Called with their results, in that order; None for one that was left out."""
    told: str
    """The condition in words, for `plan`: `rung small misses its target`."""


@dataclass(frozen=True)
class Step:
    """One unit of work and of reuse.

    `run` is called as `run(**inputs, **params, **context, out=directory)`, plus `scratch=directory` when
    `resumable` and `progress=callable` when `reports`.
    """

    name: str
    """Unique in the pipeline."""
    run: Callable[..., Artifact]
    returns: type[Artifact]
    inputs: Mapping[str, Input | tuple[Input, ...]] = field(default_factory=dict)
    """Parameter -> name of an earlier step, an artifact already at hand, or a tuple of those."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Parameter -> frozen spec or scalar. Part of the key."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """Parameter -> value that cannot change the result (cache folders, project root). Not part of the key."""
    libraries: tuple[str, ...] = ()
    """Distributions whose version is part of the key."""
    resumable: bool = False
    """Gets `scratch`, a folder that outlives a killed attempt of the same key."""
    reports: bool = False
    """Gets `progress`."""
    kind: str = ""
    """Store folder and part of the key; empty means `name`. Steps of one kind share their results: what the
    candidate answered is what the champion answers after its promotion."""

    goes_on_from: str = ""
    """Input that is an earlier result of this very step. When nothing else changed since, that result is the result:
    such a step must give what it was given when it is asked again."""
    also: Mapping[str, Any] = field(default_factory=dict)
    """Name -> value that is part of the key but not passed: what `run` reads by itself, such as a folder's digest."""
    late: Mapping[str, Late] = field(default_factory=dict)
    """Parameter -> how it is computed from earlier results. Part of the key, as `params` are."""
    only_if: Condition | None = None
    """When it is not met, the step is left out, and so is what takes its result; a tuple of inputs goes without it."""
    tolerates: tuple[str, ...] = ()
    """Codes of errors that leave the step out instead of ending the run. Only for those that come again each time."""
    from_results: Mapping[str, Callable[[Mapping[str, Artifact | None]], Any]] = field(default_factory=dict)
    """Parameter -> computed from all results so far. No part of the key: it may end the step, not change its result."""
    check: Callable[[Mapping[str, Artifact | None], Any], None] | None = None
    """Called with all results so far and with the step's own, made now or reused; raises what ends the run all the
    same: a limit over several steps, say."""
    pick: Late | None = None
    """Computes which result of earlier steps of this kind is the result of this one; then nothing is run."""

    @property
    def folder(self) -> str:
        """The name under which results are stored and keyed."""
        return self.kind or self.name
