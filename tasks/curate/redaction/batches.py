"""Redaction of a batch of rows: the gate in SQL, the changes it leads to, and the batch with them.

Finding and changing are apart, so that a worker may find what another process changes. Called by
`tasks/curate/redact.py` and `tasks/curate/parts/redact_parts.py`, inside functions: it imports pyarrow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.curation_steps import RedactStep
from tasks.curate.redaction.gates import gate_bits, other_bits
from tasks.curate.redaction.order_numbers import order_numbers
from tasks.curate.redaction.ticket import TEXT_COLUMNS, TicketRedactor

if TYPE_CHECKING:
    import duckdb

REDACTED = (*TEXT_COLUMNS, "messages")
READ = (*REDACTED, "reference")
BATCH_ROWS = 16_384
"""Rows whose texts are Python objects at a time."""
Changes = dict[str, tuple[list[int], list[str | None]]]
"""Text column -> rows of the batch that changed, ascending, and their new texts."""


def gate_of(connection: duckdb.DuckDBPyConnection, relation: str, step: RedactStep) -> pa.ChunkedArray:
    """One number per row, in the relation's order: which types each of its texts may hold, 0 for none."""
    orders = order_numbers(step.order_numbers) if "order_number" in step.types else None
    bits = gate_bits(step, orders=orders.pattern if orders else None)
    return connection.sql(f"SELECT ({bits})::BIGINT AS bits FROM {relation}").to_arrow_table().column("bits")


def find_changes(
    batch: pa.Table, bits: pa.ChunkedArray, step: RedactStep, redactor: TicketRedactor, counts: Counter[str]
) -> Changes:
    """What redaction changes in the rows that pass the gate; adds to `counts`."""
    gate = pc.bit_wise_or(bits.combine_chunks(), other_bits(batch, step))
    passed = pc.indices_nonzero(gate)
    changes: Changes = {name: ([], []) for name in REDACTED}
    rows = batch.select(list(READ)).take(passed).to_pylist()
    for place, row, row_bits in zip(passed.to_pylist(), rows, gate.take(passed).to_pylist(), strict=True):
        redacted, placeholders = redactor.redact(row, redactor.types_of(row_bits))
        if not placeholders.counts:
            continue
        for name, (places, texts) in changes.items():
            if redacted[name] is not row[name] and redacted[name] != row[name]:
                places.append(place)
                texts.append(redacted[name])
        counts.update({f"redacted_{type_}": n_values for type_, n_values in placeholders.counts.items()})
        counts["redacted_tickets"] += 1
    return changes


def changed_table(
    batch: pa.Table, changes: Mapping[str, tuple[Sequence[int], Sequence[str | None] | pa.Array]]
) -> pa.Table:
    """The batch with these texts in their places."""
    for name, (places, texts) in changes.items():
        if not len(places):
            continue
        mask = np.zeros(batch.num_rows, bool)
        mask[places] = True
        column = pa.concat_arrays(batch.column(name).chunks)
        new = texts if isinstance(texts, pa.Array) else pa.array(texts, column.type)
        batch = with_column(batch, name, pc.replace_with_mask(column, pa.array(mask), new))
    return batch


def with_column(table: pa.Table, name: str, values: object) -> pa.Table:
    """The table with other values in this column."""
    place = table.schema.get_field_index(name)
    field = table.schema.field(place)
    return table.set_column(place, field, pa.array(values, field.type) if isinstance(values, list) else values)
