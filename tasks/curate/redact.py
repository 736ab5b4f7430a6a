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
from tasks.curate.redaction.ticket import TEXT_COLUMNS, TicketRedactor, texts_of

if TYPE_CHECKING:
    import pyarrow as pa

_REDACTED = (*TEXT_COLUMNS, "messages")
_READ = (*_REDACTED, "reference")
_BATCH_ROWS = 16_384  # rows whose texts are Python objects at a time


def redact_tickets(*, tickets: TicketTable, step: RedactStep, out: Path) -> TicketTable:
    """Redact subject, body, reply and messages; every row stays.

    A value equal to the ticket's `reference` is kept: the answer must repeat it. Numbers go on after placeholders
    that the text already holds. One pass in SQL finds the rows that may hold anything; only those become Python
    objects. Notes: `redacted_<type>` counts the values replaced, `redacted_tickets` the rows; `names_sampled` and
    `names_found_permille` say in how many of a thousand sampled tickets a name is left.

    Raises:
        ConfigError: the pseudonyms' key or the extra `names` is missing, or an order number's pattern is no RE2.
    """
    from tasks.curate.redaction.pseudonyms import load_pseudonyms
    from tasks.curate.rows import read_rows, write_removed, write_tickets

    pseudonyms = load_pseudonyms(step)
    counts: Counter[str] = Counter()
    table = _redact_gated(read_rows(tickets.tickets), _gate(tickets.tickets, step), step, counts)
    notes = {name: counts[name] for name in (*(f"redacted_{type_}" for type_ in step.types), "redacted_tickets")}
    if step.names is not None and step.names.mode == "sample":
        notes |= _sample_names(table, step)
    if pseudonyms is not None:
        for name in step.pseudonymise:
            table = _with_column(table, name, pseudonyms.of_all(table.column(name).to_pylist()))
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


def _gate(path: Path, step: RedactStep) -> pa.ChunkedArray:
    """One number per row, in the file's order: which types each of its texts may hold, 0 for none."""
    from tasks.curate.redaction.gates import gate_bits
    from tasks.curate.redaction.order_numbers import order_numbers
    from tasks.warehouse import connect, quote_text

    orders = order_numbers(step.order_numbers) if "order_number" in step.types else None
    bits = gate_bits(step, orders=orders.pattern if orders else None)
    with connect(readable=(path,)) as connection:
        rows = connection.sql(f"SELECT ({bits})::BIGINT AS bits FROM read_parquet({quote_text(str(path))})")
        return rows.to_arrow_table().column("bits")


def _redact_gated(table: pa.Table, bits: pa.ChunkedArray, step: RedactStep, counts: Counter[str]) -> pa.Table:
    """The table with the rows that pass the gate redacted; adds to `counts`."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from tasks.curate.redaction.gates import other_bits

    redactor, batches = TicketRedactor(step), []
    for start in range(0, table.num_rows, _BATCH_ROWS):
        batch = table.slice(start, _BATCH_ROWS)
        gate = pc.bit_wise_or(bits.slice(start, _BATCH_ROWS).combine_chunks(), other_bits(batch, step))
        passed = pc.indices_nonzero(gate)
        changed: dict[str, tuple[list[int], list[str | None]]] = {name: ([], []) for name in _REDACTED}
        rows = batch.select(list(_READ)).take(passed).to_pylist()
        for place, row, row_bits in zip(passed.to_pylist(), rows, gate.take(passed).to_pylist(), strict=True):
            redacted, placeholders = redactor.redact(row, redactor.types_of(row_bits))
            if not placeholders.counts:
                continue
            for name, (places, texts) in changed.items():
                if redacted[name] is not row[name] and redacted[name] != row[name]:
                    places.append(place)
                    texts.append(redacted[name])
            counts.update({f"redacted_{type_}": n_values for type_, n_values in placeholders.counts.items()})
            counts["redacted_tickets"] += 1
        for name, (places, texts) in changed.items():
            if places:
                mask = np.zeros(batch.num_rows, bool)
                mask[places] = True
                column = pa.concat_arrays(batch.column(name).chunks)
                new = pc.replace_with_mask(column, pa.array(mask), pa.array(texts, column.type))
                batch = _with_column(batch, name, new)
        batches.append(batch)
    return pa.concat_tables(batches) if batches else table


def _sample_names(table: pa.Table, step: RedactStep) -> dict[str, int]:
    """In how many of a seeded sample of tickets a name is left. Which ones depends on their ids and the seed alone."""
    from tasks.curate.redaction.names import find_names

    if step.names is None:
        return {}
    seed, min_score = step.names.seed, step.names.min_score

    def lot(ticket_id: str) -> str:
        return hashlib.sha256(f"{seed}:{ticket_id}".encode()).hexdigest()

    ids = table.column("ticket_id").to_pylist()
    chosen = sorted(range(len(ids)), key=lambda row: lot(ids[row]))[: step.names.sample_tickets]
    rows = table.select(list(_READ)).take(chosen).to_pylist()
    n_found = sum(any(any(find_names(text, min_score=min_score)) for text in texts_of(row)) for row in rows)
    return {"names_sampled": len(rows), "names_found_permille": round(1000 * n_found / len(rows)) if rows else 0}


def _with_column(table: pa.Table, name: str, values: object) -> pa.Table:
    import pyarrow as pa

    place = table.schema.get_field_index(name)
    field = table.schema.field(place)
    return table.set_column(place, field, pa.array(values, field.type) if isinstance(values, list) else values)
