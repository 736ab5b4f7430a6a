"""Remove data from a workspace's two databases, the published warehouse and the feedback.

That is the rows of forgotten customers, and raw source texts when their retention time is over. DuckDB keeps the bytes
of deleted rows in the file, so each file is rewritten aside and renamed into place. A process that has the old file
open keeps reading it until it closes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.tables import TICKETS
from tasks.curate.warehouse_tables import TABLES, add_keys, create_tables
from tasks.monitor.feedback import TABLES as FEEDBACK_TABLES
from tasks.privacy.hashes import Forgotten, Kind
from tasks.storage.files import sha256_json, whole_file
from tasks.storage.warehouse import connect, quote_identifier, quote_text

if TYPE_CHECKING:
    from tasks.storage.warehouse import Connection

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
    "redactions": "SELECT * FROM old.redactions WHERE ticket_id NOT IN (FROM tickets)",
    "label_suspects": "SELECT * FROM old.label_suspects WHERE ticket_id NOT IN (FROM tickets)",
    "corrections": "SELECT * FROM old.corrections WHERE ticket_id NOT IN (FROM tickets)",
    "semantic_pairs": "SELECT * FROM old.semantic_pairs WHERE ticket_id NOT IN (FROM tickets) "
    "AND other_id NOT IN (FROM tickets)",
    "triggers": "SELECT * FROM old.triggers WHERE ticket_id NOT IN (FROM tickets) AND trigger_id NOT IN (FROM tickets)",
}
"""Table -> query for the rows that stay; the other tables hold only counts and stay unchanged."""
PERSONAL = tuple(column.name for column in TICKETS if column.pii == "personal")


def customers_of(database: Path) -> list[tuple[str, int]]:
    """Each customer of a published warehouse, with the number of their rows."""
    with connect(database, read_only=True, threads=2) as db:
        return db.execute(
            "SELECT customer_id, count(*) FROM (SELECT customer_id FROM raw_tickets UNION ALL "
            "SELECT customer_id FROM curated) WHERE customer_id IS NOT NULL GROUP BY 1"
        ).fetchall()


def rewrite_warehouse(database: Path, forgotten: Forgotten) -> int:
    """Rewrite the warehouse without those rows; returns how many rows of `raw_tickets` and `curated` were removed.

    It gets a new snapshot_id, since its tables no longer match the snapshot. The funnel keeps its original counts.
    """

    def write(db: Connection) -> int:
        create_tables(db)
        _select_forgotten(db, forgotten)
        n_before, n_after = 0, 0
        for name in _old_tables(db):
            db.execute(f"INSERT INTO {name} BY NAME {_WITHOUT.get(name, f'SELECT * FROM old.{name}')}")
            if name in ("raw_tickets", "curated"):
                n_before += _count(db, f"old.{name}")
                n_after += _count(db, name)
        [(snapshot_id,)] = db.execute("SELECT snapshot_id FROM snapshot").fetchall()
        changed = sha256_json([snapshot_id, "forgotten", n_after])[:16]
        db.execute("UPDATE snapshot SET snapshot_id = ?", [changed])
        db.execute("UPDATE snapshot SET n_curated = (SELECT count(*) FROM curated)")
        add_keys(db)
        return n_before - n_after

    return _rewritten(database, write)


def _old_tables(db: Connection) -> list[str]:
    """Tables of a warehouse that the old file has; one that an earlier tunegate wrote may lack some, and columns."""
    found = db.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'old'").fetchall()
    return [name for name in TABLES if (name,) in found]


def count_feedback(database: Path, forgotten: Forgotten) -> int:
    """Rows of feedback on tickets of forgotten customers."""
    with connect(database, read_only=True, threads=1) as db:
        ids = db.execute("SELECT ticket_id, count(*) FROM suggestions GROUP BY 1").fetchall()
    return sum(n_rows for ticket, n_rows in ids if forgotten.is_gone("ticket", ticket))


def rewrite_feedback(database: Path, forgotten: Forgotten) -> int:
    """Rewrite the feedback without the rows on their tickets; returns how many were removed. Row numbers stay."""

    def write(db: Connection) -> int:
        db.execute(FEEDBACK_TABLES)
        _put(db, "tickets", _matching(db, "SELECT DISTINCT ticket_id FROM old.suggestions", "ticket", forgotten))
        db.execute("INSERT INTO suggestions SELECT * FROM old.suggestions WHERE ticket_id NOT IN (FROM tickets)")
        db.execute("INSERT INTO refused SELECT * FROM old.refused")
        return _count(db, "old.suggestions") - _count(db, "suggestions")

    return _rewritten(database, write)


def _select_forgotten(db: Connection, forgotten: Forgotten) -> None:
    """Create the tables `places` and `tickets` of what must be removed; temporary, so they are not in the file."""
    # By place as well as by id: a ticket may also be stored under a pseudonym.
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
    """Let `write` fill a new file from the old one, attached as `old`, and replace the old file."""
    for leftover in database.parent.glob(f".{database.name}.*.tmp"):  # from a killed process
        leftover.unlink()
    made = database.stat().st_mtime  # the retention time of raw texts counts from here
    with whole_file(database, mode=0o600) as aside:
        with connect(aside, readable=(database.parent,)) as db:
            db.execute(f"ATTACH {quote_text(str(database.resolve()))} AS old (READ_ONLY)")
            n_gone = write(db)
            db.execute("DETACH old")
            db.execute("CHECKPOINT")
        os.utime(aside, (made, made))
    database.with_name(f"{database.name}.wal").unlink(missing_ok=True)
    return n_gone


def forget_raw(database: Path) -> int:
    """Rewrite the warehouse without the texts of `raw_tickets`; returns the number of its rows.

    Emptying the columns in place would leave the old bytes in the file. Ids, times and places stay, so every row can
    still be traced.
    """
    emptied = ", ".join(f"NULL AS {quote_identifier(name)}" for name in PERSONAL)

    def write(db: Connection) -> int:
        create_tables(db)
        for name in _old_tables(db):
            columns = f"* REPLACE ({emptied})" if name == "raw_tickets" else "*"
            db.execute(f"INSERT INTO {name} BY NAME SELECT {columns} FROM old.{name}")
        add_keys(db)
        return _count(db, "raw_tickets")

    return _rewritten(database, write)


def has_raw_texts(database: Path) -> bool:
    """Whether `raw_tickets` still holds any text."""
    with connect(database, read_only=True) as connection:
        filled = " OR ".join(f"{quote_identifier(name)} IS NOT NULL" for name in PERSONAL)
        found = connection.execute(f"SELECT count(*) FROM (SELECT 1 FROM raw_tickets WHERE {filled} LIMIT 1)")
        return bool(found.fetchall()[0][0])
