"""`source.kind: postgres`: a table or SELECT, ingested page by page in the order of cursor and key.

Each page and the position after it are committed in one transaction, and all are read in one read-only snapshot of the
database. The statements are in `postgres_sql.py`.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from schemas.errors import ConfigError, DataError, ServiceError
from schemas.remote_source import PostgresSource
from schemas.secret import secret_value
from tasks.progress import Progress
from tasks.sources.kind import Ingested, Ingestion, Place, need_package
from tasks.sources.landed_rows import DELETED, LandedRows, faulty_records
from tasks.sources.landing import FAULTY, FILE, LandedRow, Landing, open_landing, reason_of
from tasks.sources.postgres_sql import Statements, check_query
from tasks.sources.readers.records import BATCH_ROWS, Fault, Record
from tasks.sources.row_owner import RowOwner
from tasks.sources.tables import SourceDatabase, SourceTable, make_tables
from tasks.storage.failpoint import reach

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812 - a class under a lower-case name

CONNECT_TIMEOUT_S = 15
_LOGIN = ("28",)  # classes of SQLSTATE: invalid authorisation
_LOST = ("08", "53", "57", "40")  # connection, resources, operator intervention, rolled back
_TOO_LONG = "57014"
_ARRIVED = "arrived"
_EXACT = 2**53
_TIME_TYPES = (1082, 1083, 1114, 1184, 1186, 1266)
"""Dates, times and intervals; read as text, since Postgres has some that Python cannot represent."""


class Postgres(LandedRows[PostgresSource]):
    """A table of a database, or a SELECT."""

    spec = PostgresSource

    def describe(self, source: PostgresSource) -> str:
        return source.table or "query"

    def check(self, source: PostgresSource) -> None:
        """Check that the extra is installed, the address parses, and the query is a single SELECT.

        Raises:
            ConfigError: TG0112; TG0106, the variable of `dsn` is not set; TG0103, it is not the address of a database;
                TG0125, the query does not parse.
            SecurityError: TG0811, the query is not a single SELECT.
        """
        origin_of(source)
        check_query(source)

    def identity(self, source: PostgresSource) -> Mapping[str, Any]:
        """The table or query, with key and cursor."""
        return source.model_dump(include={"dsn", "table", "query", "key", "cursor"}, mode="json")

    def ingest(self, source: PostgresSource, ingestion: Ingestion) -> Ingested | None:
        """Fetch what changed since the last call, or everything if the `dsn` names another database now."""
        _discard_other_origin(source, ingestion.folder)
        return super().ingest(source, ingestion)

    def owner(self, source: PostgresSource) -> RowOwner:
        """The column that names the customer, and its place in the key."""
        customer, ticket = (source.columns.get(name, name) for name in ("customer_id", "ticket_id"))
        places = {name: place for place, name in enumerate(source.key)}
        return RowOwner(customer, places.get(customer), places.get(ticket))

    def sync(self, source: PostgresSource, landing: Landing, *, progress: Progress) -> None:
        """Fetch rows after the committed position, then compare the keys.

        Raises:
            ConfigError: TG0112, the extra is not installed; TG0130, key or cursor do not fit the table; TG0106, the
                variable of `dsn` is not set; TG0130, there is no such table; TG0125, the query does not parse.
            DataError: TG0209, the server refuses the query.
            ServiceError: TG0707, the login is refused; TG0709, there is no connection, or it was lost.
            SecurityError: TG0811, the query is not a single SELECT.
        """
        check_query(source)
        with _own_errors(source), _snapshot(source) as connection:
            statements = Statements(source, _columns(source, connection))
            _check_key(source, connection, statements)
            _fetch_pages(source, connection, landing, statements, progress)
            _fetch_faulty(connection, landing, statements)
            if source.deletions == "compare":
                _compare_keys(source, connection, landing, statements)

    def records(self, source: PostgresSource, landing: Landing) -> Iterator[Record]:
        place = self.owner(source).ticket_in_key
        number = 0
        keys = landing.query("SELECT key FROM rows WHERE stream = 'row' ORDER BY key")
        for start in range(0, len(keys), BATCH_ROWS):
            listed = [key for (key,) in keys[start : start + BATCH_ROWS]]
            for key, state, content in landing.query(
                "SELECT key, state, content FROM rows WHERE stream = 'row' AND list_contains(?, key) ORDER BY key",
                listed,
            ):
                number += 1
                ticket_id = None if place is None else str(orjson.loads(key)[place])
                yield Record(number, None, _kept(state, content), ticket_id=ticket_id)
        yield from faulty_records(landing, number)

    @contextmanager
    def database(self, source: PostgresSource, place: Place) -> Iterator[SourceDatabase]:
        """Open the database of the `dsn`, in one read-only snapshot.

        Raises:
            ConfigError, DataError, ServiceError: as `sync`.
        """
        origin_of(source)
        with _own_errors(source), _snapshot(source) as connection:

            def select(sql: str) -> list[dict[str, object]]:
                with connection.cursor() as cursor:
                    cursor.execute(sql)
                    names = [column.name for column in cursor.description or ()]
                    return [dict(zip(names, map(_json, row), strict=True)) for row in cursor.fetchall()]

            yield SourceDatabase(_tables(connection), select)


KIND = Postgres()


def _fetch_pages(
    source: PostgresSource, connection: Connection, landing: Landing, statements: Statements, progress: Progress
) -> None:
    begin = landing.mark("position") or landing.mark("again_from")
    position: list[str] | None = orjson.loads(begin) if begin else None
    began = landing.mark("began") or _query(connection, "SELECT now()::text")[0][0]
    n_read = 0
    while True:
        rows = _query(connection, *statements.page(position))
        if rows:
            reach("ingest.fetched")
            position = [str(value) for value in rows[-1][: len(source.key) + 1]]
            n_read += len(rows)
        ended = len(rows) < source.page_size
        reached = None if ended or position is None else orjson.dumps(position).decode()
        marks = {"position": reached, "began": None if ended else began}
        if ended and position is not None:
            marks["again_from"] = _resume_at(source, connection, statements, position[0], str(began))
        with landing.step(**marks):
            landing.put([_row(values, statements) for values in rows])
        progress(n_read, None, "rows")
        if ended:
            return


def _fetch_faulty(connection: Connection, landing: Landing, statements: Statements) -> None:
    """Store placeholders for rows with a null in key or cursor, whose changes cannot be followed."""
    ((n_rows,),) = _query(connection, statements.count_nulls())
    reason = orjson.dumps("A column of the key, or the cursor, is null.").decode()
    known = landing.query("SELECT count(*) FROM rows WHERE stream = 'faulty'")[0][0]
    if n_rows != known:
        with landing.step():
            landing.clear("faulty")
            landing.put([LandedRow("faulty", str(number), reason) for number in range(1, n_rows + 1)])


def _compare_keys(source: PostgresSource, connection: Connection, landing: Landing, statements: Statements) -> None:
    """Turn rows that are gone into tombstones, and fetch rows that were never seen by their key."""
    upstream = {_key(values) for values in _stream(connection, statements.keys(), source.page_size)}
    here = dict(landing.query("SELECT key, state FROM rows WHERE stream = 'row'"))
    gone = [LandedRow("row", key, None, state="deleted") for key, state in here.items() if key not in upstream]
    missing = sorted(key for key in upstream if here.get(key, "deleted") == "deleted")
    fresh = [row for row in gone if here[row.key] != "deleted"]
    if fresh:
        reach("ingest.fetched")
        with landing.step():
            landing.put(fresh)
    for start in range(0, len(missing), source.page_size):
        some = [orjson.loads(key) for key in missing[start : start + source.page_size]]
        rows = _query(connection, *statements.by_keys(some))
        reach("ingest.fetched")
        with landing.step():
            landing.put([_row(values, statements) for values in rows])


def _resume_at(source: PostgresSource, connection: Connection, statements: Statements, highest: str, began: str) -> str:
    """Where the next sync starts: the highest cursor seen. A time is limited to the start of this sync, minus the
    overlap, for rows that were written before it and committed after it."""
    ((value,),) = _query(connection, *statements.resume_at(highest, began, source.overlap_s))
    return orjson.dumps([str(value)]).decode()


def _row(values: Sequence[Any], statements: Statements) -> LandedRow:
    """The row to store, or a placeholder for one that raises."""
    n_first = len(statements.key) + 1
    key = _key(values[1:n_first])
    try:
        content = dict(zip(statements.columns, values[n_first:], strict=True))
        return LandedRow("row", key, orjson.dumps(content, default=_plain).decode())
    except Exception as error:
        return LandedRow("row", key, orjson.dumps({"fault": reason_of(error)}).decode(), state=FAULTY)


def _key(values: Sequence[Any]) -> str:
    return orjson.dumps([str(value) for value in values]).decode()


def _plain(value: object) -> object:
    """A value of Postgres as one that JSON has."""
    if isinstance(value, Exception):
        raise value
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        is_whole = value == value.to_integral_value()
        return str(value) if abs(value) >= _EXACT else int(value) if is_whole else float(value)
    if isinstance(value, memoryview | bytes):
        return bytes(value).decode("utf-8", errors="backslashreplace")
    return str(value)


def _json(value: object) -> object:
    return value if value is None or isinstance(value, str | int | float | list | dict) else _plain(value)


def _loaded(text: str) -> object:
    """A value of type json, or the exception for `_row` to raise: raised here it would end the page."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return error


