"""Rows of a service in `ingest.duckdb`: how a kind of source ingests them and reads them back.

It knows nothing of services or tickets. Called by `zendesk.py` and `postgres.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import orjson

from tasks.sources.kind import Ingested, Ingestion
from tasks.sources.landing import Landing, open_landing, read_landing, require_landing, rewrite_if_replaced
from tasks.sources.readers.records import Batch, Fault, Record, in_batches
from tasks.sources.row_owner import RowOwner, note_owner

DELETED = Fault("deleted_upstream", "The source says that it was deleted or redacted.", outcome="dropped")


def ingest_rows(ingestion: Ingestion, owner: RowOwner, sync: Callable[[Landing], None]) -> Ingested | None:
    """Bring `ingest.duckdb` up to date; after a kill the next call resumes after the last committed page.

    Args:
        owner: Finds the customer of a row; rows of forgotten customers are skipped.
        sync: Fetches what changed and commits it page by page.

    Raises:
        LockedError: TG0520, another process ingests the same source.
        StorageError: TG0519, the file is damaged.
    """
    folder, forgotten = ingestion.folder, ingestion.forgotten
    rewrite_if_replaced(folder)
    skips = partial(owner.skips, forgotten=forgotten) if forgotten else None
    with open_landing(folder, skips=skips) as landing:
        note_owner(landing, owner)
        if landing.mark("complete") is not None:
            with landing.step(complete=None):
                pass
        sync(landing)
        landing.finish(at=datetime.now(UTC).isoformat(timespec="seconds"))
    rewrite_if_replaced(folder)
    return ingested_rows(folder)


def ingested_rows(folder: Path) -> Ingested | None:
    """What is in the folder's `ingest.duckdb`; None if it is incomplete."""
    with read_landing(folder) as landing:
        if landing is None:
            return None
        ((n_rows, n_gone),) = landing.query(
            "SELECT count(*), count(*) FILTER (state = 'deleted') FROM rows WHERE stream <> 'comment'"
        )
        return Ingested(n_rows, n_gone, landing.mark("finished_at") or "")


def read_landed(folder: Path, records: Callable[[Landing], Iterable[Record]]) -> Iterator[Batch]:
    """The records that a kind makes of ingested rows.

    Raises:
        DataError: TG0270, the source was not ingested completely.
        LockedError: TG0520, it is being ingested now.
    """
    with read_landing(folder) as found:
        yield from in_batches(records(require_landing(found, where=str(folder))))


def faulty_records(landing: Landing, number: int) -> Iterator[Record]:
    """Placeholders of rows without a key, numbered after `number`."""
    for (content,) in landing.query("SELECT content FROM rows WHERE stream = 'faulty' ORDER BY length(key), key"):
        number += 1
        yield Record(number, None, Fault("TG0246", orjson.loads(content)))
