"""Take the texts as they came out of a published warehouse, when they have been kept long enough.

It knows nothing of dates and folders (`flows/retention.py` decides what is old). duckdb is imported inside functions.
"""

from __future__ import annotations

import os
from pathlib import Path

from schemas.tables import TICKETS
from tasks.curate.publish import TABLES, create_tables
from tasks.files import sync_directory
from tasks.warehouse import connect, quote_identifier, quote_text

PERSONAL = tuple(column.name for column in TICKETS if column.pii == "personal")


def forget_raw(database: Path) -> int:
    """Write the database anew without the texts of `raw_tickets`, and rename it into its place; returns its rows.

    Emptying the columns in place would leave the old bytes in the file. Ids, times and places stay, so that the fate
    of every row can still be told. Who has the old file open keeps reading it until they close it.
    """
    aside = database.with_name(f".{database.name}.{os.getpid()}.forget")
    aside.unlink(missing_ok=True)
    emptied = ", ".join(f"NULL AS {quote_identifier(name)}" for name in PERSONAL)
    try:
        with connect(aside, readable=(database.parent,)) as connection:
            connection.execute(f"ATTACH {quote_text(str(database.resolve()))} AS old (READ_ONLY)")
            create_tables(connection)
            for name in TABLES:
                columns = f"* REPLACE ({emptied})" if name == "raw_tickets" else "*"
                connection.execute(f"INSERT INTO {name} SELECT {columns} FROM old.{name}")
            n_rows = connection.execute("SELECT count(*) FROM raw_tickets").fetchall()[0][0]
            connection.execute("DETACH old")
            connection.execute("CHECKPOINT")
        aside.chmod(0o600)
        aside.replace(database)
        sync_directory(database.parent)
    finally:
        aside.unlink(missing_ok=True)
    return int(n_rows)


def has_raw_texts(database: Path) -> bool:
    """True when `raw_tickets` still holds a text."""
    with connect(database, read_only=True) as connection:
        filled = " OR ".join(f"{quote_identifier(name)} IS NOT NULL" for name in PERSONAL)
        found = connection.execute(f"SELECT count(*) FROM (SELECT 1 FROM raw_tickets WHERE {filled} LIMIT 1)")
        return bool(found.fetchall()[0][0])
