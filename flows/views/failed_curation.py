"""What a curation that failed has left: its finished steps as a database, like the published one.

It is made from the store whenever it is needed and kept nowhere, so that `data forget` need not know it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from flows.views.run_reader import Recorded, declared_of
from flows.workspace.settings import Settings
from schemas.artifacts import Splits, TicketTable
from schemas.curation import TableSpec
from schemas.curation_steps import RedactStep
from schemas.errors import TunegateError
from schemas.pipeline import DataPipeline
from tasks.curate.publish import Curated, publish_partial
from tasks.curate.validate import list_invalid

PUBLISHES = "warehouse"
"""The step after which the published database has everything."""


@dataclass(frozen=True)
class FailedCuration:
    """A curation that failed."""

    run_id: str
    step: str
    """The step that failed."""
    error: str
    """Its code and message."""
    database: Path
    redactions: tuple[RedactStep, ...]
    """How its texts are redacted before anyone sees them: some were removed before `redact`."""


def failed_curation(settings: Settings, pipeline: str, folder: Path, *, root: Path) -> FailedCuration | None:
    """Write what the pipeline's last run left into `folder`; None if its curation did not fail, or left no row.

    The rows that `validate` refuses are listed again: a step that fails leaves no result.
    """
    run = Recorded.last(settings, pipeline)
    if run is None or run.row.status != "FAILED":
        return None
    ended = [(step.step, _result(run, step.step)) for step in run.steps if step.state != "failed"]
    failed = next((step for step in run.steps if step.state == "failed"), None)
    steps: list[Curated] = [(name, result) for name, result in ended if result is not None]
    if failed is None or not steps or any(name == PUBLISHES for name, _ in ended):
        return None
    try:
        spec: DataPipeline | None = declared_of(run.row)
    except TunegateError:
        spec = None
    name, last = steps[-1]
    if failed.step == "validate" and name in ("extract", "corrections") and isinstance(last, TicketTable):
        steps.append(("validate", _refused(last, spec.table if spec else TableSpec(), folder, root)))
    mine = tuple(step for step in (spec.curate.steps if spec else ()) if isinstance(step, RedactStep))
    done = sum(name.rpartition("_")[0] == "redact" or name == "redact" for name, _ in steps)
    database = publish_partial(folder, steps=steps, is_redacted=spec is not None and done >= len(mine))
    return FailedCuration(run.row.run_id, failed.step, failed.error, database, (*mine, RedactStep(uses="redact")))


def _refused(tickets: TicketTable, table: TableSpec, folder: Path, root: Path) -> TicketTable:
    """The rows that `validate` refuses; without those of `schema.model` if that is what it failed for."""
    aside, shipped = folder / "validate", folder / "shipped"
    aside.mkdir()
    try:
        return list_invalid(tickets, table, aside, root=root)
    except TunegateError:
        shipped.mkdir()
        return list_invalid(tickets, table, shipped)


def _result(run: Recorded, step: str) -> TicketTable | Splits | None:
    """The tickets after a step; None if it is no step of curation, or its result is gone. `rules_2` is in `rules`."""
    for folder in dict.fromkeys((step, re.sub(r"_\d+$", "", step))):
        kind: type[TicketTable | Splits] = Splits if folder in ("split", "decontaminate") else TicketTable
        found = run.result(step, kind, folder=folder)
        if found is not None:
            return found
    return None
