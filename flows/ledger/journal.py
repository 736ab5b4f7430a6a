"""The journal: for every change of a row of the ledger one line with the row's digest, chained by hash.

The database notes in `touched` which rows a transaction changes (triggers, see `ledger_file.py` and
`ledger_postgres.py`); `close_books` turns that into lines before the transaction commits. Whoever changes a row with
another program, or removes one, or puts one in, contradicts the journal. Who can write the file can also forge the
whole journal: against that its last hash is kept outside (`flows/ledger/witness.py`).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import orjson

from flows.ledger.database import Database
from flows.ledger.tables import BOOKS
from flows.workspace.clock import present
from schemas.errors import StorageError
from tasks.files import sha256_json

FIRST_HASH = "0" * 64


def open_books(db: Database) -> None:
    """Before a transaction writes: nobody else has.

    Raises:
        StorageError: TG0580, another program changed a row.
    """
    row = db.execute("SELECT book, row_key FROM touched LIMIT 1").fetchone()
    if row is not None:
        raise altered(f"{_told(row['book'], row['row_key'])} was changed by another program")


def close_books(db: Database) -> None:
    """Before a transaction commits: a line for each row that it changed. Gives a new ledger its identity."""
    at = present().isoformat(timespec="seconds")
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
        StorageError: TG0580, a row was changed, removed or put in by another program; the first one is named.
    """
    previous, last = FIRST_HASH, dict[tuple[str, str], str]()
    for number, row in enumerate(db.execute("SELECT * FROM journal ORDER BY seq").fetchall(), start=1):
        line = dict(row)
        told = line.pop("hash")
        if line["seq"] != number or line["prev_hash"] != previous or told != sha256_json(line):
            raise altered(f"line {number} of the journal was changed, removed or put in between")
        previous = told
        last[line["book"], line["row_key"]] = line["row_digest"]
    for book, columns in BOOKS.items():
        for row in db.execute(f"SELECT * FROM {book}").fetchall():
            row_key = _canonical([row[column] for column in columns])
            if last.pop((book, row_key), "") != sha256_json(dict(row)):
                raise altered(f"{_told(book, row_key)} is not what tunegate wrote")
    for (book, row_key), digest in last.items():
        if digest:
            raise altered(f"{_told(book, row_key)} was removed by another program")
    open_books(db)


def identity(db: Database) -> str | None:
    """Which ledger it is, however often it is copied; None before its first row."""
    row = db.execute("SELECT id FROM identity").fetchone()
    return None if row is None else str(row["id"])


def last_line(db: Database) -> tuple[int, str]:
    """Number and hash of the journal's last line."""
    row = db.execute("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
    return (0, FIRST_HASH) if row is None else (int(row["seq"]), str(row["hash"]))


def altered(what: str) -> StorageError:
    """The error of a ledger that somebody wrote to."""
    return StorageError(
        f"the ledger was altered: {what}",
        code="TG0580",
        where="ledger",
        hint="put the ledger back from a backup; nothing is run or promoted until then",
    )


def _canonical(key: Sequence[Any]) -> str:
    return orjson.dumps([str(part) for part in key]).decode()


def _told(book: str, row_key: str) -> str:
    return f"row {', '.join(map(str, orjson.loads(row_key)))} of {book}"
