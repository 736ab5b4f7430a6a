"""`source.kind: sqlite`: one table or SELECT of a SQLite file, by Python's own sqlite3, read-only.

DuckDB would need an extension for it, which is no part of its package.
"""

import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from schemas.errors import ConfigError, DataError, SecurityError
from schemas.source import SQLiteSource
from tasks.sources.formats import SourceFile, fingerprint_files
from tasks.sources.kind import Part, Place, SourceKind
from tasks.sources.readers.headers import check_header, did_you_mean, listing
from tasks.sources.readers.read_arrow import NOT_UTF8
from tasks.sources.readers.records import Record, RowBatch, in_batches
from tasks.sources.tables import SourceDatabase, SourceTable, make_tables
from tasks.storage.warehouse import STEP_TIMEOUT_S, quote_identifier

MAGIC = b"SQLite format 3\0"
MAX_VALUE_BYTES = 64 << 20
"""Longest text or row that SQLite may build, so that a query cannot fill the memory."""
_OPERATIONS = 100_000
"""SQLite's own steps between two looks at the clock."""
_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})


class _NotUtf8:
    """Stands for a text that is not UTF-8."""


class SQLiteFile(SourceKind[SQLiteSource]):
    """A SQLite file, read in place: SQLite lets others write it meanwhile, and a run refuses what changed."""

    spec = SQLiteSource

    def describe(self, source: SQLiteSource) -> str:
        return source.database

    def fingerprint(self, source: SQLiteSource, place: Place) -> str:
        """Digest of the file and of its log, which a writer has not yet merged into it."""
        database = _existing(source, place)
        files = [SourceFile("database", database), SourceFile("log", database.with_name(f"{database.name}-wal"))]
        return fingerprint_files(file for file in files if file.path.is_file() and file.path.stat().st_size)

    def parts(self, source: SQLiteSource, place: Place) -> Iterator[Part]:
        name = source.table or "query"
        yield Part(f"{source.database}:{name}", name, _read(source, _existing(source, place)))

    @contextmanager
    def database(self, source: SQLiteSource, place: Place) -> Iterator[SourceDatabase]:
        with _connect(_existing(source, place)) as connection, _own_errors(source):

            def select(sql: str) -> list[dict[str, object]]:
                found = connection.execute(sql)
                names = [name for name, *_ in found.description]
                return [dict(zip(names, row, strict=True)) for row in found]

            tables = _tables(connection)
            _only_reads(connection)
            yield SourceDatabase(tables, select)


KIND = SQLiteFile()


def _existing(source: SQLiteSource, place: Place) -> Path:
    path = place.root / Path(source.database).expanduser()
    if not path.is_file():
        hint = "`database` is relative to pipelines.yaml"
        raise DataError("no such SQLite file", code="TG0201", where=str(path), hint=hint)
    with path.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            hint = "`kind: files` reads CSV, JSON lines and Parquet, and `kind: duckdb` DuckDB files"
            raise DataError("the file is not a SQLite database", code="TG0202", where=str(path), hint=hint)
    return path


