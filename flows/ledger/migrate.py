"""Upgrade a ledger of an older version after a backup, and copy a ledger from one place to another.

Copying moves a ledger from its file into Postgres, and backs up one in Postgres to a file: in one transaction, with the
same events and the same hashes. Called by `flows/cli/migration.py`.
"""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from flows.ledger.base import LedgerBase
from flows.ledger.database import Database
from flows.ledger.history import checked_history
from flows.ledger.journal import check_books
from flows.ledger.sqlite import LedgerFile, check_version
from flows.ledger.tables import BOOKS, VERSION
from flows.ledger.upgrade import UPGRADES
from flows.workspace.clock import present
from flows.workspace.disk import private_folder
from flows.workspace.lock import hold
from schemas.errors import StorageError
from tasks.storage.files import sha256_json

_KEPT = {**BOOKS, "journal": ("seq",)}
"""Table -> the columns that it is ordered by."""


def upgrade_file(path: Path, *, backups: Path) -> tuple[int, Path] | None:
    """Upgrade a ledger's file; return the version it had and its backup, None when there was nothing to do.

    Raises:
        StorageError: TG0530, a newer tunegate wrote it.
    """
    file = LedgerFile(path)
    if not file.exists():
        return None
    with hold(path.with_name("ledger.sqlite.creating")), closing(file.connect()) as db:
        version = file.version(db)
        if version > VERSION:
            check_version(version, file.place)
        if version in (0, VERSION):
            return None
        backup = free_name(backups, f"ledger-v{version}", ".sqlite")
        copy_file(db, backup)
        for older in range(version, VERSION):
            UPGRADES[older](db)
    return version, backup


def copy_file(db: sqlite3.Connection, to: Path) -> None:
    """Copy an open ledger, as of one moment, to a file that only this user can read."""
    os.close(os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(to)) as other:
        db.backup(other)
    descriptor = os.open(to, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_ledger(source: LedgerBase, target: LedgerBase) -> Mapping[str, int]:
    """Copy every row into a ledger that has none; table -> rows. All of it or nothing.

    Raises:
        StorageError: TG0531, the target already has rows; TG0580, the source's history was altered.
    """
    with source.read() as here, target.write() as there:
        check_books(here)
        used = [name for name in _KEPT if _rows(there, name)]
        if used:
            raise StorageError(
                f"the ledger to copy into has rows already: {', '.join(used)}",
                code="TG0531",
                where=target.kept.place,
                hint="copy into an empty database or folder; two histories cannot become one",
            )
        copied = {name: _rows(here, name) for name in _KEPT}
        for name, rows in copied.items():
            for row in rows:
                marks = ", ".join("?" for _ in row)
                there.execute(f"INSERT INTO {name} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
        target.kept.continue_numbering(there)
        there.execute("DELETE FROM touched")  # the journal was copied with its rows
        check_books(there)
        checked_history(there)
    return {name: len(rows) for name, rows in copied.items()}


def ledger_digest(ledger: LedgerBase) -> str:
    """Digest of every row of the ledger: equal for a ledger and its copy, wherever each is kept."""
    with ledger.read() as db:
        return sha256_json({name: _rows(db, name) for name in _KEPT})


def free_name(folder: Path, stem: str, suffix: str) -> Path:
    """Return an unused path below the folder, with the current time in its name."""
    private_folder(folder)
    at = f"{present():%Y%m%d-%H%M%S}"
    names = (folder / f"{stem}-{at}{f'-{n}' if n else ''}{suffix}" for n in range(1000))
    return next(path for path in names if not path.exists())


def _rows(db: Database, name: str) -> list[dict[str, Any]]:
    return [dict(row) for row in db.execute(f"SELECT * FROM {name} ORDER BY {', '.join(_KEPT[name])}").fetchall()]
