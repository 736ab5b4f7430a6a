"""`source.kind: iceberg`: one snapshot of an Iceberg table, read by pyiceberg; deleted rows are counted a second time.

Only files inside the table's folder are opened, whatever location the table names: a copied table can be read, and no
network is used. pyiceberg finds the deletes of a data file by the spelling of its path and does not notice a damaged
list; here paths are normalised, and Parquet pages and deletion vectors are compared with their checksums.

Source: Apache Iceberg table specification, versions 1 to 3; Puffin file format.
"""

from __future__ import annotations

import re
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ConfigError, DataError, SecurityError, TunegateError
from schemas.regular_file import open_regular
from schemas.source import IcebergSource
from tasks.sources.kind import Part, Place, SourceKind, need_package
from tasks.sources.readers.headers import check_header, did_you_mean, listing
from tasks.sources.readers.read_arrow import arrow_batches
from tasks.sources.readers.records import RowBatch
from tasks.storage.files import sha256_json

if TYPE_CHECKING:
    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import DataScan
    from pyiceberg.table.metadata import TableMetadata

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True)
class _Table:
    """A table as described by one of its metadata files."""

    folder: Path
    metadata: TableMetadata
    files: FileIO
    snapshot_id: int | None


class Iceberg(SourceKind[IcebergSource]):
    """A table on this machine."""

    spec = IcebergSource

    def describe(self, source: IcebergSource) -> str:
        """Its name, without the suffix of the metadata file."""
        return source.table or Path(source.path or "").name.removesuffix(".metadata.json")

    def check(self, source: IcebergSource) -> None:
        """Check that the extra is installed."""
        need_package(source.kind)

    def fingerprint(self, source: IcebergSource, place: Place) -> str:
        """Digest of table, snapshot and schema, which determine the rows; no data file is read.

        Raises:
            ConfigError, DataError: As `read_iceberg`.
        """
        with _own_errors(source):
            table = _open(source, place.root)
            schema = _scan(table, source).projection()
            return sha256_json({
                "table": str(table.metadata.table_uuid), "snapshot": table.snapshot_id,
                "schema": schema.model_dump_json(),
            })  # fmt: skip

    def parts(self, source: IcebergSource, place: Place) -> Iterator[Part]:
        name = f"iceberg:{_described(source)}@{_open(source, place.root).snapshot_id}"
        yield Part(name, self.describe(source).rpartition(".")[2], read_iceberg(source, root=place.root))


KIND = Iceberg()


def _described(source: IcebergSource) -> str:
    return source.table or source.path or ""


def read_iceberg(source: IcebergSource, *, root: Path) -> Iterator[RowBatch]:
    """Every row of the snapshot, numbered from 1; data files in the order of their names.

    Raises:
        ConfigError: TG0112, the extra is not installed; TG0130, there is no such table or snapshot.
        DataError: TG0201, no metadata; TG0202, a file is damaged; TG0204, a column occurs twice; TG0273, deletes of an
            unsupported kind, or row counts that do not add up.
        SecurityError: TG0818, the table names a file outside of its folder.
    """
    with _own_errors(source):
        table = _open(source, root)
        scan = _scan(table, source)
        check_header([field.name for field in scan.projection().fields], where=_described(source))
        yield from arrow_batches(_rows(table, scan))


def _rows(table: _Table, scan: DataScan) -> Iterator[pa.RecordBatch]:
    from pyiceberg.io.pyarrow import ArrowScan
    from pyiceberg.manifest import clear_manifest_cache

    clear_manifest_cache()  # its key is the path alone, where another table may have been before
    deletes = Deletes(table.files)
    reader = ArrowScan(table.metadata, table.files, scan.projection(), scan.row_filter)
    for task in sorted(scan.plan_files(), key=lambda task: task.file.file_path):
        _check_pages(table, task.file)
        expected, n_rows = task.file.record_count - deletes.n_rows(task.file, task.delete_files), 0
        for batch in reader.to_record_batches([task]):
            n_rows += batch.num_rows
            yield batch
        if n_rows != expected:
            raise inexact(f"a data file yields {n_rows:,} rows, but {expected:,} of its rows are not deleted")


