"""Tables of any number of tickets for `benchmarks/scale.py`: the 200,000 of `benchmarks/tickets.py` in many dialects.

Each dialect is the same tickets with a suffix of its own on all words of six letters and more, but for those of
greetings and signatures: near duplicates stay inside a dialect, at the same share, and what dialects have in common are
runs of short words. Made batch by batch in the order of a table between steps; equal numbers give equal bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.tickets import ticket_files
from schemas.artifacts import RowCounts, TicketTable

VERSION = 1
N_BASE = 200_000
BATCH_ROWS = 50_000
KEPT = "regards|sincerely|thanks|cheers|greetings|wishes|grüßen|saludos|cordialement"
"""Words that tell where a message's parts begin."""


def scale_table(n_tickets: int, folder: Path) -> TicketTable:
    """The tickets as a table that a step reads, made at the first call."""
    out = folder / f"scale-{n_tickets}-v{VERSION}"
    if not out.exists():
        from tasks.curate.rows import write_ordered_tickets, write_removed

        print(f"making {n_tickets:,} tickets", file=sys.stderr)
        aside = out.with_suffix(".part")
        aside.mkdir(parents=True, exist_ok=True)
        write_ordered_tickets(_batches(n_tickets, ticket_files(N_BASE, folder)[0]), aside)
        write_removed([], aside)
        aside.rename(out)
    return TicketTable(root=out, rows=RowCounts(n_in=n_tickets, n_out=n_tickets))


def _batches(n_tickets: int, base: Path) -> Iterator[object]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from schemas.tables import TICKETS
    from tasks.curate.rows import ARROW_TYPES
    from tasks.warehouse import connect

    table = pq.read_table(base)
    names = {column.name: column for column in TICKETS}
    for dialect in range(-(-n_tickets // N_BASE)):
        suffix = _suffix(dialect)
        wanted = min(N_BASE, n_tickets - dialect * N_BASE)
        for start in range(0, wanted, BATCH_ROWS):
            batch = table.slice(start, min(BATCH_ROWS, wanted - start))
            columns = ", ".join(_column(name, suffix, dialect, names[name].sql_type) for name in batch.column_names)
            with connect() as connection:
                connection.register("batch", batch)
                made = connection.sql(
                    f"SELECT {columns}, 'generated' AS source, ({dialect * N_BASE + start + 1} "
                    f"+ row_number() OVER () - 1)::BIGINT AS source_line FROM batch"
                ).to_arrow_table()
            for name, column in names.items():
                if name not in made.column_names:
                    made = made.append_column(name, pa.nulls(made.num_rows, ARROW_TYPES[column.sql_type]))
            yield made


def _column(name: str, suffix: str, dialect: int, sql_type: str) -> str:
    if name in ("ticket_id", "thread_id", "customer_id"):
        return f"'{dialect:03d}-' || {name} AS {name}"
    if name in ("subject", "body", "reply") and suffix:
        spoken = f"regexp_replace({name}, '\\b([a-z]{{6,}})\\b', '\\1{suffix}', 'g')"
        return f"regexp_replace({spoken}, '\\b({KEPT}){suffix}\\b', '\\1', 'g') AS {name}"
    return f"{name}::{sql_type} AS {name}"


def _suffix(dialect: int) -> str:
    """Nothing for the first, else two letters."""
    return "" if not dialect else f"{'bdfghjklmnprstvz'[dialect // 16]}{'bdfghjklmnprstvz'[dialect % 16]}"
