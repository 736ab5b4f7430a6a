"""Replace personal data in the texts of a ticket by typed placeholders that stay the same inside the ticket.

`[EMAIL_1]` in the reply is the `[EMAIL_1]` of the question, so a model can learn to repeat it. No map from placeholder
to value is kept. Ids may become keyed pseudonyms. What counts as personal is decided in `tasks/curate/redaction/`.
Called by `flows/curate.py`, and by `tunegate predict` for the one ticket that it is given.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import RowCounts, TicketTable
from schemas.curation_steps import RedactStep
from tasks.curate.redaction.ticket import TicketRedactor, texts_of
from tasks.spread import Spread

if TYPE_CHECKING:
    import pyarrow as pa


def redact_tickets(*, tickets: TicketTable, step: RedactStep, out: Path, spread: Spread | None = None) -> TicketTable:
    """Redact subject, body, reply and messages; every row stays.

    A value equal to the ticket's `reference` is kept: the answer must repeat it. Numbers go on after placeholders
    that the text already holds. One pass in SQL finds the rows that may hold anything; only those become Python
    objects. Notes: `redacted_<type>` counts the values replaced, `redacted_tickets` the rows; `names_sampled` and
    `names_found_permille` say in how many of a thousand sampled tickets a name is left.

    Args:
        spread: Does parts of the rows elsewhere; sampling and pseudonyms stay here. The result is the same.

    Raises:
        ConfigError: the pseudonyms' key or the extra `names` is missing, or an order number's pattern is no RE2.
    """
    from tasks.curate.redaction.batches import with_column
    from tasks.curate.redaction.pseudonyms import load_pseudonyms
    from tasks.curate.rows import write_removed, write_tickets

    pseudonyms = load_pseudonyms(step)
    counts: Counter[str] = Counter()
    if spread is None:
        table = _redact_gated(tickets.tickets, step, counts)
    else:
        table = _redact_spread(tickets.tickets, step, counts, spread)
    notes = {name: counts[name] for name in (*(f"redacted_{type_}" for type_ in step.types), "redacted_tickets")}
    if step.names is not None and step.names.mode == "sample":
        notes |= _sample_names(table, step)
    if pseudonyms is not None:
        for name in step.pseudonymise:
            table = with_column(table, name, pseudonyms.of_all(table.column(name).to_pylist()))
        notes["pseudonyms"] = len(pseudonyms)
    n_rows = write_tickets(table, out)
    write_removed([], out)
    return TicketTable(root=out, rows=RowCounts(n_in=n_rows, n_out=n_rows), notes=notes)


def redact_row(row: Mapping[str, str | None], step: RedactStep) -> tuple[dict[str, str | None], Counter[str]]:
    """One ticket with its texts redacted as in the table, its other columns as they are; the values replaced per type.

    >>> redact_row({"subject": "From ann@example.org", "body": "Write to Ann@example.org"}, RedactStep(uses="redact"))
    ({'subject': 'From [EMAIL_1]', 'body': 'Write to [EMAIL_1]'}, Counter({'email': 2}))
    """
    redacted, placeholders = _redactor(step).redact(row)
    return redacted, placeholders.counts


@cache
def _redactor(step: RedactStep) -> TicketRedactor:
    return TicketRedactor(step)


def _redact_gated(path: Path, step: RedactStep, counts: Counter[str]) -> pa.Table:
    """The file's table with the rows that pass the gate redacted; adds to `counts`."""
    import pyarrow as pa

    from tasks.curate.redaction.batches import BATCH_ROWS, changed_table, find_changes, gate_of
    from tasks.curate.rows import read_rows
    from tasks.warehouse import connect, quote_text

    table = read_rows(path)
    with connect(readable=(path,)) as connection:
        bits = gate_of(connection, f"read_parquet({quote_text(str(path))})", step)
    redactor, batches = TicketRedactor(step), []
    for start in range(0, table.num_rows, BATCH_ROWS):
        batch = table.slice(start, BATCH_ROWS)
        changes = find_changes(batch, bits.slice(start, BATCH_ROWS), step, redactor, counts)
        batches.append(changed_table(batch, changes))
    return pa.concat_tables(batches) if batches else table


def _redact_spread(path: Path, step: RedactStep, counts: Counter[str], spread: Spread) -> pa.Table:
    """The same, the rows in parts on the workers."""
    from tasks.curate.parts.redact_parts import redact_in_parts
    from tasks.curate.rows import read_rows

    return redact_in_parts(read_rows(path), step, counts, spread)


def _sample_names(table: pa.Table, step: RedactStep) -> dict[str, int]:
    """In how many of a seeded sample of tickets a name is left. Which ones depends on their ids and the seed alone."""
    from tasks.curate.redaction.batches import READ
    from tasks.curate.redaction.names import find_names

    if step.names is None:
        return {}
    seed, min_score = step.names.seed, step.names.min_score

    def lot(ticket_id: str) -> str:
        return hashlib.sha256(f"{seed}:{ticket_id}".encode()).hexdigest()

    ids = table.column("ticket_id").to_pylist()
    chosen = sorted(range(len(ids)), key=lambda row: lot(ids[row]))[: step.names.sample_tickets]
    rows = table.select(list(READ)).take(chosen).to_pylist()
    n_found = sum(any(any(find_names(text, min_score=min_score)) for text in texts_of(row)) for row in rows)
    return {"names_sampled": len(rows), "names_found_permille": round(1000 * n_found / len(rows)) if rows else 0}
