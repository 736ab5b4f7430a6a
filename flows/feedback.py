"""The feedback of a registered model: where it lies, and where it goes into a run.

Into curation as a step behind redaction, into the gate as a parameter. A run takes the state of its beginning; what
comes in meanwhile is the next run's. Called by `flows/session.py` and `flows/standing.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flows.engine.step import Step
from schemas.artifacts import TicketTable
from schemas.pipeline import PipelineSpec
from tasks.watch.feedback import FeedbackState, feedback_state
from tasks.watch.learn import learn_from_feedback

STEP = "feedback"


def feedback_database(home: Path, name: str) -> Path:
    """Where the feedback on the registered model `name` lies."""
    return home / "feedback" / name / "feedback.duckdb"


def state_of(spec: PipelineSpec, home: Path) -> FeedbackState | None:
    """What has come in by now; null when none is declared or none is there."""
    return None if spec.feedback is None else feedback_state(feedback_database(home, spec.registry.name))


def learn_step(spec: PipelineSpec, home: Path) -> Step | None:
    """The step that brings the feedback in; null when there is nothing to bring."""
    state = state_of(spec, home)
    if state is None or spec.feedback is None or not (spec.feedback.learn or spec.feedback.own_answers == "drop"):
        return None
    return Step(
        STEP,
        learn_from_feedback,
        TicketTable,
        params={"spec": spec.feedback, "upto": state.last},
        context={"database": feedback_database(home, spec.registry.name)},
        libraries=("duckdb", "pyarrow"),
        also={"digest": state.digest},
    )


def insert_behind_redaction(steps: Sequence[Step], learned: Step | None) -> list[Step]:
    """The steps with `learned` behind the last redaction, or behind validation where nothing is redacted."""
    if learned is None:
        return list(steps)
    place = max(index for index, step in enumerate(steps) if step.name == "validate" or step.kind == "redact")
    before = steps[place].name
    later = [
        replace(step, inputs={name: STEP if value == before else value for name, value in step.inputs.items()})
        for step in steps[place + 1 :]
    ]
    return [*steps[: place + 1], replace(learned, inputs={"tickets": before}), *later]
