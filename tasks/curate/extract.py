"""Read the source: every row either becomes a ticket or is quarantined with its place and reason.

It knows nothing of what a valid ticket is (`validate` does). Called by `flows/curate.py`; heavy imports are inside
functions so that importing it costs nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from schemas.artifacts import RowCounts, TicketTable
from schemas.errors import DataError
from schemas.iceberg import IcebergSource
from schemas.remote_files import RemoteFilesSource
from schemas.remote_source import PostgresSource, RemoteSource, ZendeskSource
from schemas.source import DuckDBSource, FilesSource, GeneratedSource, HuggingFaceSource, SourceSpec
from tasks.forget.hashes import Forgotten
from tasks.progress import Progress, silent
from tasks.step import as_step

if TYPE_CHECKING:
    from tasks.curate.readers.gather import Gathered
    from tasks.curate.readers.layouts import TabularSource
    from tasks.curate.readers.records import Batch
    from tasks.curate.readers.source_files import FileFormat, SourceFile

ATTEMPTS = 2
RETRY_DELAY_S = 1.0


class _Places(NamedTuple):
    root: Path
    landed: Path | None


def fingerprint_source(source: SourceSpec, *, root: Path, landed: Path | None = None) -> str:
    """sha256 of what the source holds now: file names and bytes, the DuckDB file, or the generator's settings.

    Of a help desk, of Postgres and of remote files it is what was brought in below `landed`; nobody is asked.

    A dataset of the hub is known by its commit; nothing is fetched to fingerprint it. How rows are mapped plays no
    part: that is in the spec.

    Raises:
        DataError: TG0201, a file or database is absent.
        LockedError: TG0520, it is being brought in right now.
        StorageError: TG0519, the file is no DuckDB database.
    """
    from tasks.curate.ingest.copies import copies_fingerprint
    from tasks.curate.ingest.in_use import fingerprint_database
    from tasks.curate.ingest.landing import landed_fingerprint
    from tasks.curate.readers.read_arrow import local_dataset
    from tasks.curate.readers.source_files import find_files, fingerprint_files, fingerprint_folder
    from tasks.files import sha256_json

    match source:
        case FilesSource():
            return fingerprint_files(find_files(source, root=root))
        case RemoteFilesSource():
            return copies_fingerprint(source, _folder(source, landed))
        case DuckDBSource():
            return fingerprint_database(_database(source, root, landed))
        case IcebergSource():
            from tasks.curate.readers.read_iceberg import fingerprint_iceberg

            return fingerprint_iceberg(source, root=root)
        case HuggingFaceSource():
            folder = local_dataset(source, root=root)
            if folder:
                return fingerprint_folder(folder)
            return sha256_json({"path": source.path, "revision": source.revision, "split": source.split})
        case GeneratedSource():
            return sha256_json(source.model_dump(mode="json"))
        case ZendeskSource() | PostgresSource():
            return landed_fingerprint(_folder(source, landed))


@as_step(
    "extract",
    libraries=("datasets", "duckdb", "orjson", "pyarrow", "zstandard"),
    context=("root", "landed", "forgotten"),
)
def extract_tickets(
    out: Path,
    *,
    source: SourceSpec,
    fingerprint: str,
    root: Path,
    landed: Path | None = None,
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
        root: Folder of pipelines.yaml, to which paths are relative.
        out: Directory to write to.
        landed: Where the source was brought in, if it needs that.
        forgotten: Customers who were forgotten: their rows are dropped as `forgotten` before anything is written.
        progress: Told the rows read so far.

    Raises:
        DataError: TG0201 no such file; TG0202 a file is damaged or of another kind; TG0203 the source changed while it
            was read, twice; TG0204 header, shapes and columns; TG0221 the source holds no row.
        ConfigError: the source's settings do not fit what lies there.
    """
    with tempfile.TemporaryDirectory(prefix="aside-", dir=out) as aside:
        gathered = _read_unchanged(source, fingerprint, _Places(root, landed), progress, Path(aside), forgotten)
        return _write(gathered, source, out)


def _write(gathered: Gathered, source: SourceSpec, out: Path) -> TicketTable:
    from tasks.curate.rows import write_removed

    if not gathered.n_rows:
        raise DataError(
            "the source holds no row",
            code="TG0221",
            where=_described(source),
            hint="a header alone or an empty file gives nothing to train on",
        )
    n_out = gathered.write(out)
    n_removed, n_dropped = write_removed(gathered.removed(), out), gathered.n_dropped
    rows = RowCounts(n_in=gathered.n_rows, n_out=n_out, n_quarantined=n_removed - n_dropped, n_dropped=n_dropped)
    return TicketTable(root=out, rows=rows, notes=gathered.notes)


