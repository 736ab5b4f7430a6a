"""Index the customers of new results, and remove raw texts once `curate.keep_raw_days` is over.

Raw texts, as they were before redaction, are in the results of `extract` and of every step before `redact`, in the
warehouse's table `raw_tickets`, and in the snapshots' `raw_tickets.parquet`. Redacted results stay.
"""

import time

from flows.context.run_context import RunContext
from flows.privacy.index import index_new_results
from flows.records.published import warehouse_folder
from schemas.artifacts import TicketTable, WarehouseRef
from tasks.privacy.databases import forget_raw, has_raw_texts

DAY_S = 86_400
RECENT_RUNS = 10_000
FIRST_WITHOUT_RAW = ("redact", "split")
"""From these steps on no result of a run holds raw texts, or it is not one of curation's tables."""


def index_customers(run: RunContext) -> None:
    """Add new results to the index of customers, so that what a customer is in is found later."""
    index_new_results(run.settings)


def forget_old_texts(run: RunContext) -> None:
    """Remove what is older than the pipeline allows.

    Age counts from when a result was made. A later run that needs it reads the source again.
    """
    days = run.spec.curate.keep_raw_days
    if days is None:
        return
    oldest = time.time() - days * DAY_S
    for step, key in sorted(_raw_results(run)):
        place = run.store.place(step, key)
        if place.is_dir() and place.stat().st_mtime <= oldest:
            run.store.discard(step, key)
    _forget_published(run, oldest)


def _raw_results(run: RunContext) -> set[tuple[str, str]]:
    """Return store folder and key of every result of this pipeline that holds raw texts."""
    found: set[tuple[str, str]] = set()
    for row in run.ledger.runs(limit=RECENT_RUNS, pipeline=run.spec.name):
        is_raw = True
        for step in run.ledger.steps(row.run_id):
            is_raw = is_raw and step.step not in FIRST_WITHOUT_RAW
            returns = WarehouseRef if step.step == "warehouse" else TicketTable if is_raw else None
            folder = step.step.rstrip("0123456789").rstrip("_")
            # Checked by its type, not only by its position: a base model may come before `redact` too.
            if returns is not None and run.store.whole(folder, step.key, returns) is not None:
                found.add((folder, step.key))
    return found


def _forget_published(run: RunContext, oldest: float) -> None:
    folder = warehouse_folder(run.settings.home, run.spec.name)
    for snapshot in sorted((folder / "snapshots").glob("*/snapshot.json")):
        raw = snapshot.with_name("raw_tickets.parquet")
        if raw.is_file() and snapshot.stat().st_mtime <= oldest:
            raw.unlink()
    database = folder / "warehouse.duckdb"
    if database.is_file() and database.stat().st_mtime <= oldest and has_raw_texts(database):
        forget_raw(database)
