"""Read the source: every row becomes a ticket or is quarantined with its place and reason.

What a valid ticket is, `validate` decides. Heavy imports are inside functions, so importing it is cheap.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import RowCounts, TicketTable
from schemas.errors import DataError
from schemas.file_reading import Source
from tasks.curate.rows import write_removed
from tasks.privacy.hashes import Forgotten
from tasks.progress import Progress, silent
from tasks.sources.kind import Place
from tasks.sources.registry import kind_of
from tasks.step import as_step

if TYPE_CHECKING:
    from tasks.curate.gather import Gathered
    from tasks.sources.readers.records import RowBatch

ATTEMPTS = 2
RETRY_DELAY_S = 1.0
FIRST_ROWS = 10_000


@as_step(
    "extract",
    libraries=("datasets", "duckdb", "orjson", "pyarrow", "zstandard"),
    context=("place", "forgotten"),
)
def extract_tickets(
    out: Path,
    *,
    source: Source,
    fingerprint: str,
    place: Place,
    forgotten: Forgotten | None = None,
    as_of: str | None = None,
    progress: Progress = silent,
) -> TicketTable:
    """Write every row of the source to `tickets.parquet`, or to `removed.parquet` as quarantined.

    Rows that a service has deleted are in `removed.parquet` as well, dropped as `deleted_upstream`.

    If no row of a file has a ticket_id, each gets one, `<file stem>-<line>`. ticket_ids may repeat here.
    notes: rows per shape, ignored columns, files, ids made.

    Args:
        source: What to read.
        fingerprint: `fingerprint_source` of the plan; the source must still have it after reading.
        place: Where the source is read (`place_of`).
        out: Directory to write to.
        forgotten: Forgotten customers; their rows are dropped as `forgotten` before anything is written.
        as_of: A day, `2026-05-31`: rows created after it (UTC), or without created_at, are dropped, as `after_as_of`
            and `undated`.
        progress: Called with the number of rows read so far.

    Raises:
        DataError: TG0201 no such file; TG0202 a file is damaged or of another kind; TG0203 the source changed twice
            while it was read; TG0204 header, shapes and columns, or `as_of` and no row has created_at; TG0221 the
            source holds no row.
        ConfigError: The source's settings do not fit its files.
    """
    before = None if as_of is None else day_after(as_of)
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=out) as scratch:

        def read(attempt: int) -> Gathered:
            aside = Path(scratch) / str(attempt)
            aside.mkdir()
            return _read(source, place, progress, _gathered(source, aside, forgotten=forgotten, before=before))

        gathered = _read_unchanged(source, fingerprint, place, read)
        if gathered.n_undated and gathered.n_undated == gathered.n_rows:
            raise DataError(
                f"no row has created_at, so which tickets there were at {as_of} is not known", code="TG0204",
                where=kind_of(source).describe(source), hint="source.columns: {created_at: THEIR_NAME}",
            )  # fmt: skip
        return _write(gathered, source, out)


def check_first_rows(source: Source, place: Place) -> None:
    """Read up to `FIRST_ROWS` rows and raise what reading all would raise: a damaged file, columns that do not fit.

    A column that is in none of them may still be in a later row, so its absence is an error only if they are all.

    Raises:
        DataError: TG0201, TG0202, TG0204, as `extract_tickets`.
        ConfigError: The source's settings do not fit its files.
    """
    kind = kind_of(source)
    with tempfile.TemporaryDirectory(prefix="tunegate-first-rows-") as aside:
        gathered = _gathered(source, Path(aside))
        for part in kind.parts(source, place):
            gathered.read(part.name, part.prefix, takewhile(lambda _: gathered.n_rows < FIRST_ROWS, part.batches))
            if gathered.n_rows >= FIRST_ROWS:
                return
        gathered.finish()


def _gathered(
    source: Source, aside: Path, *, forgotten: Forgotten | None = None, before: datetime | None = None
) -> Gathered:
    from tasks.curate.gather import Gathered  # with it all readers, which reading a pipeline does not need
    from tasks.sources.readers.columns import TicketMaker

    return Gathered(TicketMaker(kind_of(source).row_reading(source)), aside=aside, forgotten=forgotten, before=before)


def day_after(day: str) -> datetime:
    """The end of a day in UTC, without a zone as in the tables of tickets.

    >>> day_after("2026-05-31")
    datetime.datetime(2026, 6, 1, 0, 0)
    """
    return datetime.fromisoformat(day) + timedelta(days=1)


def _write(gathered: Gathered, source: Source, out: Path) -> TicketTable:
    if not gathered.n_rows:
        raise DataError(
            "the source holds no row",
            code="TG0221",
            where=kind_of(source).describe(source),
            hint="an empty file, or a header alone, is nothing to train on",
        )
    n_out = gathered.write(out)
    n_removed, n_dropped = write_removed(gathered.removed(), out), gathered.n_dropped
    rows = RowCounts(n_in=gathered.n_rows, n_out=n_out, n_quarantined=n_removed - n_dropped, n_dropped=n_dropped)
    return TicketTable(root=out, rows=rows, notes=gathered.notes)


def _read_unchanged(source: Source, fingerprint: str, place: Place, read: Callable[[int], Gathered]) -> Gathered:
    """Read between two equal fingerprints; if the source changed, read once more, then give up."""
    kind = kind_of(source)
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(RETRY_DELAY_S)
        if kind.fingerprint(source, place) != fingerprint:
            continue
        result: Gathered | DataError
        try:
            result = read(attempt)
        except DataError as error:
            result = error  # perhaps of a file half written: raised only if the source did not change
        if kind.fingerprint(source, place) == fingerprint:
            if isinstance(result, DataError):
                raise result
            return result
    raise DataError(
        "the source changed while it was read, or since the run began",
        code="TG0203",
        where=kind.describe(source),
        hint="let its writer finish, then run again; a writer that renames a finished file is safe",
    )


def _read(source: Source, place: Place, progress: Progress, gathered: Gathered) -> Gathered:
    for part in kind_of(source).parts(source, place):
        gathered.read(part.name, part.prefix, _reported(part.batches, gathered, progress))
    gathered.finish()
    progress(gathered.n_rows, gathered.n_rows, "rows")
    return gathered


def _reported(batches: Iterator[RowBatch], gathered: Gathered, progress: Progress) -> Iterator[RowBatch]:
    for batch in batches:
        progress(gathered.n_rows, None, "rows")
        yield batch
