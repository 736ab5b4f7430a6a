"""Write `ingest.duckdb` anew when texts were replaced or removed: DuckDB leaves their old bytes in the file.

Called by `tasks/curate/ingest/bring.py` when everything is in, and first thing after a kill. duckdb is imported inside
functions.
"""

from __future__ import annotations

import os
from pathlib import Path

from tasks.curate.ingest.landing import FILE, TABLES, open_landing
from tasks.failpoint import reach
from tasks.files import sync_directory
from tasks.warehouse import connect, quote_text


def rewrite_if_replaced(folder: Path) -> bool:
    """Leave no byte of a text that went; returns whether there was one. A reader keeps the file that it has open."""
    for left in folder.glob(f".{FILE}.*"):
        left.unlink()
    with open_landing(folder) as landing:
        if landing.mark("replaced") is None:
            return False
    path = folder / FILE
    aside = folder / f".{FILE}.{os.getpid()}.rewrite"
    with connect(aside, readable=(folder,), threads=1) as connection:
        connection.execute(f"ATTACH {quote_text(str(path.resolve()))} AS old (READ_ONLY)")
        for name, columns in TABLES.items():
            connection.execute(f"CREATE TABLE {name} ({columns})")
            kept = " WHERE name <> 'replaced'" if name == "marks" else ""
            connection.execute(f"INSERT INTO {name} SELECT * FROM old.{name}{kept}")
        connection.execute("DETACH old")
        connection.execute("CHECKPOINT")
    aside.chmod(0o600)
    reach("ingest.rewritten")
    aside.replace(path)
    sync_directory(folder)
    return True
