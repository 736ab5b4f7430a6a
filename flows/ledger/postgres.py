"""The ledger in Postgres, for several hosts: the same tables, the same turns, the same all or nothing.

Writers take turns by one advisory lock that ends with their transaction, and so with their connection; a reader sees
one moment (REPEATABLE READ). Its tables are in the schema `tunegate`. The dialect is all in `_translated`. Called by
`flows/ledger/base.py`; psycopg2 is imported only here, and only when it is used.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flows.ledger.database import Database, Holds, Rows
from flows.ledger.journal import close_books, open_books
from flows.ledger.sqlite import BUSY_TIMEOUT_S, busy, current, empty_ledger
from flows.ledger.tables import APPEND_ONLY, BOOKS, TABLES, VERSION
from flows.ledger.upgrade import to_3
from schemas.errors import ConfigError, ServiceError, TunegateError

if TYPE_CHECKING:
    import psycopg2.extensions

COMES_BACK = (
    "starting up",
    "shutting down",
    "not yet accepting",
    "recovery",
    "too many clients",
    "reserved for",
)
"""Refusals of a server that will say yes in a while."""
REFUSED = ("42501", "53100", "25006", "3F000", "0A000")
"""Its codes for: no right, disk full, read only, no schema, not supported."""
PATIENCE_S = 15.0
"""A database that restarts is back by then."""
SILENCE_S = 20
"""A connection on which nothing has come for so long is given up, by either end: a writer that was cut off the network
holds the others up for less than they wait (BUSY_TIMEOUT_S)."""
HOLDER_SILENCE_S = 60
"""The same for the connection that holds a pipeline: a run of hours outlives a switch that restarts."""
POLL_S = 0.2
WRITERS = "ledger"
COUNTED = re.findall(r"CREATE TABLE (\w+) \(\s+(\w+) INTEGER PRIMARY KEY AUTOINCREMENT", TABLES)
"""Tables whose rows Postgres numbers, and the column of the number."""
SETTINGS = f"""
SET search_path TO tunegate;
SET synchronous_commit TO on;
SET standard_conforming_strings TO on;
SET lock_timeout TO '{BUSY_TIMEOUT_S}s';
SET idle_in_transaction_session_timeout TO '60s';
"""  # the last one: a host that froze inside a transaction does not hold the others up for ever
FUNCTIONS = """
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation'; END $$;
CREATE OR REPLACE FUNCTION note_touched() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP <> 'INSERT' THEN
            INSERT INTO touched (book, row_key) SELECT TG_TABLE_NAME, json_agg(to_jsonb(OLD) ->> key ORDER BY place)
                FROM unnest(TG_ARGV) WITH ORDINALITY AS keys (key, place);
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO touched (book, row_key) SELECT TG_TABLE_NAME, json_agg(to_jsonb(NEW) ->> key ORDER BY place)
                FROM unnest(TG_ARGV) WITH ORDINALITY AS keys (key, place);
        END IF;
        RETURN NULL;
    END $$;
"""


def driver() -> Any:
    """The module that speaks to Postgres.

    Raises:
        ConfigError: TG0112, it is not installed.
    """
    try:
        import psycopg2
    except ImportError:
        raise ConfigError(
            "the ledger is in Postgres, and its driver is not installed",
            code="TG0112",
            where="TUNEGATE_LEDGER_URL",
            hint="pip install 'tunegate[postgres]', or make install, which has it",
        ) from None
    return psycopg2


def refused_for_good(error: BaseException) -> bool:
    """Did a server answer, and would it answer the same in a second?"""
    told = str(error)
    return "FATAL:" in told and not any(text in told for text in COMES_BACK)


def unreachable(place: str, error: BaseException) -> ServiceError:
    """The error of a ledger that does not answer."""
    return ServiceError(
        f"the ledger's Postgres does not answer: {_words(error)}",
        code="TG0709",
        where=place,
        hint="check TUNEGATE_LEDGER_URL, PGPASSWORD and the server; what was not confirmed is repeated without harm",
    )


@contextmanager
def named_errors(place: str, *, locked: Callable[[str], TunegateError] | None = None) -> Iterator[None]:
    """Errors of the driver inside the block as errors of ours; those that are faults of the program stay.

    Raises:
        ServiceError: TG0709, it went away, or it refuses.
        LockedError: what `locked` makes of a writer who waited for too long.
    """
    api = driver()
    from psycopg2 import errors

    try:
        yield
    except errors.LockNotAvailable as error:
        if locked is None:
            raise
        raise locked(place) from error
    except api.OperationalError as error:
        if error.pgcode in REFUSED:
            raise _refused(place, error) from error
        raise unreachable(place, error) from error
    except api.InterfaceError as error:  # a connection that was closed meanwhile
        raise unreachable(place, error) from error
    except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction, errors.InvalidSchemaName) as error:
        raise _refused(place, error) from error


def _refused(place: str, error: BaseException) -> ServiceError:
    return ServiceError(
        f"the ledger's Postgres refuses: {_words(error)}",
        code="TG0709",
        where=place,
        hint="the user needs the right to create and change the schema `tunegate` of that database, and the disk room",
    )


def _words(error: BaseException) -> str:
    """The first line of what the driver says, which names hosts and users and no password."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


