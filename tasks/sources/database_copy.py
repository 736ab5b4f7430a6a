"""Copies of DuckDB files that another program has open for writing, in their last committed state.

DuckDB writes new blocks, then one of two headers, then empties its log. While neither header changes, the file is one
state, and its log has whole transactions and perhaps the beginning of one, which DuckDB ignores.
"""

import os
import shutil
import time
from pathlib import Path

from schemas.errors import DataError, LockedError, StorageError
from tasks.sources.formats import SourceFile, fingerprint_files
from tasks.storage.warehouse import connect

ATTEMPTS = 20
DELAY_S = 0.1
_HEADERS = 3 * 4096
"""Size in bytes of the file's header and the two headers of its states."""


def fingerprint_database(database: Path) -> str:
    """sha256 of the file and of its log, which a writer has not yet merged into it.

    Raises:
        DataError: TG0201, there is no such file, or it has 0 bytes.
        StorageError: TG0519, it is not a DuckDB database.
    """
    require_database(database)
    is_held(database)  # raises if it is no database
    files = [SourceFile("database", database), SourceFile("log", log_of(database))]
    return fingerprint_files(file for file in files if file.path.is_file())


def require_database(database: Path) -> None:
    """Check that the database exists; a kill while DuckDB creates a file leaves 0 bytes.

    Raises:
        DataError: TG0201, it does not.
    """
    if not database.is_file() or not database.stat().st_size:
        raise DataError(
            "the DuckDB file has 0 bytes" if database.is_file() else "no such DuckDB file",
            code="TG0201",
            where=str(database),
            hint="`database` is relative to pipelines.yaml",
        )


def is_held(database: Path) -> bool:
    """True if another program has it open for writing.

    Raises:
        StorageError: TG0519, it is not a DuckDB database, or its log is damaged.
    """
    try:
        with connect(database, read_only=True, threads=1):
            return False
    except LockedError:
        return True
    except StorageError as error:
        error.hint = error.hint or "`kind: duckdb` reads DuckDB files alone; `kind: files` CSV, JSON lines and Parquet"
        raise


def copy_database(database: Path, folder: Path) -> Path:
    """Copy the file and its log into the folder; returns the copy, which no other process has open.

    Raises:
        DataError: TG0203, its writer changes it faster than it can be copied.
        StorageError: TG0519, it is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    copy, log = copy_of(folder), log_of(database)
    damage: StorageError | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(DELAY_S)
        before = _headers(database)
        _copy(database, copy)
        _copy(log, log_of(copy))
        if _headers(database) != before:
            continue
        try:
            is_held(copy)
        except StorageError as error:  # the log may end in half a transaction
            damage = error
            continue
        return copy
    remove_copy(folder)
    if damage is not None:
        raise damage
    raise DataError(
        f"the DuckDB file changed during each of {ATTEMPTS} attempts to copy it",
        code="TG0203",
        where=str(database),
        hint="run when its writer is less busy, or have it write a copy: `COPY FROM DATABASE`",
    )


def copy_of(folder: Path) -> Path:
    """Path of this process's copy."""
    return folder / f"copy-{os.getpid()}.duckdb"


def remove_copy(folder: Path) -> None:
    """Remove the copies of this process and of processes that have ended."""
    for path in (*folder.glob(f"copy-{os.getpid()}.*"), *_of_ended_processes(folder, "copy-*", "-")):
        path.unlink(missing_ok=True)


def left_by_ended(folder: Path) -> list[Path]:
    """Files of processes that have ended: copies, partial files, and databases that were being rewritten."""
    patterns = {"copy-*": "-", "part-*": "-", ".ingest.duckdb.*": "duckdb."}
    return [
        path for pattern, before_pid in patterns.items() for path in _of_ended_processes(folder, pattern, before_pid)
    ]


def _of_ended_processes(folder: Path, pattern: str, before_pid: str) -> list[Path]:
    """The files named by the id of a process that has ended."""
    return [
        path
        for path in sorted(folder.glob(pattern))
        if not Path(f"/proc/{path.name.partition(before_pid)[2].split('.')[0]}").exists()
    ]


def _copy(path: Path, to: Path) -> None:
    to.unlink(missing_ok=True)
    try:
        shutil.copyfile(path, to)
    except FileNotFoundError:  # a log is missing when everything is merged into the file
        to.unlink(missing_ok=True)
    else:
        to.chmod(0o600)


def log_of(database: Path) -> Path:
    """Where DuckDB keeps transactions that are not yet merged into the file."""
    return database.with_name(f"{database.name}.wal")


def _headers(database: Path) -> tuple[bytes, int]:
    with database.open("rb") as stream:
        return stream.read(_HEADERS), database.stat().st_ino
