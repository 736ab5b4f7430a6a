"""Redaction in parts: ranges of rows go to workers, and what redaction changes in them comes back.

Called by `tasks/curate/redact.py` when there is a `Spread`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from schemas.curation_steps import RedactStep
from tasks.curate.parts.pieces import cut, packed, row_ranges, unpacked
from tasks.curate.redaction.batches import BATCH_ROWS, READ, REDACTED, Changes, changed_table, find_changes, gate_of
from tasks.curate.redaction.ticket import TicketRedactor
from tasks.curate.row_groups import GROUP_ROWS
from tasks.curate.rows import count_rows, read_batches
from tasks.spread import Spread
from tasks.warehouse import connect

Found = tuple[dict[str, tuple[list[int], pa.Buffer]], Counter[str]]
"""Text column -> rows that changed, and their new texts; and the notes."""


def redact_in_parts(path: Path, step: RedactStep, counts: Counter[str], spread: Spread) -> Iterator[pa.Table]:
    """The file's rows in its order, those that pass the gate redacted; adds to `counts`.

    The file is read twice, for what goes out and for what stays: parts on their way are as many as there are
    processors, and their other columns would be held here meanwhile.
    """
    n_rows = count_rows(path)
    n_parts = max(spread.n_parts, -(-n_rows // GROUP_ROWS))
    ranges = row_ranges(n_rows, n_parts, at_least=BATCH_ROWS // 8)
    parts = ((packed(rows), step) for rows in cut(read_batches(path, READ), ranges))
    found = spread.each(redact_piece, parts)
    for rows, (changes, counted) in zip(cut(read_batches(path), ranges), found, strict=True):
        texts = {name: (places, _column(new)) for name, (places, new) in changes.items()}
        counts.update(counted)
        yield changed_table(rows, texts)


def redact_piece(piece: pa.Buffer, step: RedactStep) -> Found:
    """What redaction changes in these rows, counted from the first of them."""
    table, counts = unpacked(piece), Counter[str]()
    with connect(threads=1) as connection:
        connection.register("piece", table)
        bits = gate_of(connection, "piece", step)
    redactor = TicketRedactor(step)
    all_changes: Changes = {name: ([], []) for name in REDACTED}
    for start in range(0, table.num_rows, BATCH_ROWS):
        batch = table.slice(start, BATCH_ROWS)
        changes = find_changes(batch, bits.slice(start, BATCH_ROWS), step, redactor, counts)
        for name, (places, texts) in changes.items():
            all_changes[name][0].extend(start + place for place in places)
            all_changes[name][1].extend(texts)
    return {name: (places, _texts(table, name, texts)) for name, (places, texts) in all_changes.items()}, counts


def _texts(table: pa.Table, name: str, texts: list[str | None]) -> pa.Buffer:
    return packed(pa.table({"texts": pa.array(texts, table.schema.field(name).type)}))


def _column(found: pa.Buffer) -> pa.Array:
    """The texts in one array: a part's texts are less than the 2 GiB that it can hold."""
    column = unpacked(found).column("texts")
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
