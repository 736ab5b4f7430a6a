"""Read the source: every row either becomes a ticket or is quarantined with its place and reason.

It knows nothing of what a valid ticket is (`validate` does). Called by `flows/curate.py`; heavy imports are inside
functions so that importing it costs nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import RowCounts, TicketTable
from schemas.errors import DataError
from schemas.source import DuckDBSource, FilesSource, GeneratedSource, HuggingFaceSource, SourceSpec
from tasks.progress import Progress, silent

if TYPE_CHECKING:
    from tasks.curate.readers.gather import Gathered
    from tasks.curate.readers.records import Batch
    from tasks.curate.readers.source_files import FileFormat
    from tasks.forget.hashes import Forgotten

ATTEMPTS = 2
RETRY_DELAY_S = 1.0


def fingerprint_source(source: SourceSpec, *, root: Path) -> str:
    """sha256 of what the source holds now: file names and bytes, the DuckDB file, or the generator's settings.

    A dataset of the hub is known by its commit; nothing is fetched to fingerprint it. How rows are mapped plays no
    part: that is in the spec.

    Raises:
        DataError: TG0201, a file or database is absent.
        LockedError: TG0551, another process holds the DuckDB file for writing.
    """
    from tasks.curate.readers.read_arrow import local_dataset
    from tasks.curate.readers.source_files import find_files, fingerprint_files, fingerprint_folder
    from tasks.files import sha256_json

    match source:
        case FilesSource():
            return fingerprint_files(find_files(source, root=root))
        case DuckDBSource():
            return _fingerprint_database(root / Path(source.database).expanduser())
        case HuggingFaceSource():
            folder = local_dataset(source, root=root)
            if folder:
                return fingerprint_folder(folder)
            return sha256_json({"path": source.path, "revision": source.revision, "split": source.split})
        case GeneratedSource():
            return sha256_json(source.model_dump(mode="json"))


def extract_tickets(
    *,
    source: SourceSpec,
    fingerprint: str,
    root: Path,
    out: Path,
    forgotten: Forgotten | None = None,
    progress: Progress = silent,
) -> TicketTable:
    """Write every row of the source to `tickets.parquet`, or to `removed.parquet` as quarantined.

    Rows without a ticket_id get one, `<file stem>-<line>`, where the whole file has none. ticket_ids may repeat here.
    notes: rows per shape, ignored columns, files, ids made.

    Args:
        source: What to read.
        fingerprint: `fingerprint_source` as the plan saw it; the source must still have it after reading.
        root: Folder of pipelines.yaml, to which paths are relative.
        out: Directory to write to.
        forgotten: Customers who were forgotten: their rows are dropped as `forgotten` before anything is written.
        progress: Told the rows read so far.

    Raises:
        DataError: TG0201 no such file; TG0202 a file is damaged or of another kind; TG0203 the source changed while it
            was read, twice; TG0204 to TG0207 and TG0216 header, shapes and columns; TG0208 the source holds no row.
        ConfigError: the source's settings do not fit what lies there.
    """
    with tempfile.TemporaryDirectory(prefix="aside-", dir=out) as aside:
        gathered = _read_unchanged(source, fingerprint, root, progress, Path(aside), forgotten)
        return _write(gathered, source, out)


def _write(gathered: Gathered, source: SourceSpec, out: Path) -> TicketTable:
    from tasks.curate.rows import write_removed

    if not gathered.n_rows:
        raise DataError(
            "the source holds no row",
            code="TG0208",
            where=_described(source),
            hint="a header alone or an empty file gives nothing to train on",
        )
    n_out = gathered.write(out)
    n_removed, n_dropped = write_removed(gathered.removed(), out), gathered.n_forgotten
    rows = RowCounts(n_in=gathered.n_rows, n_out=n_out, n_quarantined=n_removed - n_dropped, n_dropped=n_dropped)
    return TicketTable(root=out, rows=rows, notes=gathered.notes)


def _read_unchanged(
    source: SourceSpec, fingerprint: str, root: Path, progress: Progress, aside: Path, forgotten: Forgotten | None
) -> Gathered:
    """Read between two equal fingerprints; when the source moved, read once more, then give up."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(RETRY_DELAY_S)
        if fingerprint_source(source, root=root) != fingerprint:
            continue
        result: Gathered | DataError
        try:
            result = _read(source, root, progress, aside / str(attempt), forgotten)
        except DataError as error:
            result = error  # perhaps half a file: told only if the source stood still
        if fingerprint_source(source, root=root) == fingerprint:
            if isinstance(result, DataError):
                raise result
            return result
    raise DataError(
        "the source changed while it was read, or since the run began",
        code="TG0203",
        where=_described(source),
        hint="let the program that writes it finish, then run again; writing aside and renaming is safe",
    )