def _read_unchanged(
    source: SourceSpec, fingerprint: str, places: _Places, progress: Progress, aside: Path, forgotten: Forgotten | None
) -> Gathered:
    """Read between two equal fingerprints; when the source moved, read once more, then give up."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(RETRY_DELAY_S)
        if fingerprint_source(source, root=places.root, landed=places.landed) != fingerprint:
            continue
        result: Gathered | DataError
        try:
            result = _read(source, places, progress, aside / str(attempt), forgotten)
        except DataError as error:
            result = error  # perhaps half a file: told only if the source stood still
        if fingerprint_source(source, root=places.root, landed=places.landed) == fingerprint:
            if isinstance(result, DataError):
                raise result
            return result
    raise DataError(
        "the source changed while it was read, or since the run began",
        code="TG0203",
        where=_described(source),
        hint="let the program that writes it finish, then run again; writing aside and renaming is safe",
    )


def _read(
    source: SourceSpec, places: _Places, progress: Progress, aside: Path, forgotten: Forgotten | None
) -> Gathered:
    from tasks.curate.readers.columns import TicketMaker
    from tasks.curate.readers.gather import Gathered

    spec: TabularSource
    match source:
        case GeneratedSource():
            spec = FilesSource(kind="files", paths=("generated",))
        case ZendeskSource():
            spec = FilesSource(kind="files", paths=(source.kind,), shape="ticket", columns=source.columns)
        case _:
            spec = source
    aside.mkdir()
    gathered = Gathered(TicketMaker(spec), aside=aside, forgotten=forgotten)
    for name, prefix, batches in _parts(source, places.root, places.landed):
        gathered.read(name, prefix, _told(batches, gathered, progress))
    gathered.finish()
    progress(gathered.n_rows, gathered.n_rows, "rows")
    return gathered


def _parts(source: SourceSpec, root: Path, landed: Path | None) -> Iterator[tuple[str, str, Iterator[Batch]]]:
    """(name kept with the rows, prefix of ids made for them, batches of rows), one for each file or table."""
    match source:
        case FilesSource() | RemoteFilesSource():
            from tasks.curate.readers.source_files import file_format, id_prefixes

            files = _files(source, root, landed)
            prefixes = id_prefixes(files)
            for file in files:
                yield file.name, prefixes[file.name], reader_of(file_format(file, source.format))(file.path)
        case DuckDBSource():
            from tasks.curate.readers.read_duckdb import read_duckdb

            name = source.table or "query"
            yield f"{source.database}:{name}", name, read_duckdb(source, _database(source, root, landed))
        case IcebergSource():
            from tasks.curate.readers.read_iceberg import read_iceberg, snapshot_named

            named = snapshot_named(source, root=root)
            yield f"iceberg:{named}", _described(source).rpartition(".")[2], read_iceberg(source, root=root)
        case HuggingFaceSource():
            from tasks.curate.readers.read_arrow import read_saved_dataset

            yield f"{source.path}:{source.split}", source.split, read_saved_dataset(source, root=root)
        case GeneratedSource():
            from tasks.curate.helpdesk import generate_tickets
            from tasks.curate.readers.read_jsonl import parse_blocks
            from tasks.curate.readers.streams import blocks_of

            yield "generated", "generated", parse_blocks(blocks_of(generate_tickets(source)))
        case ZendeskSource() | PostgresSource():
            from tasks.curate.readers.read_landed import read_landed

            name = _described(source)
            yield f"{source.kind}:{name}", name, read_landed(source, _folder(source, landed))


def _files(source: FilesSource | RemoteFilesSource, root: Path, landed: Path | None) -> tuple[SourceFile, ...]:
    from tasks.curate.ingest.copies import need_copies
    from tasks.curate.readers.source_files import find_files

    if isinstance(source, FilesSource):
        return find_files(source, root=root)
    return need_copies(source, _folder(source, landed))


def reader_of(form: FileFormat) -> Callable[[Path], Iterator[Batch]]:
    """What reads a file of this format, batch by batch; also for `tunegate init` (`tasks/start/file_profile.py`)."""
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


def _database(source: DuckDBSource, root: Path, landed: Path | None) -> Path:
    """The file, or this process's copy of it, made while another program writes it."""
    from tasks.curate.ingest.bring import ingest_folder
    from tasks.curate.ingest.in_use import copy_of

    folder = ingest_folder(source, landed) if landed is not None else None
    if folder is not None and copy_of(folder).is_file():
        return copy_of(folder)
    return root / Path(source.database).expanduser()


def _folder(source: RemoteSource | RemoteFilesSource, landed: Path | None) -> Path:
    from tasks.curate.ingest.bring import ingest_folder

    folder = ingest_folder(source, landed or Path())
    if landed is None or folder is None:
        raise ValueError(f"nobody said where {source.kind} is brought in")
    return folder


def _described(source: SourceSpec) -> str:
    match source:
        case FilesSource():
            return ", ".join(source.paths)
        case RemoteFilesSource():
            return ", ".join(source.urls)
        case DuckDBSource():
            return source.database
        case IcebergSource():
            return source.table or Path(source.path or "").name.removesuffix(".metadata.json")
        case HuggingFaceSource():
            return source.path
        case GeneratedSource():
            return "generated"
        case ZendeskSource():
            return urlsplit(source.address).hostname or source.address
        case PostgresSource():
            return source.table or "query"
