"""The feedback of a registered model: where it lies, and how it is taken in.

It comes in by `tunegate model feedback` and at the endpoint's `/v1/feedback`. Into curation it goes as a step after
redaction (`flows/curation_steps.py`), into the gate as a parameter (`flows/context/registry_state.py`). A run takes
the state of its beginning; what comes in meanwhile is the next run's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

from flows.ledger.opened import open_ledger
from flows.privacy.keys import load_forgotten
from flows.workspace.disk import private_folder
from flows.workspace.settings import Settings
from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError
from schemas.feedback import Acceptance, FeedbackSpec
from schemas.pipeline import PipelineSpec
from schemas.regular_file import open_regular
from tasks.watch.feedback import FeedbackState, Ingested, acceptance_of, feedback_state, ingest_feedback


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


def take_in_file(file: Path, *, spec: PipelineSpec, settings: Settings, wait_s: float) -> Ingested:
    """As `take_in`, from a file, or from stdin for `-`.

    Raises:
        ConfigError: TG0110, it cannot be read; TG0164, no line can be used.
    """
    source = "stdin" if str(file) == "-" else str(file)
    try:
        with nullcontext(sys.stdin.buffer) if source == "stdin" else open_regular(file) as stream:
            return take_in(stream, source=source, spec=spec, settings=settings, wait_s=wait_s)
    except OSError as error:
        raise ConfigError(f"the feedback cannot be read: {error.strerror}", code="TG0110", where=source) from None


def acceptance(spec: PipelineSpec, home: Path) -> Sequence[Acceptance]:
    """How often each version's suggestions were accepted, as `feedback` declares or by its defaults."""
    database = feedback_database(home, spec.registry.name)
    state = feedback_state(database)
    return acceptance_of(database, spec.feedback or FeedbackSpec(), upto=state.last) if state else ()


def state_of(spec: PipelineSpec, home: Path) -> FeedbackState | None:
    """What has come in by now; null when none is declared or none is there."""
    return None if spec.feedback is None else feedback_state(feedback_database(home, spec.registry.name))
