"""The DuckDB connection: files created atomically, access only to named files, quoted identifiers, SQL with limits.

DuckDB is imported inside functions.
"""

from __future__ import annotations

import functools
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from schemas.errors import ConfigError, LockedError, SecurityError, StorageError
from tasks.compute.limits import machine_memory
from tasks.compute.limits import memory_limit as limited_memory
from tasks.storage.files import whole_file

if TYPE_CHECKING:
    import duckdb

    Connection = duckdb.DuckDBPyConnection
    """For annotations in modules that do not import DuckDB themselves."""

STORAGE_VERSION = "v1.5.0"
"""Storage format of the files we create: DuckDB 1.5 and 2.x both read it."""
_VERSIONS = re.compile(r"storage version number (\d+), but we can only read storage versions between (\d+) and (\d+)")
_HOLDER = re.compile(r"\(PID (\d+)\)")
_MAX_IDENTIFIER = 255
_RETRY_S = 0.05
QUESTION_TIMEOUT_S = 60.0
"""For an interactive query."""
STEP_TIMEOUT_S = 3600.0
"""For a user's SQL over all tickets."""
QUESTION_MEMORY = 2 << 30
"""Additional bytes that an interactive query may use; DuckDB itself spills to disk from half of it on."""

T = TypeVar("T")


