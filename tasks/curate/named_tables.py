"""Read the files of `tables` for SQL of the user's: named tables beside the tickets, which it can only read.

A file is read where it is used and kept nowhere, so that what it says of a customer is in no folder of ours; its digest
is part of the key of each step whose SQL names it. Tables are held in memory. CSV is read as that of tickets is: by the
declared form, since a guessed one can take a title or a quote for the header and lose every row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from schemas.errors import ConfigError, DataError, TunegateError
from schemas.named_tables import NamedTable, NamedTables
from schemas.names import closest
from schemas.tables import Column
from tasks.sources.readers.read_csv import read_csv, read_header
from tasks.sources.readers.records import Fault
from tasks.storage.files import inside, sha256_file
from tasks.storage.warehouse import connect, quote_identifier, quote_text

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.storage.warehouse import Connection

CODE = "TG0126"
Read: TypeAlias = "dict[str, pa.Table]"
"""Name of a table -> its rows."""


def names_used(names: Iterable[str], texts: Iterable[str]) -> list[str]:
    """Return the tables whose name is a word of these SQL texts, sorted: a step depends on no other.

    >>> names_used(["a", "b"], ["select 1 from B"])
    ['b']
    """
    words = {word.lower() for text in texts for word in re.findall(r"\w+", text)}
    return sorted(words & set(names))


def tables_used(tables: Mapping[str, NamedTable], texts: Iterable[str], root: Path) -> NamedTables:
    """Return the tables that these SQL texts name, with the digests of their files.

    Raises:
        ConfigError: TG0110, a file cannot be read.
        SecurityError: TG0818, it is outside the folder of pipelines.yaml.
    """
    return tuple((name, tables[name], _digest(name, tables[name], root)) for name in names_used(tables, texts))


def _digest(name: str, table: NamedTable, root: Path) -> str:
    """sha256 of the table's file, and of the log that DuckDB has not merged into it yet."""
    path = _file(name, table, root)
    log = path.with_name(f"{path.name}.wal")
    return " ".join(sha256_file(each) for each in (path, log) if each.is_file())


def register_tables(connection: Connection, tables: Read) -> None:
    """Make the tables known to a connection by their names."""
    for name, rows in tables.items():
        connection.register(name, rows)


def read_tables(tables: NamedTables, root: Path) -> Read:
    """Return name -> rows, in the order of the file.

    Raises:
        DataError: TG0203, a file is not the one whose digest is in the step's key.
        ConfigError, SecurityError, StorageError, LockedError: as `read_table`.
    """
    found: Read = {}
    for name, table, digest in tables:
        found[name] = read_table(name, table, root)
        if _digest(name, table, root) != digest:
            raise DataError(
                f"{table.path} changed while it was read, or since the run began", code="TG0203",
                where=f"tables.{name}", hint="run again; a file that is written aside and renamed is never half there",
            )  # fmt: skip
    return found


def columns_of(tables: Read) -> dict[str, tuple[Column, ...]]:
    """Return the columns of each table, as DuckDB sees them."""
    found: dict[str, tuple[Column, ...]] = {}
    if not tables:
        return found
    with connect(threads=1) as connection:
        register_tables(connection, tables)
        for name in tables:
            described = connection.execute(f"DESCRIBE SELECT * FROM {quote_identifier(name)}").fetchall()
            found[name] = tuple(Column(column, kind, True, "none", "") for column, kind, *_ in described)
    return found


def read_table(name: str, table: NamedTable, root: Path) -> pa.Table:
    """Return the table's rows, in the order of its file.

    Raises:
        ConfigError: TG0110, the file cannot be read; TG0126, it is not what its name says, has a faulty row, or no such
            table or column, or its key is null or repeated.
        SecurityError: TG0818, it is outside the folder of pipelines.yaml.
        StorageError, LockedError: the DuckDB file cannot be opened (see `connect`).
    """
    path = _file(name, table, root)
    rows = _read_csv(name, table, path) if path.suffix == ".csv" else _read_by_duckdb(name, table, path)
    _check_key(rows, name, table)
    return rows


