"""Drop tickets with a body or reply outside the bounds."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifacts import TicketTable
from schemas.curation_steps import LengthStep
from tasks.curate.drop import Judged, Kept, Rule, drop_rows, first_rule, kept_by_people
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.rows import read_batches
from tasks.curate.step import curation_step
from tasks.step import as_step

_CODES = tuple(f"{column}_too_{bound}" for column in ("body", "reply") for bound in ("short", "long"))


@curation_step(LengthStep, rules=lambda _step: _CODES)
@as_step("length", libraries=("duckdb", "pyarrow"))
def drop_by_length(
    out: Path,
    *,
    tickets: TicketTable,
    step: LengthStep,
    kept: TicketTable | None = None,
    limit: FaultLimit | None = None,
) -> TicketTable:
    """Drop a row by the first of `body_too_short`, `body_too_long`, `reply_too_short`, `reply_too_long` that applies.

    Lengths are Unicode characters, bounds included; a missing text has length 0. Notes: `dropped_<code>`.

    Raises:
        DataError: TG0220, more rows raise than `limit` allows.
    """
    return keep_sound_rows(
        lambda rows, folder: _drop_by_length(rows, step, folder, kept_by_people(kept)),
        tickets,
        step="length",
        out=out,
        limit=limit,
    )


def _drop_by_length(tickets: TicketTable, step: LengthStep, out: Path, kept: Kept) -> TicketTable:
    judged = (_judge(batch.combine_chunks(), step, kept) for batch in read_batches(tickets.tickets))
    return drop_rows(judged, out=out, notes={}, possible=_CODES)


def _judge(table: pa.Table, step: LengthStep, kept: Kept) -> Judged:
    rules = {}
    for column, least, most in (("body", step.min_body, step.max_body), ("reply", step.min_reply, step.max_reply)):
        # Chunked results of one table share their chunks; one array per column keeps the arithmetic simple.
        lengths = pc.fill_null(pc.utf8_length(table[column]), 0).combine_chunks().cast(pa.int64())
        begin = f"the {column} has "
        at_least, at_most = f" characters, fewer than {least}", f" characters, more than {most}"
        rules[f"{column}_too_short"] = Rule(pc.less(lengths, least), begin, lengths, at_least)
        rules[f"{column}_too_long"] = Rule(pc.greater(lengths, most), begin, lengths, at_most)
    return Judged(table, *first_rule(rules, table["ticket_id"].combine_chunks(), kept))