class LedgerPostgres:
    """A database that need not hold a ledger yet. Making the object connects to nothing."""

    def __init__(self, url: str) -> None:
        self.url = checked_url(url)
        self.place = without_password(url)

    def exists(self) -> bool:
        """Are there tables?"""
        with named_errors(self.place), self._connected() as connection:
            return _version(_Postgres(connection)) > 0

    @contextmanager
    def read(self) -> Iterator[Database]:
        """What is there at this moment; an empty ledger in memory when there is none yet."""
        with named_errors(self.place), self._connected() as connection:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            db = _Postgres(connection)
            if current(_version(db), self.place):
                yield db
                return
        with empty_ledger() as nothing:
            yield nothing

    @contextmanager
    def write(self) -> Iterator[Database]:
        """One transaction: all of the block or nothing."""
        with named_errors(self.place, locked=busy), self._connected() as connection:
            # Each statement sees what was committed before it, and so does the first one after the wait.
            connection.set_session(isolation_level="READ COMMITTED")
            db = _Postgres(connection)
            db.execute("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", (f"tunegate/{WRITERS}",))
            if not current(_version(db), self.place):
                _create(db)
            try:
                open_books(db)
                yield db
                close_books(db)
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    @contextmanager
    def alone(self, what: str, *, wait_s: float, holder: str) -> Iterator[Holds]:
        """Hold a lock that every host of this ledger sees while the block runs, or until the server ends the
        connection; yields what tells whether it is held."""
        with named_errors(self.place):
            connection = self._connect(application=f"tunegate {holder}"[:63], silence_s=HOLDER_SILENCE_S)
        with closing(connection):
            connection.autocommit = True
            db, deadline = _Postgres(connection), time.monotonic() + wait_s
            with named_errors(self.place):
                while not db.execute("SELECT pg_try_advisory_lock(hashtextextended(?, 1))", (what,)).fetchone()[0]:
                    if time.monotonic() >= deadline:
                        held = False
                        break
                    time.sleep(POLL_S)
                else:
                    held = True
            yield lambda: held and self._answers(db)

    def holder(self, what: str) -> str | None:
        """Which run holds that lock; None when nobody does."""
        with named_errors(self.place), self._connected() as connection:
            row = (
                _Postgres(connection)
                .execute(
                    "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid),"
                    " hashtextextended(?, 1) AS key"
                    " WHERE locktype = 'advisory' AND granted AND pg_locks.database ="
                    " (SELECT oid FROM pg_database WHERE datname = current_database())"
                    " AND (classid::bigint << 32 | objid::bigint) = key",
                    (what,),
                )
                .fetchone()
            )
        return None if row is None else str(row[0]).removeprefix("tunegate ") or "unknown"

    def upgrade(self) -> int | None:
        """Bring the tables up to date in one transaction; the version that they had, None when there was nothing to do.

        Raises:
            StorageError: TG0530, a newer program wrote them.
        """
        with named_errors(self.place, locked=busy), self._connected() as connection:
            db = _Postgres(connection)
            db.execute("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", (f"tunegate/{WRITERS}",))
            version = _version(db)
            if version > VERSION:
                current(version, self.place)
            if version in (0, VERSION):
                return None
            db.execute("DROP TRIGGER champion_events_stay ON champion_events")
            db.execute("DROP TRIGGER champion_events_remain ON champion_events")
            to_3(db, lambda: _watch(db))
            db.execute("UPDATE ledger_version SET version = ?", (VERSION,))
            connection.commit()
        return version

    def count_on(self, db: Database) -> None:
        """After rows came in with their numbers: the next one gets the number after the highest."""
        for table, column in COUNTED:
            db.execute(
                f"SELECT setval(pg_get_serial_sequence(?, ?), max({column})) FROM {table} HAVING count(*) > 0",
                (f"tunegate.{table}", column),
            )

    def _answers(self, db: _Postgres) -> bool:
        try:
            with named_errors(self.place):
                db.execute("SELECT 1")
        except ServiceError:
            return False
        return True

    @contextmanager
    def _connected(self) -> Iterator[psycopg2.extensions.connection]:
        with closing(self._connect()) as connection:
            yield connection

    def _connect(self, *, application: str = "tunegate", silence_s: int = SILENCE_S) -> psycopg2.extensions.connection:
        """Waits for a database that restarts; nothing has been asked yet, so that asking again is safe."""
        db_api, bounds = driver(), _bounds_here(silence_s)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                connection = db_api.connect(self.url, application_name=application, connect_timeout=10, **bounds)
                with connection.cursor() as cursor:
                    cursor.execute(SETTINGS + _bounds_there(bounds))
                connection.commit()  # what is set inside a transaction that is rolled back is not set
                return connection
            except db_api.OperationalError as error:
                if refused_for_good(error) or time.monotonic() >= deadline:
                    raise unreachable(self.place, error) from None
                time.sleep(POLL_S)