def _columns(source: PostgresSource, connection: Connection) -> dict[str, int]:
    """Column -> its Postgres type number."""
    with connection.cursor() as cursor:
        cursor.execute(*_bound(Statements.probe(source)))
        found = {column.name: column.type_code for column in cursor.description or ()}
    missing = [name for name in (*source.key, source.cursor) if name not in found]
    if missing:
        raise ConfigError(
            f"no column {', '.join(missing)}; columns are: {', '.join(found)}", code="TG0130", where="source"
        )
    return found


def _check_key(source: PostgresSource, connection: Connection, statements: Statements) -> None:
    if _query(connection, statements.repeated_key()):
        raise ConfigError(
            f"two rows have the same {', '.join(source.key)}: it is not a key",
            code="TG0130",
            where="source.key",
            hint="name all columns that together identify a row",
        )


_NAMED = (
    "FROM pg_class AS r JOIN pg_namespace AS n ON n.oid = r.relnamespace "
    "WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' "
    "AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(r.oid, 'SELECT') AND NOT r.relispartition"
)
"""The tables and views that the role may read, without the parts of a partitioned table."""


def _tables(connection: Connection) -> tuple[SourceTable, ...]:
    columns: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    primary, foreign = {}, defaultdict(list)
    found = f"SELECT r.oid, n.nspname, r.relname {_NAMED}"
    for schema, table, column, type_ in _query(
        connection,
        f"SELECT t.nspname, t.relname, a.attname, a.atttypid::regtype::text FROM ({found}) AS t "
        "JOIN pg_attribute AS a ON a.attrelid = t.oid "
        "WHERE a.attnum > 0 AND NOT a.attisdropped ORDER BY t.nspname, t.relname, a.attnum",
    ):
        if "." not in schema + table:  # `table` could not name it
            columns[schema, table][column] = type_
    names = (
        "(SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest({0}) WITH ORDINALITY AS k (number, place) "
        "JOIN pg_attribute AS a ON a.attrelid = {1} AND a.attnum = k.number)"
    )
    for schema, table, kind, keys, other_schema, other, others in _query(
        connection,
        f"SELECT t.nspname, t.relname, c.contype, {names.format('c.conkey', 'c.conrelid')}, o.nspname, o.relname, "
        f"{names.format('c.confkey', 'c.confrelid')} FROM pg_constraint AS c JOIN ({found}) AS t ON t.oid = c.conrelid "
        f"LEFT JOIN ({found}) AS o ON o.oid = c.confrelid WHERE c.contype IN ('p', 'f') ORDER BY c.oid",
    ):
        if kind == "p":
            primary[schema, table] = keys
        elif len(keys) == 1 and other is not None:
            foreign[schema, table].append((keys[0], (other_schema, other), others[0]))
    ((main,),) = _query(connection, "SELECT coalesce(current_schema(), 'public')")
    return make_tables(
        columns,
        main=main,
        count=lambda sql: int(_query(connection, f"SELECT count(*) FROM {sql.replace('%', '%%')}")[0][0]),
        primary_keys=primary,
        foreign_keys=foreign,
    )


