"""What changed between two states of a pipeline's tickets: of runs, snapshots, days or champions. Only reads.

`tunegate data diff` and `tunegate plan --against` show it; `tasks/curate/table_diff.py` compares the tables.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from flows.context.as_of import day_of, end_of
from flows.ledger.open import open_ledger
from flows.views.resolve_candidate import resolve_candidate
from flows.views.run_reader import Recorded, declared_of
from flows.views.snapshots import known_snapshots, snapshot_folder
from flows.workspace.settings import Settings
from schemas.artifacts import Splits, TicketTable, WarehouseRef
from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError, TunegateError
from schemas.load import PipelineFile
from tasks.curate.table_diff import TableDiff, TableState, diff_tables

HINT = "name runs (`tunegate runs`), snapshots, days like 2026-05-31, or PIPELINE@champion, @previous and @VERSION"

SHORTEST = 4
"""Characters of a snapshot's id that name it."""


@dataclass(frozen=True)
class DataState:
    """One state of a pipeline's tickets, with what is known of its origin."""

    asked: str
    pipeline: str
    snapshot_id: str
    run_id: str
    made_at: str
    """When it was published first; of one that was not, when its run began. UTC."""
    tables: TableState

    def head(self) -> dict[str, str]:
        """What is shown of it."""
        return {
            "asked": self.asked, "pipeline": self.pipeline, "snapshot": self.snapshot_id, "run": self.run_id,
            "made_at": self.made_at,
        }  # fmt: skip


@dataclass(frozen=True)
class DataDiff:
    """Two states and what differs between them."""

    before: Mapping[str, str]
    after: Mapping[str, str]
    tables: TableDiff

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        found = asdict(self.tables)
        return {
            "before": {**self.before, "tickets": found.pop("before")},
            "after": {**self.after, "tickets": found.pop("after")},
            **found,
        }


def find_state(asked: str, settings: Settings, loaded: PipelineFile, *, pipeline: str | None) -> DataState:
    """Find the tickets that a user's word means.

    Args:
        asked: A run's id or its start, a snapshot's, a day (what was published at its end, UTC), `@champion`,
            `@previous` or `@VERSION`, perhaps after the name of a pipeline.
        pipeline: The one that is meant where the word names none; None for the only one of the file.

    Raises:
        ConfigError: TG0159, there is no such state, or its tables are no longer kept; TG0139, the pipeline is not
            named, and the file has several; TG0151, several runs begin so.
    """
    ledger = open_ledger(settings)
    ledger.identity()  # a damaged one is refused, instead of counting as one that does not know the run
    owner, at, which = asked.rpartition("@")
    if at:
        name = owner or _only(loaded, pipeline, asked)
        return _of_run(asked, resolve_candidate(f"{name}@{which}", ledger, loaded).run.run_id, settings)
    day = day_of(asked)
    if day is not None:
        name = _only(loaded, pipeline, asked)
        runs = ledger.runs_with_step("warehouse", pipeline=name)
        past = (run for run in runs if run.as_of is None and (run.ended_at or run.started_at) < end_of(day))
        newest = next(past, None)
        if newest is None:
            raise _nothing(asked, f"no run of {name} had curated its tickets by the end of that day, UTC")
        return _of_run(asked, newest.run_id, settings)
    names = [loaded.find(pipeline).name] if pipeline is not None else sorted(loaded.pipelines)
    found = [
        (name, snapshot)
        for name in names
        for snapshot in known_snapshots(settings, name)
        if len(asked) >= SHORTEST and snapshot.startswith(asked)
    ]
    if len(found) == 1:
        return _of_snapshot(asked, *found[0], settings)
    if found:
        raise _nothing(asked, f"{len(found)} snapshots begin with {asked}")
    try:
        row = ledger.run(asked)
    except ConfigError as error:
        if "several" in error.message:
            raise
        raise _nothing(asked, f"there is no run and no snapshot {asked!r}") from None
    return _of_run(asked, row.run_id, settings)


def _only(loaded: PipelineFile, pipeline: str | None, asked: str) -> str:
    if pipeline is not None:
        return loaded.find(pipeline).name
    if len(loaded.pipelines) != 1:
        raise ConfigError(
            f"{asked} of which pipeline? The file has {', '.join(sorted(loaded.pipelines))}", code="TG0139",
            where="data diff", hint="--pipeline NAME",
        )  # fmt: skip
    return next(iter(loaded.pipelines))


def _of_snapshot(asked: str, pipeline: str, snapshot: str, settings: Settings) -> DataState:
    folder, facts = snapshot_folder(settings, pipeline, snapshot), known_snapshots(settings, pipeline)[snapshot]
    train, validation, test, removed, funnel, raw = (
        folder / f"{name}.parquet" for name in ("train", "validation", "test", "removed", "funnel", "raw_tickets")
    )
    kept = raw if raw.is_file() else None
    tables = TableState(train, validation, test, removed, funnel, raw=kept, is_redacted=False)
    with suppress(TunegateError):  # the ledger is another one by now
        tables = _with_run(tables, Recorded(settings, facts["run_id"]))
    return DataState(asked, pipeline, snapshot, facts["run_id"], facts["made_at"], tables)


def _of_run(asked: str, run_id: str, settings: Settings) -> DataState:
    """The state that a run curated: published, or in the store."""
    run = Recorded(settings, run_id)
    warehouse, clean = run.result("warehouse", WarehouseRef), run.result("decontaminate", Splits)
    raw = run.result("extract", TicketTable)
    name = run.row.pipeline
    if warehouse is not None and warehouse.snapshot_id in known_snapshots(settings, name):
        published = _of_snapshot(asked, name, warehouse.snapshot_id, settings)
        return replace(published, run_id=run_id, tables=_with_run(published.tables, run))
    if warehouse is None or clean is None:
        raise _nothing(asked, f"the tickets of run {run_id} are no longer kept, or it curated none")
    tables = TableState(
        train=clean.train, validation=clean.validation, test=clean.test, removed=warehouse.root / "removed.parquet",
        funnel=warehouse.root / "funnel.parquet", raw=None if raw is None else raw.tickets, is_redacted=False,
    )  # fmt: skip
    return DataState(asked, name, warehouse.snapshot_id, run_id, run.row.started_at, _with_run(tables, run))


def _with_run(tables: TableState, run: Recorded) -> TableState:
    """Add what the run's record says: whether the tickets are redacted, and the tables between its steps."""
    try:
        spec = declared_of(run.row)
    except TunegateError:  # of an older version
        return tables
    found: dict[str, Path] = {}
    for step in takewhile(lambda step: step.step != "split", run.steps):
        for folder in dict.fromkeys((step.step, re.sub(r"_\d+$", "", step.step))):
            if step.step == "extract" or step.state == "failed":
                continue
            table = run.result(step.step, TicketTable, folder=folder)
            if table is not None and table.tickets.is_file():
                found[step.step] = table.tickets
                break
    redacts = any(isinstance(step, RedactStep) for step in spec.curate.steps)
    return replace(tables, tables=found, is_redacted=redacts)


def _nothing(asked: str, why: str) -> ConfigError:
    return ConfigError(why, code="TG0159", where=asked, hint=HINT)


def diff_states(before: DataState, after: DataState, *, label: str = "category", n_samples: int = 3) -> DataDiff:
    """Compare two states; options as of `diff_tables`."""
    tables = diff_tables(before.tables, after.tables, label=label, n_samples=n_samples)
    return DataDiff(before.head(), after.head(), tables)
