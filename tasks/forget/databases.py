"""The two databases of a workspace, the published warehouse and the feedback, without what must no longer be in them.

That is the rows of forgotten customers, and the texts as they came out of the source when they have been kept long
enough. DuckDB keeps the bytes of deleted rows in the file: each is written aside once more and renamed into its place.
Who has the old file open keeps reading it until they close it. Called by `flows/privacy/` and `flows/run/retention.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.tables import TICKETS
from tasks.curate.publish import TABLES, create_tables
from tasks.files import sha256_json, sync_directory
from tasks.forget.hashes import Forgotten, Kind
from tasks.warehouse import connect, quote_identifier, quote_text
from tasks.watch.feedback import TABLES as FEEDBACK_TABLES

if TYPE_CHECKING:
    from tasks.warehouse import Connection

_WITHOUT = {
    "raw_tickets": "SELECT * FROM old.raw_tickets WHERE (source, source_line) NOT IN (SELECT * FROM places)",
    "curated": "SELECT * FROM old.curated WHERE (source, source_line) NOT IN (SELECT * FROM places)",
    "splits": "SELECT * FROM old.splits WHERE ticket_id NOT IN (FROM tickets)",
    "removed": "SELECT * EXCLUDE (points) REPLACE (if(points, NULL, kept_id) AS kept_id, "
    "if(points, NULL, cluster_id) AS cluster_id, if(points, NULL, shared_run) AS shared_run, "
    "if(points, NULL, score) AS score) FROM (SELECT *, "
    "coalesce(kept_id IN (FROM tickets), FALSE) OR coalesce(cluster_id IN (FROM tickets), FALSE) AS points "
    "FROM old.removed WHERE coalesce(ticket_id NOT IN (FROM tickets), TRUE) "
    "AND coalesce((source, source_line) NOT IN (SELECT * FROM places), TRUE))",
    "duplicates": "SELECT * FROM old.duplicates WHERE ticket_id NOT IN (FROM tickets) "
    "AND kept_id NOT IN (FROM tickets) AND cluster_id NOT IN (FROM tickets)",
    "conflicts": "SELECT * FROM old.conflicts WHERE ticket_id NOT IN (FROM tickets) "
    "AND family_id NOT IN (FROM tickets)",
    "semantic_pairs": "SELECT * FROM old.semantic_pairs WHERE ticket_id NOT IN (FROM tickets) "
    "AND other_id NOT IN (FROM tickets)",
}
"""Table -> its rows that stay; the other tables hold counts alone and stay as they were."""
PERSONAL = tuple(column.name for column in TICKETS if column.pii == "personal")


def customers_of(database: Path) -> list[tuple[str, int]]:
    """Each customer of a published warehouse with the number of their rows."""
    with connect(database, read_only=True, threads=2) as db:
        return db.execute(
            "SELECT customer_id, count(*) FROM (SELECT customer_id FROM raw_tickets UNION ALL "
            "SELECT customer_id FROM curated) WHERE customer_id IS NOT NULL GROUP BY 1"
        ).fetchall()


def rewrite_warehouse(database: Path, forgotten: Forgotten) -> int:
    """Write the warehouse anew without those rows; returns how many of `raw_tickets` and `curated` went.

    Its snapshot_id becomes another one: the tables are no more those of the snapshot. The funnel keeps the counts of
    the time at which it was made.
    """

    def write(db: Connection) -> int:
        create_tables(db)
        _gone(db, forgotten)
        n_before, n_after = 0, 0
        for name in TABLES:
            db.execute(f"INSERT INTO {name} {_WITHOUT.get(name, f'SELECT * FROM old.{name}')}")
            if name in ("raw_tickets", "curated"):
                n_before += _count(db, f"old.{name}")
                n_after += _count(db, name)
        [(snapshot_id,)] = db.execute("SELECT snapshot_id FROM snapshot").fetchall()
        changed = sha256_json([snapshot_id, "forgotten", n_after])[:16]
        db.execute("UPDATE snapshot SET snapshot_id = ?", [changed])
        db.execute("UPDATE snapshot SET n_curated = (SELECT count(*) FROM curated)")
        return n_before - n_after

    return _rewritten(database, write)


def count_feedback(database: Path, forgotten: Forgotten) -> int:
    """Rows of feedback on tickets of forgotten customers."""
    with connect(database, read_only=True, threads=1) as db:
        ids = db.execute("SELECT ticket_id, count(*) FROM suggestions GROUP BY 1").fetchall()
    return sum(n_rows for ticket, n_rows in ids if forgotten.is_gone("ticket", ticket))


def rewrite_feedback(database: Path, forgotten: Forgotten) -> int:
    """Write the feedback anew without the rows on their tickets; returns how many went. Numbers of rows stay."""

    def write(db: Connection) -> int:
        db.execute(FEEDBACK_TABLES)
        _put(db, "tickets", _matching(db, "SELECT DISTINCT ticket_id FROM old.suggestions", "ticket", forgotten))
        db.execute("INSERT INTO suggestions SELECT * FROM old.suggestions WHERE ticket_id NOT IN (FROM tickets)")
        db.execute("INSERT INTO refused SELECT * FROM old.refused")
        return _count(db, "old.suggestions") - _count(db, "suggestions")

    return _rewritten(database, write)


def _gone(db: Connection, forgotten: Forgotten) -> None:
    """Tables `places` and `tickets` of what goes. A ticket may stand there under a pseudonym as well: its place tells.
    Temporary tables: they are not in the file."""
    both = "(SELECT customer_id, ticket_id, source, source_line FROM old.raw_tickets UNION ALL "
    both += "SELECT customer_id, ticket_id, source, source_line FROM old.curated)"
    _put(db, "owners", _matching(db, f"SELECT DISTINCT customer_id FROM {both}", "customer", forgotten))
    _put(db, "named", _matching(db, f"SELECT DISTINCT ticket_id FROM {both}", "ticket", forgotten))
    db.execute(
        f"CREATE TEMP TABLE places AS SELECT DISTINCT source, source_line FROM {both} "
        "WHERE customer_id IN (FROM owners) OR ticket_id IN (FROM named)"
    )
    db.execute(
        "CREATE TEMP TABLE tickets AS SELECT DISTINCT ticket_id FROM "
        f"(SELECT ticket_id, source, source_line FROM {both} UNION ALL "
        "SELECT ticket_id, source, source_line FROM old.removed) "
        "WHERE ticket_id IS NOT NULL AND (source, source_line) IN (SELECT * FROM places)"
    )


def _matching(db: Connection, sql: str, kind: Kind, forgotten: Forgotten) -> list[str]:
    return [value for (value,) in db.execute(sql).fetchall() if forgotten.is_gone(kind, value)]


def _put(db: Connection, name: str, values: list[str]) -> None:
    db.execute(f"CREATE TEMP TABLE {name} AS SELECT unnest(?::VARCHAR[]) AS id", [values])


def _count(db: Connection, table: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def _rewritten(database: Path, write: Callable[[Connection], int]) -> int:
    """Let `write` fill a new file from the old one, attached as `old`, and rename it into the old one's place."""
    aside = database.with_name(f".{database.name}.{os.getpid()}.tmp")
    for leftover in database.parent.glob(f".{database.name}.*.tmp"):  # of a process that was killed
        leftover.unlink()
    made = database.stat().st_mtime  # how long raw texts have been kept counts from then
    try:
        with connect(aside, readable=(database.parent,)) as db:
            db.execute(f"ATTACH {quote_text(str(database.resolve()))} AS old (READ_ONLY)")
            n_gone = write(db)
            db.execute("DETACH old")
            db.execute("CHECKPOINT")
        aside.chmod(0o600)
        os.utime(aside, (made, made))
        aside.replace(database)
        database.with_name(f"{database.name}.wal").unlink(missing_ok=True)
        sync_directory(database.parent)
    finally:
        aside.unlink(missing_ok=True)
    return n_gone


def forget_raw(database: Path) -> int:
    """Write the warehouse once more without the texts of `raw_tickets`; returns its rows.

    Emptying the columns in place would leave the old bytes in the file. Ids, times and places stay, so that the fate
    of every row can still be told.
    """
    emptied = ", ".join(f"NULL AS {quote_identifier(name)}" for name in PERSONAL)

    def write(db: Connection) -> int:
        create_tables(db)
        for name in TABLES:
            columns = f"* REPLACE ({emptied})" if name == "raw_tickets" else "*"
            db.execute(f"INSERT INTO {name} SELECT {columns} FROM old.{name}")
        return _count(db, "raw_tickets")

    return _rewritten(database, write)


def has_raw_texts(database: Path) -> bool:
    """True when `raw_tickets` still holds a text."""
    with connect(database, read_only=True) as connection:
        filled = " OR ".join(f"{quote_identifier(name)} IS NOT NULL" for name in PERSONAL)
        found = connection.execute(f"SELECT count(*) FROM (SELECT 1 FROM raw_tickets WHERE {filled} LIMIT 1)")
        return bool(found.fetchall()[0][0])