def _check_pages(table: _Table, file: DataFile) -> None:
    """Check the pages of a Parquet file against their checksums: pyiceberg does not, and has no setting for it.

    Raises:
        OSError: A page has changed since it was written.
    """
    from pyiceberg.manifest import FileFormat

    if file.file_format != FileFormat.PARQUET:
        return
    with table.files.new_input(file.file_path).open() as stream:
        for _ in pq.ParquetFile(pa.PythonFile(stream, mode="r"), page_checksum_verification=True).iter_batches():
            pass


def _scan(table: _Table, source: IcebergSource) -> DataScan:
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.table import DataScan

    return DataScan(
        table_metadata=table.metadata, io=table.files, row_filter=AlwaysTrue(), snapshot_id=source.snapshot_id
    )


def _open(source: IcebergSource, root: Path) -> _Table:
    """The table. Its properties are ignored: one may name code for opening the files."""
    need_package("iceberg")
    from pyiceberg.exceptions import ValidationError
    from pyiceberg.table.metadata import TableMetadataUtil

    path = _metadata_path(source, root)
    try:
        metadata = TableMetadataUtil.parse_raw(_read(path))
    except OSError as error:
        raise _absent(path, f"the table's metadata cannot be read: {error.strerror}") from None
    except (ValidationError, ValueError) as error:  # their messages contain parts of the file
        raise DataError(
            f"the table's metadata cannot be parsed: {type(error).__name__}", code="TG0202", where=str(path),
            hint="name another *.metadata.json of the table, or write it again with a newer tool",
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
            hint="it may have expired; name another, or none for the current one",
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
        named = f"; the newest is {newest[-1].name}, which may belong to a failed commit" if newest else ""
        raise _absent(path, f"no metadata/version-hint.text names the current metadata{named}") from None
    version = f"v{current}" if current.isdecimal() else current
    name = current if current.endswith(".metadata.json") else f"{version}.metadata.json"
    return path / "metadata" / Path(name).name


def _in_catalog(database: Path, table: str) -> Path:
    """Path of the table's current metadata, from the catalog."""
    if not database.is_file():
        raise _absent(database, "no such catalog")
    query = "SELECT table_namespace || '.' || table_name, metadata_location FROM iceberg_tables"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database.resolve()))}?mode=ro", uri=True)) as connection:
            found = connection.execute(query).fetchall()
    except sqlite3.Error as error:
        raise DataError(f"not an SQL catalog of Iceberg: {error}", code="TG0202", where=str(database)) from None
    places = [place for name, place in found if name == table]
    if len(set(places)) != 1:
        names = sorted({str(name) for name, _ in found})
        reason = "is in several catalogs of this file" if places else f"not found; tables are: {listing(names)}"
        raise ConfigError(
            f"table {table!r} {reason}", code="TG0130", where="source.table", hint=did_you_mean(table, names)
        )
    place = plain_path(str(places[0]))
    if _SCHEME.match(place):
        raise _elsewhere(place)
    return Path(place)


def _files_of(folder: Path, location: str) -> FileIO:
    """Opens the table's files, and none outside its folder."""
    from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

    inside, prefix = folder.resolve(), plain_path(location).rstrip("/")

    class TableFiles(PyArrowFileIO):  # type: ignore[misc, unused-ignore]
        """Reads files inside the folder; writes none."""

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
    """Turns errors of pyiceberg and Arrow into ours, without content of rows."""
    try:
        yield
    except TunegateError:
        raise
    except FileNotFoundError as error:
        raise _absent(Path(_described(source)), f"a file of the table is missing: {error.filename or ''}") from None
    except Exception as error:  # parsers raise all kinds on damaged files: zlib.error, TypeError, SystemError
        if "equality deletes" in str(error):
            raise inexact("it has equality deletes, which are not supported", where=_described(source)) from None
        raise DataError(
            f"the table cannot be read: {type(error).__name__}", code="TG0202", where=_described(source),
            hint="one of its files is damaged or of an unknown format; nothing was read from it",
        ) from None  # fmt: skip


