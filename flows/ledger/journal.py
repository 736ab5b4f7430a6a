"""The journal: one line per change of a row of the ledger, with the row's digest, chained by hash.

Triggers of the database (see `sqlite.py` and `postgres.py`) note in `touched` which rows a transaction changes;
`close_books` turns that into lines before the transaction commits. A row that another program changes, removes or
inserts contradicts the journal. Whoever can write the file can also forge the whole journal: to notice that, its last
hash is kept outside (`flows/ledger/witness.py`). `flows/ledger/base.py` checks both whenever the ledger is opened.
"""

import secrets
from collections.abc import Sequence
from typing import Any

import orjson

from flows.ledger.database import Database
from flows.ledger.tables import BOOKS
from flows.workspace.clock import now
from schemas.errors import StorageError
from tasks.storage.files import sha256_json

FIRST_HASH = "0" * 64


def open_books(db: Database) -> None:
    """Check, before a transaction writes, that no other program has.

    Raises:
        StorageError: TG0580, another program changed a row.
    """
    row = db.execute("SELECT book, row_key FROM touched LIMIT 1").fetchone()
    if row is not None:
        raise altered(f"{_describe(row['book'], row['row_key'])} was changed by another program")


def close_books(db: Database) -> None:
    """Write a line for each row that the transaction changed, before it commits. Gives a new ledger its identity."""
    at = now()
    if identity(db) is None:
        db.execute("INSERT INTO identity (id, created_at) VALUES (?, ?)", (secrets.token_hex(8), at))
    touched = db.execute("SELECT DISTINCT book, row_key FROM touched").fetchall()
    if not touched:
        return
    keys = sorted((row["book"], _canonical(orjson.loads(row["row_key"]))) for row in touched)
    seq, previous = last_line(db)
    for book, row_key in dict.fromkeys(keys):
        columns = BOOKS[book]
        where = " AND ".join(f"{column} = ?" for column in columns)
        row = db.execute(f"SELECT * FROM {book} WHERE {where}", orjson.loads(row_key)).fetchone()
        seq += 1
        line = {
            "seq": seq, "book": book, "row_key": row_key, "row_digest": "" if row is None else sha256_json(dict(row)),
            "at": at, "prev_hash": previous,
        }  # fmt: skip
        previous = sha256_json(line)
        db.execute(
            "INSERT INTO journal (seq, book, row_key, row_digest, at, prev_hash, hash)"
            " VALUES (:seq, :book, :row_key, :row_digest, :at, :prev_hash, :hash)",
            {**line, "hash": previous},
        )
    db.execute("DELETE FROM touched")


def check_books(db: Database) -> None:
    """Compare every row of the ledger with the journal, and the journal with its hashes.

    Raises:
        StorageError: TG0580, another program changed, removed or inserted a row; the message names the first one.
    """
    previous, last = FIRST_HASH, dict[tuple[str, str], str]()
    for number, row in enumerate(db.execute("SELECT * FROM journal ORDER BY seq").fetchall(), start=1):
        line = dict(row)
        stored = line.pop("hash")
        if line["seq"] != number or line["prev_hash"] != previous or not _has_digest(line, stored):
            raise altered(f"line {number} of the journal was changed, removed or inserted")
        previous = stored
        last[line["book"], line["row_key"]] = line["row_digest"]
    for book, columns in BOOKS.items():
        for row in db.execute(f"SELECT * FROM {book} ORDER BY {', '.join(columns)}").fetchall():
            row_key = _canonical([row[column] for column in columns])
            if not _has_digest(dict(row), last.pop((book, row_key), "")):
                raise altered(f"{_describe(book, row_key)} is not what tunegate wrote")
    for (book, row_key), digest in last.items():
        if digest:
            raise altered(f"{_describe(book, row_key)} was removed by another program")
    open_books(db)


def identity(db: Database) -> str | None:
    """Return the ledger's id, which its copies share; None before its first row."""
    row = db.execute("SELECT id FROM identity").fetchone()
    return None if row is None else str(row["id"])


def last_line(db: Database) -> tuple[int, str]:
    """Return number and hash of the journal's last line."""
    row = db.execute("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
    return (0, FIRST_HASH) if row is None else (int(row["seq"]), str(row["hash"]))


def altered(what: str) -> StorageError:
    """Make the error for a ledger that another program wrote to."""
    return StorageError(
        f"the ledger was altered: {what}",
        code="TG0580",
        where="ledger",
        hint="put the ledger back from a backup; nothing is run or promoted until then",
    )


def _has_digest(row: dict[str, Any], digest: str) -> bool:
    try:
        return sha256_json(row) == digest
    except TypeError:  # it has bytes, which tunegate never writes
        return False


def _canonical(key: Sequence[Any]) -> str:
    return orjson.dumps([str(part) for part in key]).decode()


def _describe(book: str, row_key: str) -> str:
    try:
        key = ", ".join(map(str, orjson.loads(row_key)))
    except (TypeError, ValueError):  # another program wrote it
        key = repr(row_key)
    return f"row {key} of {book}"
