"""The storage version of DuckDB files: read it, and rewrite a file in our version.

DuckDB reads more versions than it writes by default, and an older DuckDB reads no newer ones. Called by
`flows/cli/migration.py`; `tasks/storage/warehouse.py` has the error for an unsupported version.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import StorageError
from tasks.storage.warehouse import STORAGE_VERSION, connect, quote_identifier, quote_text

if TYPE_CHECKING:
    import duckdb

OURS = 68
"""The number of STORAGE_VERSION in a file's header."""


def storage_version(path: Path) -> int:
    """The number in the file's header; 0 when it is not a DuckDB file."""
    with path.open("rb") as stream:
        head = stream.read(20)
    return int.from_bytes(head[12:20], "little") if head[8:12] == b"DUCK" else 0


def rewrite(path: Path, backup: Path) -> None:
    """Rewrite the file in our storage version, after copying it to `backup`; a reader sees the old file or the new one.

    Raises:
        StorageError: TG0519, its version is not supported, or the new file's rows differ: the old one stays.
        LockedError: TG0520, another process holds it.
    """
    import duckdb

    with connect(path, threads=1):  # as a writer, so that a log from a killed process is merged into the file
        pass
    shutil.copy2(path, backup)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.unlink(missing_ok=True)
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"ATTACH {quote_text(str(path))} AS old (READ_ONLY)")
        connection.execute(f"ATTACH {quote_text(str(aside))} AS new (STORAGE_VERSION '{STORAGE_VERSION}')")
        connection.execute("COPY FROM DATABASE old TO new")
        counts = [_counts(connection, name) for name in ("old", "new")]
        connection.execute("DETACH new")
    if counts[0] != counts[1]:
        aside.unlink()
        raise StorageError("the rewritten file's rows differ from the old ones", code="TG0519", where=str(path))
    aside.chmod(0o600)
    descriptor = os.open(aside, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    aside.replace(path)


def _counts(connection: duckdb.DuckDBPyConnection, database: str) -> dict[str, tuple[int, ...]]:
    """Table -> number of rows, and the sum of their hashes."""
    run = connection.execute
    tables = run("SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ?", [database]).fetchall()
    found: dict[str, tuple[int, ...]] = {}
    for schema, table in sorted(tables):
        name = f"{database}.{quote_identifier(schema)}.{quote_identifier(table)}"
        found[f"{schema}.{table}"] = run(f"SELECT count(*), coalesce(sum(hash(t)), 0) FROM {name} t").fetchall()[0]
    return found