def _absent(path: Path, reason: str) -> DataError:
    return DataError(
        reason, code="TG0201", where=str(path),
        hint="name the *.metadata.json that is current in your catalog; relative paths start at pipelines.yaml",
    )  # fmt: skip


def _elsewhere(location: str) -> SecurityError:
    return SecurityError(
        "the table names a file outside of its folder",
        code="TG0818",
        where=location,
        hint="copy the whole table here, metadata and data, and name the copy's metadata; nothing is downloaded",
    )


class Deletes:
    """The deletes of one snapshot; each file is read once."""

    def __init__(self, files: FileIO) -> None:
        self._files = files
        self._known: dict[str, dict[str, set[int]]] = {}

    def n_rows(self, data_file: DataFile, deletes: Iterable[DataFile]) -> int:
        """How many rows of a data file these deletes remove.

        Raises:
            DataError: TG0273, deletes in an unsupported format; TG0202, a deletion vector is damaged.
        """
        path, gone = plain_path(data_file.file_path), set[int]()
        for each in deletes:
            gone |= self._places(each).get(path, set())
        return len(gone)

    def _places(self, deletes: DataFile) -> dict[str, set[int]]:
        if deletes.file_path not in self._known:
            form = str(getattr(deletes.file_format, "value", deletes.file_format)).upper()
            read = {"PARQUET": self._of_parquet, "PUFFIN": self._of_puffin}.get(form)
            if read is None:
                raise inexact(f"it has deletes in {form} files")
            self._known[deletes.file_path] = read(deletes.file_path)
        return self._known[deletes.file_path]

    def _of_parquet(self, location: str) -> dict[str, set[int]]:
        columns = ["file_path", "pos"]
        with self._files.new_input(location).open() as stream:
            found = pq.read_table(pa.PythonFile(stream, mode="r"), columns=columns, page_checksum_verification=True)
        places: dict[str, set[int]] = defaultdict(set)
        for path, place in zip(*(found[name].to_pylist() for name in columns), strict=True):
            places[path].add(place)
        merged: dict[str, set[int]] = defaultdict(set)
        for path, some in places.items():
            merged[plain_path(path)] |= some
        return merged

    def _of_puffin(self, location: str) -> dict[str, set[int]]:
        from pyiceberg.table.deletion_vector import deletion_vectors_from_puffin_file
        from pyiceberg.table.puffin import PuffinFile

        with self._files.new_input(location).open() as stream:
            file = PuffinFile(stream.read())
        for blob in file.footer.blobs:
            raw = file.get_blob_payload(blob)
            length = int.from_bytes(raw[:4], "big")
            if zlib.crc32(raw[4 : 4 + length]) != int.from_bytes(raw[4 + length : 8 + length], "big"):
                raise DataError("a deletion vector is damaged: its checksum does not match", code="TG0202")
        places: dict[str, set[int]] = defaultdict(set)
        for vector in deletion_vectors_from_puffin_file(file):
            places[plain_path(vector.referenced_data_file)] |= set(vector.to_vector().to_pylist())
        return places


def plain_path(location: str) -> str:
    """The path of a `file:` location, in one spelling.

    >>> plain_path("file:///a/b"), plain_path("file:/a/b"), plain_path("s3://a/b")
    ('/a/b', '/a/b', 's3://a/b')
    """
    return re.sub(r"^file:/+", "/", location)


def inexact(reason: str, *, where: str | None = None) -> DataError:
    """The error for a table whose deleted rows might be read."""
    return DataError(
        f"deleted rows of the table might be read: {reason}",
        code="TG0273",
        where=where,
        hint="have the engine that writes it apply deletes to the data files (rewrite_data_files, OPTIMIZE), then run",
    )
