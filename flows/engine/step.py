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

    @property
    def folder(self) -> str:
        """The name under which results are stored and keyed."""
        return self.kind or self.name
