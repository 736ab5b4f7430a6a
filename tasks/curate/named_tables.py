"""Read the files of `tables` for SQL of the user's: named tables beside the tickets, which it can only read.

A file is read where it is used and kept nowhere, so that what it says of a customer is in no folder of ours; its digest
is part of the key of each step whose SQL names it. Tables are held in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ConfigError, TunegateError
from schemas.named_tables import NamedTable, NamedTables
from schemas.names import closest
from schemas.tables import Column
from tasks.storage.files import inside, sha256_file
from tasks.storage.warehouse import connect, quote_identifier, quote_text

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.storage.warehouse import Connection

CODE = "TG0126"


def tables_used(tables: Mapping[str, NamedTable], texts: Iterable[str]) -> NamedTables:
    """Return the tables whose name is a word of these SQL texts: a step depends on no other.

    >>> tables_used({"a": NamedTable(path="a.csv"), "b": NamedTable(path="b.csv")}, ["select 1 from B"])[0][0]
    'b'
    """
    words = {word.lower() for text in texts for word in re.findall(r"\w+", text)}
    return tuple((name, tables[name]) for name in sorted(words & tables.keys()))


def table_digests(tables: NamedTables, root: Path) -> dict[str, str]:
    """Return name -> sha256 of the table's file, and of the log that DuckDB has not merged into it yet.

    Raises:
        ConfigError: TG0110, a file cannot be read.
        SecurityError: TG0818, it is outside the folder of pipelines.yaml.
    """
    found: dict[str, str] = {}
    for name, table in tables:
        path = _file(name, table, root)
        log = path.with_name(f"{path.name}.wal")
        found[name] = " ".join(sha256_file(each) for each in (path, log) if each.is_file())
    return found


def register_tables(connection: Connection, tables: NamedTables, root: Path) -> None:
    """Make the tables known to a connection by their names.

    Raises:
        ConfigError, SecurityError: as `read_table`.
    """
    for name, table in tables:
        connection.register(name, read_table(name, table, root))


def columns_of(tables: NamedTables, root: Path) -> dict[str, tuple[Column, ...]]:
    """Return the columns of each table, as DuckDB sees them.

    Raises:
        ConfigError, SecurityError: as `read_table`.
    """
    found: dict[str, tuple[Column, ...]] = {}
    with connect(threads=1) as connection:
        register_tables(connection, tables, root)
        for name, _ in tables:
            described = connection.execute(f"DESCRIBE SELECT * FROM {quote_identifier(name)}").fetchall()
            found[name] = tuple(Column(column, kind, True, "none", "") for column, kind, *_ in described)
    return found


def read_table(name: str, table: NamedTable, root: Path) -> pa.Table:
    """Return the table's rows, in the order of its file.

    Raises:
        ConfigError: TG0110, the file cannot be read; TG0126, it is not what its name says, has no such table or column,
            or its key is null or repeated.
        SecurityError: TG0818, it is outside the folder of pipelines.yaml.
        StorageError, LockedError: the DuckDB file cannot be opened (see `connect`).
    """
    import duckdb

    path, where = _file(name, table, root), f"tables.{name}"
    database = path if table.is_database else None
    with connect(database, readable=(path,), read_only=database is not None, threads=1) as connection:
        try:
            rows = connection.sql(f"SELECT * FROM {_source(table, path)}").to_arrow_table()
        except duckdb.Error as error:
            known = [str(row[0]) for row in connection.execute("SHOW TABLES").fetchall()] if database else []
            why, hint = f"cannot be read ({type(error).__name__})", "is it what its suffix says, with one header?"
            if table.table is not None and table.table not in known:
                why, hint = f"has no table {table.table!r}", closest(table.table, known)
            raise ConfigError(f"{table.path} {why}", code=CODE, where=where, hint=hint) from None
        keys = table.key_columns
        for column in keys:
            if column not in rows.column_names:
                hint = closest(column, rows.column_names)
                raise ConfigError(f"{table.path} has no column {column!r}", code=CODE, where=f"{where}.key", hint=hint)
        if keys:
            connection.register("keyed", rows)
            named = ", ".join(map(quote_identifier, keys))
            null = " OR ".join(f"{quote_identifier(column)} IS NULL" for column in keys)
            [(n_null, n_repeated)] = connection.execute(
                f"SELECT count(*) FILTER ({null}), count(*) FILTER (NOT ({null})) - "
                f"count(DISTINCT ({named})) FILTER (NOT ({null})) FROM keyed"
            ).fetchall()
            if n_null or n_repeated:
                raise ConfigError(
                    f"the key {', '.join(keys)} of {table.path} is null in {n_null:,} rows and repeated in "
                    f"{n_repeated:,}", code=CODE, where=f"{where}.key", hint="a join by it would make tickets twice",
                )  # fmt: skip
    return rows


def table_faults(tables: Mapping[str, NamedTable], root: Path) -> Iterator[TunegateError]:
    """Yield what is wrong with the files, each read as a step reads it."""
    for name, table in tables.items():
        try:
            read_table(name, table, root)
        except TunegateError as error:
            yield error


def _source(table: NamedTable, path: Path) -> str:
    if table.table is not None:
        return quote_identifier(table.table)
    if path.suffix == ".csv":
        return f"read_csv({quote_text(str(path))}, all_varchar = true, header = true)"
    return f"read_parquet({quote_text(str(path))})"


def _file(name: str, table: NamedTable, root: Path) -> Path:
    path = inside(table.path, root, where=f"tables.{name}")
    if not path.is_file():
        raise ConfigError(
            f"the file of tables.{name} cannot be read: no such file", code="TG0110", where=str(path),
            hint="`path` is relative to pipelines.yaml",
        )  # fmt: skip
    return path
