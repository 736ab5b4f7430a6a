"""Copy a ledger from one place to another: in one transaction, with the same events and the same hashes.

That moves a ledger from its file into Postgres, and backs up one in Postgres to a file.
"""

from collections.abc import Mapping
from typing import Any

from flows.ledger.base import LedgerBase
from flows.ledger.database import Database
from flows.ledger.journal import check_books
from flows.ledger.tables import BOOKS
from schemas.errors import StorageError
from tasks.storage.files import sha256_json

_KEPT = {**BOOKS, "journal": ("seq",)}
"""Table -> the columns that it is ordered by."""


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
    return {name: len(rows) for name, rows in copied.items()}


def ledger_digest(ledger: LedgerBase) -> str:
    """Digest of every row of the ledger: equal for a ledger and its copy, wherever each is kept."""
    with ledger.read() as db:
        return sha256_json({name: _rows(db, name) for name in _KEPT})


def _rows(db: Database, name: str) -> list[dict[str, Any]]:
    return [dict(row) for row in db.execute(f"SELECT * FROM {name} ORDER BY {', '.join(_KEPT[name])}").fetchall()]
