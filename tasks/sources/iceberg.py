"""`source.kind: iceberg`: one snapshot of an Iceberg table, by pyiceberg's plan; what is deleted is counted twice.

Only files inside the table's folder are opened, wherever the table says that they are: a table that was copied here is
read as well, and no network is used. It knows nothing of tickets.

Source: Apache Iceberg table specification, versions 1 to 3.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from schemas.errors import ConfigError, DataError, SecurityError, TunegateError
from schemas.iceberg import IcebergSource
from schemas.regular_file import open_regular
from tasks.files import sha256_json
from tasks.sources.extras import need_package
from tasks.sources.iceberg_deletes import Deletes, inexact, plain_path
from tasks.sources.kind import Part, Place, SourceKind
from tasks.sources.readers.headers import check_header, did_you_mean, listing
from tasks.sources.readers.read_arrow import arrow_batches
from tasks.sources.readers.records import Batch

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.io import FileIO
    from pyiceberg.table import DataScan
    from pyiceberg.table.metadata import TableMetadata

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True)
class _Table:
    """A table as one file of its metadata tells it."""

    folder: Path
    metadata: TableMetadata
    files: FileIO
    snapshot_id: int | None


class Iceberg(SourceKind[IcebergSource]):
    """A table whose files lie here."""

    spec = IcebergSource

    def describe(self, source: IcebergSource) -> str:
        """Its name, without the file of its metadata."""
        return source.table or Path(source.path or "").name.removesuffix(".metadata.json")

    def check(self, source: IcebergSource) -> None:
        """The extra is installed."""
        need_package("pyiceberg", kind=source.kind)

    def fingerprint(self, source: IcebergSource, place: Place) -> str:
        """Of table, snapshot and schema."""
        return fingerprint_iceberg(source, root=place.root)

    def parts(self, source: IcebergSource, place: Place) -> Iterator[Part]:
        """The snapshot."""
        name = f"iceberg:{snapshot_name(source, root=place.root)}"
        yield Part(name, self.describe(source).rpartition(".")[2], read_iceberg(source, root=place.root))


KIND = Iceberg()


def fingerprint_iceberg(source: IcebergSource, *, root: Path) -> str:
    """Digest of table, snapshot and schema: with an equal one the rows are equal, and no data file is read.

    Raises:
        ConfigError, DataError: as `read_iceberg`.
    """
    with _own_errors(source):
        table = _open(source, root)
        schema = _scan(table, source).projection()
        return sha256_json({
            "table": str(table.metadata.table_uuid), "snapshot": table.snapshot_id, "schema": schema.model_dump_json(),
        })  # fmt: skip


def snapshot_name(source: IcebergSource, *, root: Path) -> str:
    """The table's name with the snapshot that is read, as rows name it."""
    return f"{described(source)}@{_open(source, root).snapshot_id}"


def described(source: IcebergSource) -> str:
    """The table's name."""
    return source.table or source.path or ""


def read_iceberg(source: IcebergSource, *, root: Path) -> Iterator[Batch]:
    """Every row of the snapshot, numbered from 1; data files in the order of their names, rows as they stand there.

    Raises:
        ConfigError: TG0112, the extra is not installed; TG0130, there is no such table or snapshot.
        DataError: TG0201, no metadata; TG0202, a file is damaged; TG0204, a column occurs twice; TG0273, rows are
            deleted in a way that is not read here, or their number does not add up.
        SecurityError: TG0818, the table names a file outside of its folder.
    """
    with _own_errors(source):
        table = _open(source, root)
        scan = _scan(table, source)
        check_header([field.name for field in scan.projection().fields], where=described(source))
        yield from arrow_batches(_rows(table, scan))


def _rows(table: _Table, scan: DataScan) -> Iterator[pa.RecordBatch]:
    from pyiceberg.io.pyarrow import ArrowScan
    from pyiceberg.manifest import clear_manifest_cache

    clear_manifest_cache()  # it goes by path alone, and another table may have been at this one
    deletes = Deletes(table.files)
    reader = ArrowScan(table.metadata, table.files, scan.projection(), scan.row_filter)
    for task in sorted(scan.plan_files(), key=lambda task: task.file.file_path):
        expected, n_rows = task.file.record_count - deletes.n_rows(task.file, task.delete_files), 0
        for batch in reader.to_record_batches([task]):
            n_rows += batch.num_rows
            yield batch
        if n_rows != expected:
            raise inexact(f"a data file gives {n_rows:,} rows, and {expected:,} of it are not deleted")


def _scan(table: _Table, source: IcebergSource) -> DataScan:
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.table import DataScan

    return DataScan(
        table_metadata=table.metadata, io=table.files, row_filter=AlwaysTrue(), snapshot_id=source.snapshot_id
    )