def _query(connection: Connection, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(*_bound(sql, values))
        return list(cursor.fetchall())


def _bound(sql: str, values: Sequence[object] = ()) -> tuple[str, tuple[object, ...] | None]:
    """The statement for the driver, which turns `%%` into `%` only if there are values."""
    return (sql, tuple(values)) if values else (sql.replace("%%", "%"), None)


def _stream(connection: Connection, sql: str, page_size: int) -> Iterator[tuple[Any, ...]]:
    """The rows of a server-side cursor; memory holds one page."""
    with connection.cursor(name=_ARRIVED) as cursor:
        cursor.itersize = page_size
        cursor.execute(*_bound(sql))
        yield from cursor


@contextmanager
def _snapshot(source: PostgresSource) -> Iterator[Connection]:
    """A connection in one read-only transaction that sees the database at a single moment."""
    import psycopg2
    from psycopg2.extensions import new_type, register_type
    from psycopg2.extras import register_default_json, register_default_jsonb

    dsn = secret_value(source.dsn, where="source.dsn")
    options = f"-c statement_timeout={source.statement_timeout_s * 1000} -c default_transaction_read_only=on"
    connection = psycopg2.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S, options=options, application_name="tunegate")
    try:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        register_type(new_type(_TIME_TYPES, "TIME_TEXT", lambda text, _cursor: text), connection)
        register_default_json(connection, loads=_loaded)
        register_default_jsonb(connection, loads=_loaded)
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'; SET datestyle = 'ISO, YMD'; SET extra_float_digits = 1")
        yield connection
    finally:
        connection.close()