class _Postgres:
    """A connection that understands the ledger's statements."""

    def __init__(self, connection: psycopg2.extensions.connection) -> None:
        from psycopg2.extras import DictCursor

        self._connection, self._kind = connection, DictCursor

    def execute(self, sql: str, values: Any = (), /) -> Rows:
        cursor: Rows = self._connection.cursor(cursor_factory=self._kind)
        cursor.execute(_translated(sql), _storable(values) or None)  # type: ignore[attr-defined]
        return cursor


def _bounds_here(silence_s: int) -> dict[str, int]:
    """How libpq's socket notices that the other end is gone: by probes while it is idle, and while it waits for an
    answer, when there are none, by the time that what it sent (a COMMIT) stays without receipt. Left to itself the
    kernel takes a quarter of an hour for that.

    Source: tcp(7), TCP_USER_TIMEOUT (milliseconds; it also says when probes are enough); tcp_retries2.
    """
    return {
        "keepalives_idle": silence_s // 2, "keepalives_interval": silence_s // 4, "keepalives_count": 2,
        "tcp_user_timeout": silence_s * 1000,
    }  # fmt: skip


def _bounds_there(bounds: dict[str, int]) -> str:
    """The same for the server's socket, which would hold the locks of a host that was cut off for over two hours."""
    return "".join(f"SET tcp_{name.removeprefix('tcp_')} TO {value};\n" for name, value in bounds.items())


def checked_url(url: str) -> str:
    """The address as it was given.

    Raises:
        ConfigError: TG0103, it is none of Postgres.
    """
    if urlsplit(url).scheme not in ("postgresql", "postgres"):
        raise ConfigError(
            "the ledger's address should begin with postgresql://",
            code="TG0103",
            where="TUNEGATE_LEDGER_URL",
            hint="postgresql://USER@HOST/DATABASE, the password in PGPASSWORD or a PGPASSFILE; unset: a SQLite file",
        )
    return url


def without_password(url: str) -> str:
    """The address as it may be shown.

    >>> without_password("postgresql://ada:secret@db.example:5432/tunegate?sslmode=require")
    'postgresql://db.example:5432/tunegate'
    """
    parts = urlsplit(url)
    return f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"


@lru_cache(maxsize=256)
def _translated(sql: str) -> str:
    """The statement in Postgres' words; no statement of the ledger holds a `?`, `%` or `:name` in a literal."""
    if sql.lstrip().startswith("CREATE TABLE"):
        for ours, theirs in (
            ("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"),
            ("INTEGER", "BIGINT"),
            ("REAL", "DOUBLE PRECISION"),
            ("TEXT", 'TEXT COLLATE "C"'),  # ordered by code points, as in SQLite, whatever the database's language
        ):
            sql = re.sub(rf"\b{ours}\b", theirs, sql)
        return sql
    return re.sub(r"(?<!:):([a-z_]+)", r"%(\1)s", sql.replace("?", "%s"))


def _storable(values: Any) -> Any:
    """Postgres keeps no NUL characters; an error message may hold one."""
    if isinstance(values, dict):
        return {name: _storable_one(value) for name, value in values.items()}
    return tuple(_storable_one(value) for value in values)


def _storable_one(value: Any) -> Any:
    return value.replace("\x00", "\ufffd") if isinstance(value, str) else value


def _version(db: _Postgres) -> int:
    if db.execute("SELECT to_regclass('tunegate.ledger_version')").fetchone()[0] is None:
        return 0
    return int(db.execute("SELECT version FROM tunegate.ledger_version").fetchone()[0])


def _create(db: _Postgres) -> None:
    """The tables, in the writer's own transaction."""
    db.execute("CREATE SCHEMA IF NOT EXISTS tunegate")
    for statement in TABLES.split(";"):
        if statement.strip():
            db.execute(statement)
    _watch(db)
    db.execute("CREATE TABLE ledger_version (version INTEGER NOT NULL)")
    db.execute("INSERT INTO ledger_version (version) VALUES (?)", (VERSION,))


def _watch(db: _Postgres) -> None:
    """Let Postgres note each row that changes, and refuse to change what is append-only."""
    db.execute(FUNCTIONS)
    for book, columns in BOOKS.items():
        keys = ", ".join(f"'{column}'" for column in columns)
        db.execute(
            f"CREATE TRIGGER {book}_touched AFTER INSERT OR UPDATE OR DELETE ON {book}"
            f" FOR EACH ROW EXECUTE FUNCTION note_touched({keys})"
        )
    for name in APPEND_ONLY:
        for change, each in (("UPDATE OR DELETE", "ROW"), ("TRUNCATE", "STATEMENT")):
            db.execute(
                f"CREATE OR REPLACE TRIGGER {name}_no_{each.lower()} BEFORE {change} ON {name}"
                f" FOR EACH {each} EXECUTE FUNCTION refuse_change()"
            )
