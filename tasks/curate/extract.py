"""Read the source: every row either becomes a ticket or is quarantined with its place and reason.

It knows nothing of what a valid ticket is (`validate` does). Called by `flows/curate.py`; heavy imports are inside
functions so that importing it costs nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import RowCounts, TicketTable
from schemas.errors import DataError
from schemas.file_reading import Source
from tasks.privacy.hashes import Forgotten
from tasks.progress import Progress, silent
from tasks.sources.kind import Place
from tasks.sources.registry import kind_of
from tasks.step import as_step

if TYPE_CHECKING:
    from tasks.curate.gather import Gathered
    from tasks.sources.readers.records import Batch

ATTEMPTS = 2
RETRY_DELAY_S = 1.0


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
    progress: Progress = silent,
) -> TicketTable:
    """Write every row of the source to `tickets.parquet`, or to `removed.parquet` as quarantined.

    What a service has deleted is in `removed.parquet` too, dropped as `deleted_upstream`.

    Rows without a ticket_id get one, `<file stem>-<line>`, where the whole file has none. ticket_ids may repeat here.
    notes: rows per shape, ignored columns, files, ids made.

    Args:
        source: What to read.
        fingerprint: `fingerprint_source` as the plan saw it; the source must still have it after reading.
        place: Where the source is read (`place_of`).
        out: Directory to write to.
        forgotten: Customers who were forgotten: their rows are dropped as `forgotten` before anything is written.
        progress: Receives the rows read so far.

    Raises:
        DataError: TG0201 no such file; TG0202 a file is damaged or of another kind; TG0203 the source changed while it
            was read, twice; TG0204 header, shapes and columns; TG0221 the source holds no row.
        ConfigError: the source's settings do not fit what lies there.
    """
    with tempfile.TemporaryDirectory(prefix="aside-", dir=out) as aside:
        gathered = _read_unchanged(source, fingerprint, place, progress, Path(aside), forgotten)
        return _write(gathered, source, out)


def _write(gathered: Gathered, source: Source, out: Path) -> TicketTable:
    from tasks.curate.rows import write_removed

    if not gathered.n_rows:
        raise DataError(
            "the source holds no row",
            code="TG0221",
            where=kind_of(source).describe(source),
            hint="a header alone or an empty file gives nothing to train on",
        )
    n_out = gathered.write(out)
    n_removed, n_dropped = write_removed(gathered.removed(), out), gathered.n_dropped
    rows = RowCounts(n_in=gathered.n_rows, n_out=n_out, n_quarantined=n_removed - n_dropped, n_dropped=n_dropped)
    return TicketTable(root=out, rows=rows, notes=gathered.notes)


def _read_unchanged(
    source: Source, fingerprint: str, place: Place, progress: Progress, aside: Path, forgotten: Forgotten | None
) -> Gathered:
    """Read between two equal fingerprints; when the source moved, read once more, then give up."""
    kind = kind_of(source)
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(RETRY_DELAY_S)
        if kind.fingerprint(source, place) != fingerprint:
            continue
        result: Gathered | DataError
        try:
            result = _read(source, place, progress, aside / str(attempt), forgotten)
        except DataError as error:
            result = error  # perhaps half a file: raised only if the source did not change
        if kind.fingerprint(source, place) == fingerprint:
            if isinstance(result, DataError):
                raise result
            return result
    raise DataError(
        "the source changed while it was read, or since the run began",
        code="TG0203",
        where=kind.describe(source),
        hint="let the program that writes it finish, then run again; writing aside and renaming is safe",
    )


def _read(source: Source, place: Place, progress: Progress, aside: Path, forgotten: Forgotten | None) -> Gathered:
    from tasks.curate.gather import Gathered
    from tasks.sources.readers.columns import TicketMaker

    kind = kind_of(source)
    aside.mkdir()
    gathered = Gathered(TicketMaker(kind.row_reading(source)), aside=aside, forgotten=forgotten)
    for part in kind.parts(source, place):
        gathered.read(part.name, part.prefix, _reported(part.batches, gathered, progress))
    gathered.finish()
    progress(gathered.n_rows, gathered.n_rows, "rows")
    return gathered


def _reported(batches: Iterator[Batch], gathered: Gathered, progress: Progress) -> Iterator[Batch]:
    for batch in batches:
        progress(gathered.n_rows, None, "rows")
        yield batch
