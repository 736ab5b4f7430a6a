"""Who is told how a run is going: the screen and MLflow's live curves. Plain protocols."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from flows.engine.step import Step
from schemas.artifacts import Artifact


class Listener(Protocol):
    """Told about each step. Methods must be quick and must not raise."""

    def started(self, step: Step) -> None:
        """The step begins; it may turn out to be in the store already."""

    def progressed(self, step: Step, done: int, total: int | None, unit: str, figures: dict[str, float]) -> None:
        """The step has done `done` of `total` units."""

    def finished(self, step: Step, artifact: Artifact, *, reused: bool, seconds: float) -> None:
        """The step's artefact is in the store."""

    def noted(self, text: str) -> None:
        """Something a person should know: a warning, a skip, a pending synchronisation."""

    def entered(self, stage: str) -> None:
        """The run goes on to the next stage."""


class Listeners:
    """Several listeners as one."""

    def __init__(self, members: Iterable[Listener] = ()) -> None:
        self.members = list(members)

    def started(self, step: Step) -> None:
        for member in self.members:
            member.started(step)

    def progressed(self, step: Step, done: int, total: int | None, unit: str, figures: dict[str, float]) -> None:
        for member in self.members:
            member.progressed(step, done, total, unit, figures)

    def finished(self, step: Step, artifact: Artifact, *, reused: bool, seconds: float) -> None:
        for member in self.members:
            member.finished(step, artifact, reused=reused, seconds=seconds)

    def noted(self, text: str) -> None:
        for member in self.members:
            member.noted(text)

    def entered(self, stage: str) -> None:
        for member in self.members:
            member.entered(stage)