@contextmanager
def _own_errors(source: PostgresSource) -> Iterator[None]:
    """Turns errors of the driver into ours; theirs may contain the address with its password, or a value of a row."""
    need_package("postgres")
    import psycopg2

    where = source.table or "query"
    try:
        yield
    except psycopg2.Error as error:
        state = error.pgcode or ""
        message = (error.diag.message_primary if error.diag else None) or type(error).__name__
        if state.startswith(_LOGIN) or (not state and "authentication" in str(error)):
            raise ServiceError(
                "Postgres refuses the login", code="TG0707", where=where, hint=f"check the value of {source.dsn}"
            ) from None
        if state == _TOO_LONG:
            raise DataError(
                f"a statement took longer than {source.statement_timeout_s} s",
                code="TG0209",
                where=where,
                hint="add an index over cursor and key, or raise `statement_timeout_s`",
            ) from None
        if not state or state.startswith(_LOST):
            raise ServiceError(
                f"no connection to Postgres, or it was lost ({state or type(error).__name__})",
                code="TG0709",
                where=where,
                hint=f"check the server and the value of {source.dsn}; ingested rows stay",
            ) from None
        if state == "42P01":
            raise ConfigError(f"Postgres has no such table: {message[:200]}", code="TG0130", where=where) from None
        is_about_data = state.startswith("22")
        raise DataError(
            f"Postgres rejects the source's query ({state}){'' if is_about_data else ': ' + message[:200]}",
            code="TG0209",
            where=where,
            hint="it runs in a read-only transaction, as the role of the `dsn`",
        ) from None


def origin_of(source: PostgresSource) -> str:
    """Host, port and database of the `dsn`."""
    need_package("postgres")
    from psycopg2 import ProgrammingError
    from psycopg2.extensions import parse_dsn

    try:
        parts = parse_dsn(secret_value(source.dsn, where="source.dsn"))
    except ProgrammingError:
        raise ConfigError(
            f"the value of {source.dsn} is not the address of a Postgres database",
            code="TG0103",
            where="source.dsn",
            hint="postgresql://user:password@host:5432/database",
        ) from None
    return orjson.dumps({name: parts.get(name) for name in ("host", "port", "dbname")}).decode()


def _discard_other_origin(source: PostgresSource, folder: Path) -> None:
    """Remove what was ingested if the `dsn` now names another database: rows of two must not mix."""
    origin = origin_of(source)
    if (folder / FILE).is_file():
        with open_landing(folder) as landing:
            if landing.mark("origin") == origin:
                return
        shutil.rmtree(folder)
    with open_landing(folder) as landing, landing.step(origin=origin):
        pass


def _kept(state: str, content: str) -> Mapping[str, object] | Fault:
    if state == "deleted":
        return DELETED
    kept: Mapping[str, object] = orjson.loads(content)
    return Fault("TG0246", str(kept["fault"])) if state == FAULTY else kept