def _open(source: IcebergSource, root: Path) -> _Table:
    """The table. Of its properties none is followed: one may name code that is to open the files."""
    need_package("pyiceberg", kind="iceberg")
    from pyiceberg.exceptions import ValidationError
    from pyiceberg.table.metadata import TableMetadataUtil

    path = _metadata_path(source, root)
    try:
        metadata = TableMetadataUtil.parse_raw(_read(path))
    except OSError as error:
        raise _absent(path, f"the table's metadata cannot be read: {error.strerror}") from None
    except (ValidationError, ValueError) as error:  # what they tell holds parts of the file
        raise DataError(
            f"the table's metadata cannot be understood: {type(error).__name__}", code="TG0202", where=str(path),
            hint="name another of its *.metadata.json, or write it again with a newer tool",
        ) from None  # fmt: skip
    folder = path.parent.parent if path.parent.name == "metadata" else path.parent
    current = source.snapshot_id if source.snapshot_id is not None else metadata.current_snapshot_id
    known = [each.snapshot_id for each in metadata.snapshots]
    if current is not None and current not in known:
        latest = ", ".join(str(each) for each in known[-5:]) or "none"
        raise ConfigError(
            f"the table has no snapshot {current}; the latest are {latest}",
            code="TG0130",
            where="source.snapshot_id",
            hint="an expired snapshot is gone; name one that is there, or none for the current one",
        )
    return _Table(folder, metadata, _files_of(folder, str(metadata.location)), current)


def _read(path: Path) -> str:
    with open_regular(path) as stream:
        return stream.read().decode("utf-8")


def _metadata_path(source: IcebergSource, root: Path) -> Path:
    if source.catalog is not None:
        return _in_catalog(root / Path(source.catalog).expanduser(), source.table or "")
    path = root / Path(source.path or "").expanduser()
    if path.name.endswith(".metadata.json"):
        return path
    hint = path / "metadata" / "version-hint.text"
    try:
        current = _read(hint).strip()
    except OSError:
        newest = sorted((path / "metadata").glob("*.metadata.json"), key=lambda each: each.stat().st_mtime)
        named = f"; the newest is {newest[-1].name}, which may be of a commit that failed" if newest else ""
        raise _absent(path, f"no metadata/version-hint.text says which metadata is current{named}") from None
    version = f"v{current}" if current.isdecimal() else current
    name = current if current.endswith(".metadata.json") else f"{version}.metadata.json"
    return path / "metadata" / Path(name).name


def _in_catalog(database: Path, table: str) -> Path:
    """Where the catalog says that the table's current metadata is."""
    if not database.is_file():
        raise _absent(database, "there is no such catalog")
    query = "SELECT table_namespace || '.' || table_name, metadata_location FROM iceberg_tables"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database.resolve()))}?mode=ro", uri=True)) as connection:
            found = connection.execute(query).fetchall()
    except sqlite3.Error as error:
        raise DataError(f"no SQL catalog of Iceberg: {error}", code="TG0202", where=str(database)) from None
    places = [place for name, place in found if name == table]
    if len(set(places)) != 1:
        names = sorted({str(name) for name, _ in found})
        reason = "is in several catalogs of this file" if places else f"is not among: {listing(names)}"
        raise ConfigError(
            f"table {table!r} {reason}", code="TG0130", where="source.table", hint=did_you_mean(table, names)
        )
    place = plain_path(str(places[0]))
    if _SCHEME.match(place):
        raise _elsewhere(place)
    return Path(place)


def _files_of(folder: Path, location: str) -> FileIO:
    """What opens the table's files: those inside its folder, and no others."""
    from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

    inside, prefix = folder.resolve(), plain_path(location).rstrip("/")

    class TableFiles(PyArrowFileIO):  # type: ignore[misc, unused-ignore]
        """Reads, and only here."""

        def new_input(self, location: str) -> PyArrowFile:
            named = plain_path(location)
            path = inside / named[len(prefix) :].lstrip("/") if named.startswith(f"{prefix}/") else Path(named)
            if not path.resolve().is_relative_to(inside) or (path == Path(named) and _SCHEME.match(named)):
                raise _elsewhere(location)
            return PyArrowFile(location, str(path), self.fs_by_scheme("file", None))

        def new_output(self, location: str) -> Any:
            raise _elsewhere(location)

        def delete(self, location: Any) -> None:
            raise _elsewhere(str(location))

    return TableFiles()


@contextmanager
def _own_errors(source: IcebergSource) -> Iterator[None]:
    """What pyiceberg and Arrow raise, as errors of ours, without rows in them."""
    try:
        yield
    except TunegateError:
        raise
    except FileNotFoundError as error:
        raise _absent(Path(described(source)), f"a file of the table is not there: {error.filename or ''}") from None
    except Exception as error:  # of a damaged file whatever its parser meets: zlib.error, TypeError, SystemError
        if "equality deletes" in str(error):
            raise inexact("it has equality deletes, which are not read here", where=described(source)) from None
        raise DataError(
            f"the table cannot be read: {type(error).__name__}", code="TG0202", where=described(source),
            hint="a file of it is damaged, or of a form that is not known; nothing of it was kept",
        ) from None  # fmt: skip


def _absent(path: Path, reason: str) -> DataError:
    return DataError(
        reason, code="TG0201", where=str(path),
        hint="name the *.metadata.json that your catalog calls current; relative paths start at pipelines.yaml",
    )  # fmt: skip


def _elsewhere(location: str) -> SecurityError:
    return SecurityError(
        "the table names a file outside of its folder",
        code="TG0818",
        where=location,
        hint="copy the whole table here (metadata and data), and name its metadata; nothing is fetched for it",
    )