def _read(source: SourceSpec, root: Path, progress: Progress, aside: Path, forgotten: Forgotten | None) -> Gathered:
    from tasks.curate.readers.columns import TicketMaker
    from tasks.curate.readers.gather import Gathered

    spec = FilesSource(kind="files", paths=("generated",)) if isinstance(source, GeneratedSource) else source
    aside.mkdir()
    gathered = Gathered(TicketMaker(spec), aside=aside, forgotten=forgotten)
    for name, prefix, batches in _parts(source, root):
        gathered.read(name, prefix, _told(batches, gathered, progress))
    gathered.finish()
    progress(gathered.n_rows, gathered.n_rows, "rows")
    return gathered


def _parts(source: SourceSpec, root: Path) -> Iterator[tuple[str, str, Iterator[Batch]]]:
    """(name kept with the rows, prefix of ids made for them, batches of rows), one for each file or table."""
    match source:
        case FilesSource():
            from tasks.curate.readers.source_files import file_format, find_files, id_prefixes

            files = find_files(source, root=root)
            prefixes = id_prefixes(files)
            for file in files:
                yield file.name, prefixes[file.name], _reader(file_format(file, source.format))(file.path)
        case DuckDBSource():
            from tasks.curate.readers.read_duckdb import read_duckdb

            name = source.table or "query"
            yield f"{source.database}:{name}", name, read_duckdb(source, root=root)
        case HuggingFaceSource():
            from tasks.curate.readers.read_arrow import read_saved_dataset

            yield f"{source.path}:{source.split}", source.split, read_saved_dataset(source, root=root)
        case GeneratedSource():
            from tasks.curate.helpdesk import generate_tickets
            from tasks.curate.readers.read_jsonl import parse_blocks
            from tasks.curate.readers.streams import blocks_of

            yield "generated", "generated", parse_blocks(blocks_of(generate_tickets(source)))


def _reader(form: FileFormat) -> Callable[[Path], Iterator[Batch]]:
    from tasks.curate.readers.read_arrow import read_parquet
    from tasks.curate.readers.read_csv import read_csv
    from tasks.curate.readers.read_jsonl import read_json, read_jsonl
    from tasks.curate.readers.records import in_batches

    readers: dict[str, Callable[[Path], Iterator[Batch]]] = {
        "csv": lambda path: in_batches(read_csv(path)),
        "jsonl": read_jsonl,
        "json": lambda path: in_batches(read_json(path)),
        "parquet": read_parquet,
    }
    return readers[form]


def _told(batches: Iterator[Batch], gathered: Gathered, progress: Progress) -> Iterator[Batch]:
    for batch in batches:
        progress(gathered.n_rows, None, "rows")
        yield batch


def _fingerprint_database(database: Path) -> str:
    """sha256 of the file and of what a writer has not yet merged into it."""
    from tasks.curate.readers.source_files import SourceFile, fingerprint_files
    from tasks.warehouse import connect

    if not database.is_file():
        raise DataError(
            "no such DuckDB file", code="TG0201", where=str(database), hint="`database` is relative to pipelines.yaml"
        )
    with connect(database, read_only=True):  # refuses while a writer holds the file, and names it
        log = database.with_name(f"{database.name}.wal")
        files = [SourceFile("database", database)]
        if log.is_file():
            files.append(SourceFile("log", log))
        return fingerprint_files(files)


def _described(source: SourceSpec) -> str:
    match source:
        case FilesSource():
            return ", ".join(source.paths)
        case DuckDBSource():
            return source.database
        case HuggingFaceSource():
            return source.path
        case GeneratedSource():
            return "generated"
