"""The feedback of a registered model: where it lies, and where it goes into a run.

It comes in by `tunegate feedback` and at the endpoint's `/v1/feedback`. Into curation it goes as a step behind
redaction, into the gate as a parameter. A run takes the state of its beginning; what comes in meanwhile is the next
run's. Called by these commands, `flows/session.py` and `flows/standing.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from flows.engine.disk import private_folder
from flows.engine.step import Step
from flows.privacy.keys import load_forgotten
from flows.settings import Settings, open_ledger
from schemas.artifacts import TicketTable
from schemas.curation_steps import RedactStep
from schemas.pipeline import PipelineSpec
from tasks.watch.feedback import FeedbackState, Ingested, feedback_state, ingest_feedback
from tasks.watch.learn import learn_from_feedback

STEP = "feedback"


def feedback_database(home: Path, name: str) -> Path:
    """Where the feedback on the registered model `name` lies."""
    return home / "feedback" / name / "feedback.duckdb"


def take_in(
    lines: Iterable[bytes], *, source: str, spec: PipelineSpec, settings: Settings, wait_s: float = 0.0
) -> Ingested:
    """Keep what agents did, one JSON object a line; when it returns, it is on the disk.

    Args:
        source: What to call where the lines are from.
        wait_s: Seconds to wait for another process that has the feedback open.

    Raises:
        ConfigError: TG0164, no line can be used.
        LockedError: TG0520, another process has the feedback open for longer.
    """
    name = spec.registry.name
    database = feedback_database(settings.home, name)
    private_folder(settings.home / "feedback")
    private_folder(database.parent)
    return ingest_feedback(
        lines,
        source=source,
        database=database,
        versions=frozenset(row.ref.version for row in open_ledger(settings).candidates(name)),
        redact=[step for step in spec.curate.steps if isinstance(step, RedactStep)],
        forgotten=load_forgotten(settings),
        wait_s=wait_s,
    )


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
