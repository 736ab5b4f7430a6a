"""A table, or one SELECT, of a user's DuckDB file as batches of rows; the file is opened read-only and locked down.

It knows nothing of tickets. Called by `tasks/curate/extract.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ConfigError, DataError, SecurityError
from schemas.source import DuckDBSource
from tasks.curate.readers.headers import check_header, did_you_mean, listing
from tasks.curate.readers.read_arrow import arrow_batches
from tasks.curate.readers.records import BATCH_ROWS, Batch
from tasks.warehouse import connect, in_bounds, quote_identifier

if TYPE_CHECKING:
    import duckdb

LAKE = "ducklake_snapshot"
"""A table of every DuckLake's catalog."""


def read_duckdb(source: DuckDBSource, database: Path) -> Iterator[Batch]:
    """Every row of the table or SELECT, numbered from 1 in the order DuckDB gives them with one thread.

    Args:
        database: The file, or a copy of it.

    Raises:
        ConfigError: TG0130, no such table; TG0125, the query does not parse.
        DataError: TG0209, the query fails; TG0202, the file is damaged; TG0204, a column stands twice.
        SecurityError: TG0811, the query is not exactly one SELECT; TG0837, it takes too long or too much memory.
        LockedError: TG0520, another process holds the file for writing.
        StorageError: TG0519, the file is absent or no DuckDB file.
    """
    import duckdb

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
                    f"the DuckDB file is damaged, or its disk fails: {str(error).partition(chr(10))[0][:200]}",
                    code="TG0202",
                    where=str(database),
                    hint="restore it from a copy; nothing was read from it",
                ) from None
            raise DataError(
                f"DuckDB refuses the source's query: {str(error).partition(chr(10))[0][:200]}",
                code="TG0209",
                where=str(database),
            ) from None
        yield from arrow_batches(table.to_batches(max_chunksize=BATCH_ROWS))


def _table(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    """The catalogue's table or view of that name, quoted; `schema.table` where it is not in `main`."""
    found = connection.sql(
        "SELECT table_schema, table_name FROM information_schema.tables "
        "WHERE table_catalog = current_catalog() ORDER BY ALL"
    ).fetchall()
    known = {(table if schema == "main" else f"{schema}.{table}"): (schema, table) for schema, table in found}
    if name not in known:
        hint = did_you_mean(name, known)
        if LAKE in known:
            hint = f"this is the catalog of a DuckLake, which is not read: COPY (FROM lake.{name}) TO 'x.parquet' there"
        raise ConfigError(f"no table {name!r}; there are: {listing(known)}", code="TG0130", hint=hint)
    return ".".join(quote_identifier(part) for part in known[name])


def _query(connection: duckdb.DuckDBPyConnection, source: DuckDBSource) -> str:
    import duckdb

    try:
        statements = connection.extract_statements(source.query or "")
    except duckdb.Error as error:
        raise ConfigError(
            f"the source's query does not parse: {str(error).partition(chr(10))[0][:200]}", code="TG0125"
        ) from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise SecurityError("the source's query must be exactly one SELECT", code="TG0811", where=source.database)
    return statements[0].query