def _read_csv(name: str, table: NamedTable, path: Path) -> pa.Table:
    import pyarrow as pa

    where = f"tables.{name}"
    try:
        header = read_header(path, table.csv)
        columns: dict[str, list[object]] = {column: [] for column in header}
        if len({column.lower() for column in columns}) < len(columns):
            hint = "SQL does not tell upper from lower case"
            raise ConfigError(f"{table.path} has two columns of one name", code=CODE, where=where, hint=hint)
        for record in read_csv(path, table.csv):
            if isinstance(record.content, Fault):
                place = f"line {record.line:,} of {table.path}"
                raise ConfigError(f"{place}: {record.content.reason}", code=CODE, where=where)
            for column, values in columns.items():
                values.append(record.content[column])
    except DataError as error:
        hint = (error.hint or "").replace(" in `source`", f" in `{where}`")
        raise ConfigError(f"{table.path}: {error.message}", code=CODE, where=where, hint=hint or None) from None
    return pa.table({column: pa.array(values, pa.string()) for column, values in columns.items()})


def _read_by_duckdb(name: str, table: NamedTable, path: Path) -> pa.Table:
    import duckdb

    database = path if table.is_database else None
    source = f"read_parquet({quote_text(str(path))})" if table.table is None else quote_identifier(table.table)
    with connect(database, readable=(path,), read_only=database is not None, threads=1) as connection:
        try:
            return connection.sql(f"SELECT * FROM {source}").to_arrow_table()
        except duckdb.Error as error:
            known = [str(row[0]) for row in connection.execute("SHOW TABLES").fetchall()] if database else []
            why = f"cannot be read ({type(error).__name__})"
            hint = "a view may read its own file only" if database else "is it a Parquet file?"
            if table.table is not None and table.table.lower() not in {each.lower() for each in known}:
                why, hint = f"has no table {table.table!r}", closest(table.table, known)
            raise ConfigError(f"{table.path} {why}", code=CODE, where=f"tables.{name}", hint=hint) from None


def _check_key(rows: pa.Table, name: str, table: NamedTable) -> None:
    keys, where = table.key_columns, f"tables.{name}.key"
    for column in keys:
        if column not in rows.column_names:
            hint = closest(column, rows.column_names)
            raise ConfigError(f"{table.path} has no column {column!r}", code=CODE, where=where, hint=hint)
    if not keys:
        return
    with connect(threads=1) as connection:
        connection.register("keyed", rows)
        named = ", ".join(map(quote_identifier, keys))
        null = " OR ".join(f"{quote_identifier(column)} IS NULL" for column in keys)
        [(n_null, n_repeated)] = connection.execute(
            f"SELECT count(*) FILTER ({null}), count(*) FILTER (NOT ({null})) - "
            f"count(DISTINCT ({named})) FILTER (NOT ({null})) FROM keyed"
        ).fetchall()
    if n_null or n_repeated:
        raise ConfigError(
            f"the key {', '.join(keys)} of {table.path} is null in {n_null:,} rows and repeated in {n_repeated:,}",
            code=CODE, where=where, hint="a join by it would make tickets twice",
        )  # fmt: skip


def sound_tables(tables: Mapping[str, NamedTable], root: Path) -> tuple[Read, list[TunegateError]]:
    """Read the tables as a step does; return those that can be read, and what is wrong with the others."""
    found: Read = {}
    faults: list[TunegateError] = []
    for name, table in tables.items():
        try:
            found[name] = read_table(name, table, root)
        except TunegateError as error:
            faults.append(error)
    return found, faults


def _file(name: str, table: NamedTable, root: Path) -> Path:
    path = inside(table.path, root, where=f"tables.{name}")
    if not path.is_file():
        raise ConfigError(
            f"the file of tables.{name} cannot be read: no such file", code="TG0110", where=str(path),
            hint="`path` is relative to pipelines.yaml",
        )  # fmt: skip
    return path
