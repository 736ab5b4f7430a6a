"""The feedback on a registered model: where it is stored, and how it is ingested.

It arrives by `tunegate model feedback` and at the endpoint's `/v1/feedback`. Curation uses it in a step after redaction
(`flows/curation_steps.py`), the gate as a parameter (`flows/registry/state.py`). A run uses the state at its
beginning; what arrives meanwhile belongs to the next run.
"""

import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger
from flows.privacy.keys import load_forgotten
from flows.workspace.disk import private_folder
from flows.workspace.settings import Settings
from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError
from schemas.feedback import Acceptance, FeedbackSpec, RoutedVersion
from schemas.pipeline import PipelineSpec
from schemas.regular_file import open_regular
from tasks.monitor.feedback import (
    FeedbackRules,
    FeedbackState,
    IngestedFeedback,
    acceptance_of,
    feedback_state,
    ingest_feedback,
)
from tasks.monitor.routed import watch_certificates

_ledger = lru_cache(maxsize=8)(open_ledger)
"""One for all requests to the endpoint: a new one would check a ledger in Postgres again."""


def feedback_database(home: Path, name: str) -> Path:
    """Return the database with the feedback on the registered model `name`."""
    return home / "feedback" / name / "feedback.duckdb"


def take_in(
    lines: Iterable[bytes], *, source: str, spec: PipelineSpec, settings: Settings, wait_s: float = 0.0
) -> IngestedFeedback:
    """Store what agents did, one JSON object per line; on return it is on disk.

    Args:
        source: Name of the lines' origin.
        wait_s: Seconds to wait for another process that has the feedback open.

    Raises:
        ConfigError: TG0164, no line can be used.
        LockedError: TG0520, another process has the feedback open for longer than that.
    """
    name = spec.registry.name
    database = feedback_database(settings.home, name)
    private_folder(database.parent)
    rules = FeedbackRules(
        versions=frozenset(row.ref.version for row in _ledger(settings).candidates(name)),
        redact=[step for step in spec.curate.steps if isinstance(step, RedactStep)],
        forgotten=load_forgotten(settings),
    )
    return ingest_feedback(lines, rules, source=source, database=database, wait_s=wait_s)


def take_in_file(file: Path, *, spec: PipelineSpec, settings: Settings, wait_s: float) -> IngestedFeedback:
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


def routed(name: str, spec: FeedbackSpec | None, settings: Settings, ledger: Ledger) -> tuple[RoutedVersion, ...]:
    """What became of the routed tickets of each version with a certificate, the oldest version first.

    Args:
        name: Of the registered model.
        spec: The section `feedback`; None for its defaults.
    """
    database = feedback_database(settings.home, name)
    state = feedback_state(database)
    if state is None:
        return ()
    refs = [row.ref for row in ledger.candidates(name)]
    certificates = {ref.version: ref.certificate for ref in refs if ref.certificate is not None}
    error = (spec or FeedbackSpec()).certificate_error
    return watch_certificates(database, certificates, error=error, upto=state.last)


def state_of(spec: PipelineSpec, home: Path) -> FeedbackState | None:
    """Return the feedback received so far; None if it is not declared or there is none."""
    return None if spec.feedback is None else feedback_state(feedback_database(home, spec.registry.name))
