"""The ledger in Postgres, for several hosts: the same tables and the same transactions.

Writers take turns by one advisory lock that ends with their transaction, and so with their connection; a reader sees
one moment (REPEATABLE READ). The tables are in the schema `tunegate`. `_translated` has all of the dialect.
psycopg2 is imported only here, and only when it is used.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flows.ledger.database import Database, Holds, Rows
from flows.ledger.journal import altered, close_books, open_books
from flows.ledger.sqlite import BUSY_TIMEOUT_S, busy, check_version, empty_ledger
from flows.ledger.tables import APPEND_ONLY, BOOKS, TABLES, VERSION
from schemas.errors import ConfigError, ServiceError, TunegateError
from tasks.extras import need_extra

if TYPE_CHECKING:
    import psycopg2.extensions

TRANSIENT = ("starting up", "shutting down", "not yet accepting", "recovery", "too many clients", "reserved for")
"""Refusals of a server that will accept connections after a while."""
REFUSED = ("42501", "53100", "25006", "3F000", "0A000")
"""Its codes for: no permission, disk full, read only, no schema, not supported."""
RESTART_S = 15.0
"""A database that restarts is back by then."""
SILENCE_S = 20
"""Either end gives up a connection that has been silent for this long: a writer that lost the network blocks the others
for less than they wait (BUSY_TIMEOUT_S)."""
HOLDER_SILENCE_S = 60
"""The same for the connection that holds a pipeline: a run of hours survives the restart of a switch."""
POLL_S = 0.2
MARK_S = 60.0
"""For this long a process that has checked every row reads without checking them again."""
WRITERS = "ledger"
COUNTED = re.findall(r"CREATE TABLE (\w+) \(\s+(\w+) INTEGER PRIMARY KEY AUTOINCREMENT", TABLES)
"""Tables whose rows Postgres numbers, and the column of the number."""
SETTINGS = f"""
SET search_path TO tunegate;
SET synchronous_commit TO on;
SET standard_conforming_strings TO on;
SET lock_timeout TO '{BUSY_TIMEOUT_S}s';
SET idle_in_transaction_session_timeout TO '60s';
"""  # the last one: a host that froze inside a transaction must not block the others forever
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
    """Return the module that speaks to Postgres.

    Raises:
        ConfigError: TG0112, it is not installed.
    """
    need_extra("postgres", what="a ledger in Postgres", where="TUNEGATE_LEDGER_URL")
    import psycopg2

    return psycopg2


def refused_for_good(error: BaseException) -> bool:
    """Return whether a server answered, and would answer the same in a second."""
    message = str(error)
    return "FATAL:" in message and not any(text in message for text in TRANSIENT)


def unreachable(place: str, error: BaseException) -> ServiceError:
    """Make the error for a ledger that does not answer."""
    return ServiceError(
        f"the ledger's Postgres does not answer: {_first_line(error)}",
        code="TG0709",
        where=place,
        hint="check TUNEGATE_LEDGER_URL, PGPASSWORD and the server; it is safe to repeat what was not confirmed",
    )


@contextmanager
def named_errors(place: str, *, locked: Callable[[str], TunegateError] | None = None) -> Iterator[None]:
    """Turn the driver's errors inside the block into ours, except for bugs of this program.

    Raises:
        ServiceError: TG0709, the server went away, or it refuses.
        StorageError: TG0580, a table or a column is not there.
        LockedError: made by `locked`, a writer waited for too long.
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
    except api.InterfaceError as error:  # the connection was closed meanwhile
        raise unreachable(place, error) from error
    except (errors.UndefinedTable, errors.UndefinedColumn) as error:
        raise altered(f"its tables are not those that tunegate made ({_first_line(error)})") from error
    except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction, errors.InvalidSchemaName) as error:
        raise _refused(place, error) from error


def _refused(place: str, error: BaseException) -> ServiceError:
    return ServiceError(
        f"the ledger's Postgres refuses: {_first_line(error)}",
        code="TG0709",
        where=place,
        hint="the user needs permission to create and change the database's schema `tunegate`, the disk needs space",
    )


