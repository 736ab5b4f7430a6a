"""`source.kind: duckdb`: one table or SELECT of a DuckDB file, which is opened read-only and locked down.

While another program has the file open for writing, a copy of it is read (`database_copy.py`).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from schemas.errors import ConfigError, DataError, SecurityError
from schemas.source import DuckDBSource
from tasks.sources.database_copy import (
    copy_database,
    copy_of,
    fingerprint_database,
    is_held,
    remove_copy,
    require_database,
)
from tasks.sources.kind import Ingested, Ingestion, Part, Place, SourceKind
from tasks.sources.readers.headers import check_header, did_you_mean, listing
from tasks.sources.readers.read_arrow import arrow_batches
from tasks.sources.readers.records import BATCH_ROWS, RowBatch
from tasks.sources.tables import SourceDatabase, SourceTable, make_tables
from tasks.storage.warehouse import connect, in_bounds, quote_identifier

LAKE = "ducklake_snapshot"
"""A table that every catalog of a DuckLake has."""


class DuckDBFile(SourceKind[DuckDBSource]):
    """A DuckDB file; while other programs write it, a copy that lasts as long as the run."""

    spec = DuckDBSource

    def describe(self, source: DuckDBSource) -> str:
        return source.database

    def fingerprint(self, source: DuckDBSource, place: Place) -> str:
        """Digest of the file and its log."""
        return fingerprint_database(_database(source, place))

    def parts(self, source: DuckDBSource, place: Place) -> Iterator[Part]:
        name = source.table or "query"
        yield Part(f"{source.database}:{name}", name, read_duckdb(source, _database(source, place)))

    def identity(self, source: DuckDBSource) -> Mapping[str, Any]:
        return {"database": source.database}

    def ingest(self, source: DuckDBSource, ingestion: Ingestion) -> Ingested | None:
        """Copy the file if another program has it open for writing.

        Raises:
            DataError: TG0201, there is no such file; TG0203, it changes faster than it can be copied.
            StorageError: TG0519, it is not a DuckDB database.
        """
        database = _declared(source, ingestion.root)
        remove_copy(ingestion.folder)
        require_database(database)
        if not is_held(database):
            return None
        copy_database(database, ingestion.folder)
        return Ingested(0, 0, datetime.now(UTC).isoformat(timespec="seconds"))

    @contextmanager
    def database(self, source: DuckDBSource, place: Place) -> Iterator[SourceDatabase]:
        with connect(_database(source, place), read_only=True, threads=1) as connection:

            def select(sql: str) -> list[dict[str, object]]:
                found = connection.execute(sql)
                names = [name for name, *_ in found.description or ()]
                return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

            yield SourceDatabase(_tables(connection), select)

    def release(self, folder: Path) -> None:
        remove_copy(folder)

    def summary(self, source: DuckDBSource, here: Ingested) -> str:
        """A note that a copy is read."""
        return "another program has the DuckDB file open for writing: reading a copy of its last committed state"


KIND = DuckDBFile()


def _database(source: DuckDBSource, place: Place) -> Path:
    """The file, or this process's copy of it."""
    if place.folder is not None and copy_of(place.folder).is_file():
        return copy_of(place.folder)
    return _declared(source, place.root)


def _declared(source: DuckDBSource, root: Path) -> Path:
    return root / Path(source.database).expanduser()


def read_duckdb(source: DuckDBSource, database: Path) -> Iterator[RowBatch]:
    """Every row of the table or SELECT, numbered from 1 in the order DuckDB gives them with one thread.

    Raises:
        ConfigError: TG0130, no such table; TG0125, the query does not parse.
        DataError: TG0209, the query fails; TG0202, the file is damaged; TG0204, a column occurs twice.
        SecurityError: TG0811, the query is not a single SELECT; TG0837, it takes too long or too much memory.
        LockedError: TG0520, another process holds the file for writing.
        StorageError: TG0519, the file is missing or not a DuckDB file.
    """
    with connect(database, read_only=True, threads=1) as connection:
        query = f"SELECT * FROM {_table(connection, source.table)}" if source.table else _query(connection, source)
        try:
            relation = connection.sql(query)
            check_header(relation.columns, where=str(database))
            table = in_bounds(connection, relation.to_arrow_table, where=str(database))
        except duckdb.Error as error:
            broken = duckdb.IOException | duckdb.FatalException | duckdb.SerializationException
            if isinstance(error, broken) or "Corrupt database" in str(error):
                raise DataError(
                    f"the DuckDB file is damaged, or its disk is failing: {str(error).partition(chr(10))[0][:200]}",
                    code="TG0202",
                    where=str(database),
                    hint="restore it from a copy; nothing was read from it",
                ) from None
            raise DataError(
                f"DuckDB rejects the source's query: {str(error).partition(chr(10))[0][:200]}",
                code="TG0209",
                where=str(database),
            ) from None
        yield from arrow_batches(table.to_batches(max_chunksize=BATCH_ROWS))


def _tables(connection: duckdb.DuckDBPyConnection) -> tuple[SourceTable, ...]:
    columns: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    primary, foreign = {}, defaultdict(list)
    for schema, table, column, type_ in connection.execute(
        "SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns "
        "WHERE table_catalog = current_catalog() ORDER BY table_schema, table_name, ordinal_position"
    ).fetchall():
        columns[schema, table][column] = type_
    for schema, table, kind, names, other, others in connection.execute(
        "SELECT schema_name, table_name, constraint_type, constraint_column_names, referenced_table, "
        "referenced_column_names FROM duckdb_constraints() WHERE database_name = current_catalog() "
        "AND constraint_type IN ('PRIMARY KEY', 'FOREIGN KEY') ORDER BY constraint_index"
    ).fetchall():
        if kind == "PRIMARY KEY":
            primary[schema, table] = names
        elif len(names) == 1:
            foreign[schema, table].append((names[0], (schema, other), others[0]))
    return make_tables(
        columns,
        main="main",
        count=lambda sql: int((connection.execute(f"SELECT count(*) FROM {sql}").fetchone() or (0,))[0]),
        primary_keys=primary,
        foreign_keys=foreign,
    )


def _table(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    """The table or view of that name, quoted; `schema.table` if it is not in `main`."""
    found = connection.sql(
        "SELECT table_schema, table_name FROM information_schema.tables "
        "WHERE table_catalog = current_catalog() ORDER BY ALL"
    ).fetchall()
    known = {(table if schema == "main" else f"{schema}.{table}"): (schema, table) for schema, table in found}
    if name not in known:
        hint = did_you_mean(name, known)
        if LAKE in known:
            hint = f"DuckLake catalogs are not read; export the table there: COPY (FROM lake.{name}) TO 'x.parquet'"
        raise ConfigError(f"no table {name!r}; tables are: {listing(known)}", code="TG0130", hint=hint)
    return ".".join(quote_identifier(part) for part in known[name])


def _query(connection: duckdb.DuckDBPyConnection, source: DuckDBSource) -> str:
    try:
        statements = connection.extract_statements(source.query or "")
    except duckdb.Error as error:
        raise ConfigError(
            f"the source's query does not parse: {str(error).partition(chr(10))[0][:200]}", code="TG0125"
        ) from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise SecurityError("the source's query must be a single SELECT", code="TG0811", where=source.database)
    return statements[0].query
