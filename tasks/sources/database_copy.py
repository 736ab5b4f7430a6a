"""A DuckDB file that another program has open for writing: a copy of its last committed state, as files.

DuckDB writes new blocks, then one of two headers, then empties its log. While both headers stand still the file is one
state, and the log next to it holds whole transactions and perhaps the beginning of one, which DuckDB leaves out. It
knows nothing of tables. Called by `duckdb_file.py`.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from schemas.errors import DataError, LockedError, StorageError
from tasks.sources.formats import SourceFile, fingerprint_files
from tasks.warehouse import connect

ATTEMPTS = 20
DELAY_S = 0.1
_HEADERS = 3 * 4096
"""Bytes of the file's own header and the two of its states."""


def fingerprint_database(database: Path) -> str:
    """sha256 of the file and of what a writer has not yet merged into it.

    Raises:
        DataError: TG0201, there is no such file, or it has 0 bytes.
        StorageError: TG0519, it is no DuckDB database.
    """
    need_database(database)
    is_held(database)  # held or not, it must be a database
    files = [SourceFile("database", database), SourceFile("log", log_of(database))]
    return fingerprint_files(file for file in files if file.path.is_file())


def need_database(database: Path) -> None:
    """Raise where there is none; a kill while DuckDB makes a file leaves 0 bytes, which is none.

    Raises:
        DataError: TG0201.
    """
    if not database.is_file() or not database.stat().st_size:
        raise DataError(
            "the DuckDB file has 0 bytes" if database.is_file() else "no such DuckDB file",
            code="TG0201",
            where=str(database),
            hint="`database` is relative to pipelines.yaml",
        )


def is_held(database: Path) -> bool:
    """Is it open for writing elsewhere?

    Raises:
        StorageError: TG0519, it is no DuckDB database, or its log is damaged.
    """
    try:
        with connect(database, read_only=True, threads=1):
            return False
    except LockedError:
        return True


def copy_database(database: Path, folder: Path) -> Path:
    """Copy file and log into the folder as they are; returns the copy, which no other process has open.

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
        except StorageError as error:  # perhaps half a transaction in the log
            damage = error
            continue
        return copy
    forget_copy(folder)
    if damage is not None:
        raise damage
    raise DataError(
        f"the DuckDB file was merged again during each of {ATTEMPTS} copies",
        code="TG0203",
        where=str(database),
        hint="run when its writer is quieter, or let it write a copy for you: `COPY FROM DATABASE`",
    )


def copy_of(folder: Path) -> Path:
    """Where this process keeps its copy."""
    return folder / f"copy-{os.getpid()}.duckdb"


def forget_copy(folder: Path) -> None:
    """Remove this process's copy, and those of processes that are no more."""
    for path in (*folder.glob(f"copy-{os.getpid()}.*"), *_of_the_dead(folder, "copy-*", "-")):
        path.unlink(missing_ok=True)


def cut_off(folder: Path) -> list[Path]:
    """Files of processes that are no more: copies, parts of files, and databases that were being rewritten."""
    patterns = {"copy-*": "-", "part-*": "-", ".ingest.duckdb.*": "duckdb."}
    return [path for pattern, before_pid in patterns.items() for path in _of_the_dead(folder, pattern, before_pid)]


def _of_the_dead(folder: Path, pattern: str, before_pid: str) -> list[Path]:
    """The files whose name tells a process that is no more."""
    return [
        path
        for path in sorted(folder.glob(pattern))
        if not Path(f"/proc/{path.name.partition(before_pid)[2].split('.')[0]}").exists()
    ]


def _copy(path: Path, to: Path) -> None:
    to.unlink(missing_ok=True)
    try:
        shutil.copyfile(path, to)
    except FileNotFoundError:  # of a log: nothing is committed beyond the file, or it was merged just now
        to.unlink(missing_ok=True)
    else:
        to.chmod(0o600)


def log_of(database: Path) -> Path:
    """Where DuckDB keeps what is committed and not yet merged."""
    return database.with_name(f"{database.name}.wal")


def _headers(database: Path) -> tuple[bytes, int]:
    with database.open("rb") as stream:
        return stream.read(_HEADERS), database.stat().st_ino