def _first_line(error: BaseException) -> str:
    """Return the first line of the driver's message, which names hosts and users but no password."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


class LedgerPostgres:
    """A database that need not hold a ledger yet. Creating the object connects to nothing."""

    def __init__(self, url: str) -> None:
        self.url = checked_url(url)
        self.place = without_password(url)
        self._mark, self._marked_at = "", 0.0

    @property
    def is_read_only(self) -> bool:
        """False: the server itself refuses what its user may not write."""
        return False

    def mark(self, db: Database) -> str:
        """Return a text that changes with every write to a row, by whatever program; empty if there are no tables.

        The server reads every row for it, so the text stays the same for MARK_S seconds, also after a write by this
        process.
        """
        if not isinstance(db, _Postgres):
            return ""
        if db.is_closed:
            return self._mark
        now = time.monotonic()
        if not self._mark or now - self._marked_at >= MARK_S:
            # Each version of a row has its own transaction and place.
            sums = (
                f"SELECT {at}, count(*) AS n, sum(hashtextextended(concat(xmin, ctid), {at})) AS s FROM {name}"
                for at, name in enumerate((*BOOKS, "journal", "touched"))
            )
            rows = db.execute(" UNION ALL ".join(sums)).fetchall()
            self._mark, self._marked_at = " ".join(f"{n}:{s}" for _, n, s in sorted(map(tuple, rows))), now
        return self._mark

    def has_moved(self, _db: Database) -> bool:
        """False: the server shows a reader one moment."""
        return False

    def exists(self) -> bool:
        """Return whether there are tables."""
        with named_errors(self.place), self._connected() as connection:
            return _version(_Postgres(connection)) > 0

    @contextmanager
    def read(self) -> Iterator[Database]:
        """Open the ledger as of this moment; an empty one in memory when there is none yet."""
        with named_errors(self.place), self._connected() as connection:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            db = _Postgres(connection)
            if check_version(_version(db), self.place):
                yield db
                return
        with empty_ledger() as nothing:
            yield nothing

    @contextmanager
    def write(self) -> Iterator[Database]:
        """Run the block in one transaction, all of it or nothing."""
        with named_errors(self.place, locked=busy), self._connected() as connection:
            # Each statement sees what was committed before it, and so does the first one after the wait.
            connection.set_session(isolation_level="READ COMMITTED")
            db = _Postgres(connection)
            db.execute("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", (f"tunegate/{WRITERS}",))
            if not check_version(_version(db), self.place):
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
    def exclusive(self, what: str, *, wait_s: float, holder: str) -> Iterator[Holds]:
        """Hold a lock across all hosts of this ledger while the block runs, or until the server ends the connection.

        Yields a function that returns whether it is held.
        """
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
        """Return the run that holds the lock; None when no one does."""
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

    def continue_numbering(self, db: Database) -> None:
        """After rows were inserted with their numbers, number the next one after the highest."""
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

    def _connected(self) -> AbstractContextManager[psycopg2.extensions.connection]:
        return closing(self._connect())

    def _connect(self, *, application: str = "tunegate", silence_s: int = SILENCE_S) -> psycopg2.extensions.connection:
        # Retries while the database restarts: nothing has been executed yet, so trying again is safe.
        db_api, bounds = driver(), _client_timeouts(silence_s)
        deadline = time.monotonic() + RESTART_S
        while True:
            try:
                connection = db_api.connect(self.url, application_name=application, connect_timeout=10, **bounds)
                with connection.cursor() as cursor:
                    cursor.execute(SETTINGS + _server_timeouts(bounds))
                connection.commit()  # a rollback would undo the settings
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

    @property
    def is_closed(self) -> bool:
        return bool(self._connection.closed)

    def execute(self, sql: str, values: Any = (), /) -> Rows:
        cursor: Rows = self._connection.cursor(cursor_factory=self._kind)
        cursor.execute(_translated(sql), _storable(values) or None)  # type: ignore[attr-defined]
        return cursor


def _client_timeouts(silence_s: int) -> dict[str, int]:
    """Return how libpq's socket notices that the other end is gone.

    While it is idle, by probes; while it waits for an answer (to a COMMIT), when there are no probes, by the time that
    what it sent stays unacknowledged. By default the kernel takes a quarter of an hour for that.

    Source: tcp(7), TCP_USER_TIMEOUT (milliseconds; it also says when probes are enough); tcp_retries2.
    """
    return {
        "keepalives_idle": silence_s // 2, "keepalives_interval": silence_s // 4, "keepalives_count": 2,
        "tcp_user_timeout": silence_s * 1000,
    }  # fmt: skip


def _server_timeouts(bounds: dict[str, int]) -> str:
    """Return the same for the server's socket, which would keep the locks of a lost host for over two hours."""
    return "".join(f"SET tcp_{name.removeprefix('tcp_')} TO {value};\n" for name, value in bounds.items())


def checked_url(url: str) -> str:
    """Return the address unchanged.

    Raises:
        ConfigError: TG0103, it is not a Postgres address.
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
    """Return the address as it may be shown.

    >>> without_password("postgresql://ada:secret@db.example:5432/tunegate?sslmode=require")
    'postgresql://db.example:5432/tunegate'
    """
    parts = urlsplit(url)
    return f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"


@lru_cache(maxsize=256)
def _translated(sql: str) -> str:
    """Translate the statement to Postgres; no statement of the ledger has a `?`, `%` or `:name` in a literal."""
    if sql.lstrip().startswith("CREATE TABLE"):
        for ours, theirs in (
            ("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"),
            ("INTEGER", "BIGINT"),
            ("REAL", "DOUBLE PRECISION"),
            ("TEXT", 'TEXT COLLATE "C"'),  # ordered by code points as in SQLite, whatever the database's locale
        ):
            sql = re.sub(rf"\b{ours}\b", theirs, sql)
        return sql
    return re.sub(r"(?<!:):([a-z_]+)", r"%(\1)s", sql.replace("?", "%s"))


def _storable(values: Any) -> Any:
    # Postgres stores no NUL characters, and an error message may contain one.
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
    """Create the tables, in the writer's transaction."""
    db.execute("CREATE SCHEMA IF NOT EXISTS tunegate")
    for statement in TABLES.split(";"):
        if statement.strip():
            db.execute(statement)
    _watch(db)
    db.execute("CREATE TABLE ledger_version (version INTEGER NOT NULL)")
    db.execute("INSERT INTO ledger_version (version) VALUES (?)", (VERSION,))


def _watch(db: _Postgres) -> None:
    """Make Postgres note each row that changes, and refuse to change what is append-only."""
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