@contextmanager
def _connect(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write; nothing is created where there is no file."""
    address = f"{path.absolute().as_uri()}?mode=ro"
    # `parts` may be read by another thread than the one that began: it is never used by two at once.
    with closing(sqlite3.connect(address, uri=True, check_same_thread=False)) as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        connection.text_factory = _decoded
        yield connection


def _only_reads(connection: sqlite3.Connection) -> None:
    """Refuse statements other than a SELECT over this file, and end one that takes too long."""
    deadline = time.monotonic() + STEP_TIMEOUT_S
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _OPERATIONS)
    connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY)


def _read(source: SQLiteSource, database: Path) -> Iterator[RowBatch]:
    """Every row of the table or SELECT, numbered from 1 in the order in which SQLite gives them.

    Raises:
        ConfigError: TG0130, no such table; TG0125, the query does not parse.
        DataError: TG0209, the query fails; TG0202, the file is damaged; TG0204, a column occurs twice.
        SecurityError: TG0811, the query is not a single SELECT; TG0837, it takes too long.
    """
    with _connect(database) as connection, _own_errors(source):
        query = source.query
        if source.table is not None:
            known = {name for _, name in _columns(connection)}
            if source.table not in known:
                message = f"no table {source.table!r}; tables are: {listing(known)}"
                raise ConfigError(message, code="TG0130", hint=did_you_mean(source.table, known))
            query = f"SELECT * FROM {quote_identifier(source.table)}"
        _only_reads(connection)
        found = connection.execute(query or "")
        if found.description is None:
            raise SecurityError("the source's query must be a single SELECT", code="TG0811", where=source.database)
        names = [name for name, *_ in found.description]
        check_header(names, where=str(database))
        yield from in_batches(_record(number, names, row) for number, row in enumerate(found, 1))


def _record(number: int, names: list[str], row: tuple[object, ...]) -> Record:
    if any(isinstance(value, _NotUtf8) for value in row):
        return Record(number, None, NOT_UTF8)
    return Record(number, None, dict(zip(names, row, strict=True)))


def _decoded(data: bytes) -> object:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _NotUtf8()


@contextmanager
def _own_errors(source: SQLiteSource) -> Iterator[None]:
    """Turns errors of SQLite into ours."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as error:
        name, message = getattr(error, "sqlite_errorname", None) or "", str(error)[:200]
        if name == "SQLITE_AUTH" or "one statement" in message:
            reason = "the source's query must be a single SELECT"
            raise SecurityError(reason, code="TG0811", where=source.database) from None
        if name == "SQLITE_INTERRUPT":
            reason = f"the SQL did not end within {STEP_TIMEOUT_S:g} s"
            raise SecurityError(reason, code="TG0837", where=source.database, hint="select fewer rows") from None
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR")):
            reason, hint = f"the SQLite file is damaged: {message}", "restore it from a copy; nothing was read from it"
            raise DataError(reason, code="TG0202", where=source.database, hint=hint) from None
        if "syntax error" in message or "incomplete input" in message or "unrecognized token" in message:
            raise ConfigError(f"the source's query does not parse: {message}", code="TG0125") from None
        reason = f"SQLite rejects the source's query: {message}"
        copy = None
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_BUSY", "SQLITE_LOCKED")):
            reason = f"SQLite cannot read the file now: {message}"
            copy = "read a copy: sqlite3 FILE \".backup 'copy.sqlite'\""
        raise DataError(reason, code="TG0209", where=source.database, hint=copy) from None


def _columns(connection: sqlite3.Connection) -> dict[tuple[str, str], dict[str, str]]:
    """The names of each table and view, with its columns."""
    found = connection.execute(
        "SELECT t.name, c.name FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c "
        "WHERE t.type IN ('table', 'view') AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY t.name, c.cid"
    )
    columns: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for table, column in found:
        columns["main", str(table)][str(column)] = ""
    return dict(columns)


def _tables(connection: sqlite3.Connection) -> tuple[SourceTable, ...]:
    columns = _columns(connection)
    primary, foreign = defaultdict(list), defaultdict(list)
    for table in columns:
        key = "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk"
        primary[table] = [name for (name,) in connection.execute(key, table[1:])]
    for table in columns:
        links = 'SELECT id, "from", "table", "to" FROM pragma_foreign_key_list(?) ORDER BY id'
        by_id = defaultdict(list)
        for number, column, other, to in connection.execute(links, table[1:]):
            by_id[number].append((column, ("main", other), to))
        for (column, other, to), *more in by_id.values():
            to = to or (primary[other][0] if len(primary[other]) == 1 else None)  # the other's primary key
            if not more and to:
                foreign[table].append((column, other, to))
    return make_tables(
        columns,
        main="main",
        count=lambda sql: int(connection.execute(f"SELECT count(*) FROM {sql}").fetchone()[0]),
        primary_keys=primary,
        foreign_keys=foreign,
    )