@contextmanager
def connect(
    path: Path | None = None,
    *,
    readable: tuple[Path, ...] = (),
    read_only: bool = False,
    threads: int | None = None,
    memory_limit: str | None = None,
    wait_s: float = 0.0,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open `path` (created if missing; None: in memory) and lock it down; close it at the end of the block.

    Each connection is a separate DuckDB instance, so several threads can read one file, each with its own paths and
    limits; the file is its current database.

    SQL in this connection can access the opened file and the files and folders in `readable`, nothing else: no other
    path, no network, no extension, no secret, no Python variable, no `SET`. DuckDB allows writing wherever it allows
    reading. Larger-than-memory work spills into a temporary folder that is removed with the connection.

    Args:
        path: Database file. A file of 0 bytes (from a kill during DuckDB's own creation) counts as missing.
        readable: Files and folders that SQL may read.
        read_only: Refuse writes; the file must exist. Several processes can open a file this way.
        threads: Maximum number of DuckDB's threads; None for its default.
        memory_limit: Such as `2GB`; None for DuckDB's default.
        wait_s: Seconds to wait for another process that holds the file.

    Raises:
        LockedError: TG0520, another process or connection holds the file; the error names it.
        StorageError: TG0519, the file is not a DuckDB database, has an unsupported storage version, is missing with
            `read_only`, or cannot be created.
    """
    import duckdb

    if path is not None and (not path.exists() or not path.stat().st_size):
        if read_only:
            raise StorageError(f"no database: {path}", code="TG0519", where=str(path))
        create_database(path)
    if path is not None:
        _check_magic(path)
    # In this order, the connection closes before its folder is removed.
    with tempfile.TemporaryDirectory(prefix="tunegate-duckdb-") as spill, duckdb.connect(":memory:") as connection:
        if path is not None:
            _attach(connection, path, read_only=read_only, wait_s=wait_s)
        _lock_down(connection, readable, Path(spill), threads, memory_limit)
        yield connection


def _attach(connection: duckdb.DuckDBPyConnection, path: Path, *, read_only: bool, wait_s: float) -> None:
    """Make the file the current database of a new instance."""
    import duckdb

    deadline = time.monotonic() + wait_s
    mode = "READ_ONLY" if read_only else "READ_WRITE"
    while True:
        try:
            connection.execute(f"ATTACH {quote_text(str(path))} AS warehouse (TYPE duckdb, {mode})")
            connection.execute("USE warehouse")
        except duckdb.Error as error:
            refused = _cannot_open(path, error)
        else:
            return
        if not isinstance(refused, LockedError) or time.monotonic() >= deadline:
            raise refused from None
        time.sleep(_RETRY_S * (1 + random.random()))  # noqa: S311  # jitter, so that two waiting processes do not collide


def in_bounds(
    connection: duckdb.DuckDBPyConnection,
    work: Callable[[], T],
    *,
    where: str,
    timeout_s: float = STEP_TIMEOUT_S,
    memory: int | None = None,
) -> T:
    """Run `work`, which executes a user's SQL, and return its result; the deadline, SIGTERM and Ctrl-C stop it.

    It runs in a separate thread while this one waits, since a thread inside DuckDB does not always react to a signal.
    DuckDB's own `memory_limit` covers its buffers, but not the texts that functions build: the kernel limits those, for
    the whole process.

    Args:
        work: Uses the connection, and nothing else that another thread uses.
        where: What the SQL belongs to, for the error.
        timeout_s: Maximum duration, seconds.
        memory: Additional bytes that the process may use; None for as much as the machine has.

    Raises:
        SecurityError: TG0837, it takes longer, or needs more memory.
    """
    import duckdb

    with ThreadPoolExecutor(1, "sql") as thread, limited_memory(memory or machine_memory()):
        done: Future[T] = thread.submit(work)
        try:
            return done.result(timeout_s)
        except (duckdb.OutOfMemoryException, MemoryError):
            what = f"needs more memory than allowed: {(memory or machine_memory()) / 2**30:.1f} GiB"
        except TimeoutError:
            what = f"did not end within {timeout_s:g} s"
        finally:
            while not done.done():
                connection.interrupt()
                wait([done], timeout=_RETRY_S)
    raise SecurityError(f"the SQL {what}", code="TG0837", where=where, hint="select fewer rows or shorter texts")


def create_database(path: Path) -> None:
    """Create an empty database file; a reader sees no file or a complete one."""
    import duckdb

    with whole_file(path) as aside, duckdb.connect(":memory:") as connection:
        connection.execute(f"ATTACH {quote_text(str(aside))} AS fresh (STORAGE_VERSION '{STORAGE_VERSION}')")
        connection.execute("DETACH fresh")


def select_from_files(tables: Mapping[str, Path], sql: str, *, where: str) -> list[dict[str, Any]]:
    """The rows of one SELECT over Parquet files, each loaded into its own table; nothing else is accessible.

    Args:
        tables: Name of the table -> file.
        where: What the SQL belongs to, for errors.

    Raises:
        ConfigError: TG0199, it is not exactly one SELECT, or DuckDB rejects it. The message leaves out any text that
            may quote a value.
        SecurityError: TG0837, it takes too long or too much memory.
    """

    files = tuple(path.resolve() for path in tables.values())
    with connect(readable=files, threads=1) as connection:
        for name, path in tables.items():
            source = f"read_parquet({quote_text(str(path.resolve()))})"
            connection.execute(f"CREATE TABLE {quote_identifier(name)} AS SELECT * FROM {source}")
        with _named_rejections(tables, where):
            _check_is_select(connection, sql, where)
            table = in_bounds(connection, lambda: connection.sql(sql).to_arrow_table(), where=where)
            rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def bind_select(tables: Mapping[str, Mapping[str, str]], sql: str, *, where: str) -> list[str]:
    """The columns that one SELECT returns, without running it.

    Args:
        tables: Name of the table -> its columns, each with its SQL type.
        where: What the SQL belongs to, for errors.

    Raises:
        ConfigError, SecurityError: as `select_from_files`.
    """
    return list(_bound_columns(tuple((name, tuple(columns.items())) for name, columns in tables.items()), sql, where))


# Each command that reads pipelines.yaml binds each SELECT several times; a DuckDB instance takes 15 ms of CPU.
@functools.lru_cache(maxsize=1024)
def _bound_columns(
    tables: tuple[tuple[str, tuple[tuple[str, str], ...]], ...], sql: str, where: str
) -> tuple[str, ...]:
    with connect(threads=1) as connection:
        for name, columns in tables:
            declared = ", ".join(f"{quote_identifier(column)} {kind}" for column, kind in columns)
            connection.execute(f"CREATE TABLE {quote_identifier(name)} ({declared})")
        with _named_rejections([name for name, _ in tables], where):
            _check_is_select(connection, sql, where)
            return tuple(in_bounds(connection, lambda: connection.sql(sql).columns, where=where))


def _check_is_select(connection: duckdb.DuckDBPyConnection, sql: str, where: str) -> None:
    import duckdb

    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise ConfigError("this is not exactly one SELECT", code="TG0199", where=where)


@contextmanager
def _named_rejections(tables: Iterable[str], where: str) -> Iterator[None]:
    """Raise what DuckDB rejects as a ConfigError, without any text that may quote a value."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        safe = isinstance(error, duckdb.ParserException | duckdb.BinderException | duckdb.CatalogException)
        reason = str(error).partition("\n")[0][:300] if safe else type(error).__name__
        hint = f"tables: {', '.join(tables)}"
        raise ConfigError(f"DuckDB rejects the SELECT: {reason}", code="TG0199", where=where, hint=hint) from None


def is_identifier(name: str) -> bool:
    """Whether `quote_identifier` takes the name."""
    return 0 < len(name) <= _MAX_IDENTIFIER and all(ord(character) >= 32 for character in name)


def quote_identifier(name: str) -> str:
    """Quote the name as one SQL identifier, whatever it contains.

    Raises:
        SecurityError: empty, longer than 255 characters, or with a NUL or another control character.

    >>> quote_identifier('a "strange" name; drop table x')
    '"a ""strange"" name; drop table x"'
    """
    if not is_identifier(name):
        raise SecurityError(
            f"invalid identifier {name[:40]!r}: use 1 to {_MAX_IDENTIFIER} printable characters", code="TG0801"
        )
    return '"' + name.replace('"', '""') + '"'


def quote_text(value: str) -> str:
    """Quote the value as one SQL string literal, for statements that take no bound parameters.

    >>> quote_text("it's")
    "'it''s'"
    """
    return "'" + value.replace("'", "''") + "'"


def _check_magic(path: Path) -> None:
    """Refuse other files: given a CSV or Parquet file, DuckDB would open a new database with a view of it."""
    with path.open("rb") as stream:
        head = stream.read(12)
    if head[8:] != b"DUCK":
        raise StorageError("not a DuckDB database: the file has another format", code="TG0519", where=str(path))


def _lock_down(
    connection: duckdb.DuckDBPyConnection,
    readable: tuple[Path, ...],
    spill: Path,
    threads: int | None,
    memory_limit: str | None,
) -> None:
    places = [place.resolve() for place in readable]
    folders = [str(place) for place in places if place.is_dir()]
    files = [str(place) for place in places if not place.is_dir()]
    # The order matters: allowed paths cannot be set once external access is off, and the lock comes last.
    statements = [
        f"SET allowed_directories=[{', '.join(map(quote_text, folders))}]",
        f"SET allowed_paths=[{', '.join(map(quote_text, files))}]",
        f"SET temp_directory={quote_text(str(spill))}",
        "SET TimeZone='UTC'",
        "SET enable_progress_bar=false",  # it would go to stdout, among the data
        *([f"SET threads={int(threads)}"] if threads is not None else []),
        *([f"SET memory_limit={quote_text(memory_limit)}"] if memory_limit is not None else []),
        "SET autoinstall_known_extensions=false",
        "SET autoload_known_extensions=false",
        "SET allow_community_extensions=false",
        "SET allow_persistent_secrets=false",
        "SET python_enable_replacements=false",
        "SET enable_external_access=false",
        "SET lock_configuration=true",
    ]
    connection.execute("; ".join(statements))


def _cannot_open(path: Path | None, error: Exception) -> LockedError | StorageError:
    first = str(error).partition("\n")[0]
    if "lock" in first.lower() or "already attached" in first:
        return LockedError(
            f"the database is held by {_holder(first)}",
            code="TG0520",
            where=str(path),
            hint="wait for it to finish, or close the program that has the file open for writing",
        )
    found = _VERSIONS.search(first)
    if found is not None:
        return _other_version(path, *map(int, found.groups()))
    return StorageError(f"cannot be opened as a DuckDB database: {first[:200]}", code="TG0519", where=str(path))


def _other_version(path: Path | None, has: int, first: int, last: int) -> StorageError:
    return StorageError(
        f"the file has DuckDB storage version {has}, and this program reads {first} to {last}",
        code="TG0519",
        where=str(path),
        hint="EXPORT DATABASE with the DuckDB that wrote it; `tunegate data curate PIPELINE` rebuilds a warehouse",
    )


def _holder(message: str) -> str:
    found = _HOLDER.search(message)
    if not found:
        return "another connection"
    pid = found.group(1)
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        command = ""
    return f"process {pid}" + (f" ({command[:120]})" if command else "")
