"""Limit the tickets per customer, day or other key, so that no single voice outweighs the rest."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifacts import TicketTable
from schemas.curation_steps import CapStep
from tasks.curate.drop import Judged, drop_rows
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.rows import read_batches_with
from tasks.curate.step import curation_step
from tasks.step import as_step
from tasks.storage.warehouse import connect, quote_identifier, quote_text

_FIRST = {"newest": "created_at DESC NULLS LAST, ", "oldest": "created_at ASC NULLS LAST, ", "hash": ""}


@curation_step(CapStep)
@as_step("cap", libraries=("duckdb", "pyarrow"))
def cap_rows(out: Path, *, tickets: TicketTable, step: CapStep, limit: FaultLimit | None = None) -> TicketTable:
    """Keep the first `max_rows` rows of each key in the order of `prefer`; drop the others as `cap_<keys>`.

    Ties, and all rows with `prefer: hash`, are ordered by sha256 of seed and ticket_id, so the choice depends neither
    on the order of rows nor on that of ids. `day` is the UTC day of created_at. A row with a null key stays.
    Notes: `dropped_<code>`, `uncapped_null_key` (such rows).

    Raises:
        DataError: TG0220, more rows raise than `limit` allows.
    """
    return keep_sound_rows(
        lambda rows, folder: _cap_rows(rows, step, folder), tickets, step="cap", out=out, limit=limit
    )


def _cap_rows(tickets: TicketTable, step: CapStep, out: Path) -> TicketTable:
    keys = tuple(dict.fromkeys(step.per))
    code = f"cap_{'_'.join(keys)}"
    expressions = ["date_trunc('day', created_at)" if key == "day" else quote_identifier(key) for key in keys]
    has_key = " AND ".join(f"{expression} IS NOT NULL" for expression in expressions)
    tie = f"sha256({quote_text(f'{step.seed}:')} || ticket_id), ticket_id, source, source_line"
    with connect(readable=(tickets.tickets,)) as connection:
        ranks = connection.sql(
            f"SELECT CASE WHEN {has_key} THEN row_number() OVER (PARTITION BY {', '.join(expressions)} "
            f"ORDER BY {_FIRST[step.prefer]}{tie}) END AS rank "
            f"FROM read_parquet({quote_text(str(tickets.tickets))}) ORDER BY ticket_id, source, source_line"
        ).to_arrow_table()["rank"]
    drops = pc.fill_null(pc.greater(ranks, step.max_rows), False)
    reason = f"more than {step.max_rows} tickets of one {' and '.join(keys)}"
    nothing = pa.scalar(None, pa.string())
    judged = (
        Judged(batch, *(pc.if_else(rows, text, nothing) for text in (pa.scalar(code), pa.scalar(reason))))
        for batch, rows in read_batches_with(tickets.tickets, drops)
    )
    notes = {"uncapped_null_key": ranks.null_count}
    return drop_rows(judged, out=out, notes=notes, possible=(code,))
