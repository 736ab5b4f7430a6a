"""A kind of source whose rows are ingested into `ingest.duckdb` and read from there.

A subclass says how to fetch rows, which customer each belongs to, and what to read from them.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import orjson

from schemas.errors import DataError
from tasks.progress import Progress
from tasks.sources.kind import Ingested, Ingestion, Part, Place, S, SourceKind
from tasks.sources.landing import Landing, open_landing, read_landing, rewrite_if_replaced
from tasks.sources.readers.records import Fault, Record, RowBatch, in_batches
from tasks.sources.row_owner import RowOwner, note_owner
from tasks.storage.files import sha256_json

DELETED = Fault("deleted_upstream", "The source says that it was deleted or redacted.", outcome="dropped")


class LandedRows(SourceKind[S]):
    """A service with rows, such as a help desk or a database."""

    is_remote = True

    def owner(self, source: S) -> RowOwner:
        """Finds the customer of a row; rows of forgotten customers are skipped."""
        raise NotImplementedError

    def sync(self, source: S, landing: Landing, *, progress: Progress) -> None:
        """Fetch what changed and commit it page by page."""
        raise NotImplementedError

    def records(self, source: S, landing: Landing) -> Iterator[Record]:
        """What is read of the ingested rows, ordered and numbered by key."""
        raise NotImplementedError

    def fingerprint(self, source: S, place: Place) -> str:
        """The digest of what was ingested, or a fixed one while it is incomplete."""
        with read_landing(place.ingested()) as landing:
            return (landing.mark("complete") if landing else None) or sha256_json({"complete": None})

    def parts(self, source: S, place: Place) -> Iterator[Part]:
        name = self.describe(source)
        yield Part(f"{self.name}:{name}", name, self._batches(source, place.ingested()))

    def ingest(self, source: S, ingestion: Ingestion) -> Ingested | None:
        """Bring `ingest.duckdb` up to date; after a kill the next call resumes after the last committed page.

        Raises:
            LockedError: TG0520, another process ingests the same source.
            StorageError: TG0519, the file is damaged.
        """
        folder, forgotten, owner = ingestion.folder, ingestion.forgotten, self.owner(source)
        rewrite_if_replaced(folder)
        skips = partial(owner.skips, forgotten=forgotten) if forgotten else None
        with open_landing(folder, skips=skips) as landing:
            note_owner(landing, owner)
            if landing.mark("complete") is not None:
                with landing.step(complete=None):
                    pass
            self.sync(source, landing, progress=ingestion.progress)
            landing.finish(at=datetime.now(UTC).isoformat(timespec="seconds"))
        rewrite_if_replaced(folder)
        return self.ingested(source, folder)

    def ingested(self, source: S, folder: Path) -> Ingested | None:
        """What is in the folder's `ingest.duckdb`; None if it is incomplete."""
        with read_landing(folder) as landing:
            if landing is None:
                return None
            ((n_rows, n_gone),) = landing.query(
                "SELECT count(*), count(*) FILTER (state = 'deleted') FROM rows WHERE stream <> 'comment'"
            )
            return Ingested(n_rows, n_gone, landing.mark("finished_at") or "")

    def _batches(self, source: S, folder: Path) -> Iterator[RowBatch]:
        """The records in batches.

        Raises:
            DataError: TG0270, the source was not ingested completely.
            LockedError: TG0520, it is being ingested now.
        """
        with read_landing(folder) as landing:
            if landing is None:
                raise DataError(
                    "this source has not been ingested completely",
                    code="TG0270",
                    where=str(folder),
                    hint="tunegate data curate PIPELINE opens the connection; plan and reproduce never do",
                )
            yield from in_batches(self.records(source, landing))


def faulty_records(landing: Landing, number: int) -> Iterator[Record]:
    """Placeholders of rows without a key, numbered after `number`."""
    for (content,) in landing.query("SELECT content FROM rows WHERE stream = 'faulty' ORDER BY length(key), key"):
        number += 1
        yield Record(number, None, Fault("TG0246", orjson.loads(content)))
