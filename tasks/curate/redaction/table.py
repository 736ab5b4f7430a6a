"""Redact a table of tickets, whole or in parts, and find the rows on which that raises.

`tasks/curate/redact.py` is the step; `batches.py` and `ticket.py` do the work on batches and texts.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.artifacts import RowCounts, TicketTable
from schemas.curation_steps import RedactStep
from tasks.compute.spread import Spread
from tasks.curate.redaction.batches import (
    BATCH_ROWS,
    NameSample,
    Redactions,
    changed_table,
    find_changes,
    redact_in_parts,
    redact_labels,
    with_column,
)
from tasks.curate.redaction.gates import ticket_bits
from tasks.curate.redaction.pseudonyms import Pseudonyms, load_pseudonyms
from tasks.curate.redaction.ticket import TicketRedactor
from tasks.curate.rows import TICKETS_ARROW, read_batches, write_ordered_tickets, write_removed, write_tickets
from tasks.tickets.row_fault import find_faulty


def redact_table(tickets: TicketTable, step: RedactStep, out: Path, spread: Spread | None) -> TicketTable:
    """Write the redacted rows, and what was redacted; `spread` redacts parts of them in other processes."""
    pseudonyms = load_pseudonyms(step)
    counts: Counter[str] = Counter()
    redactions = Redactions()
    batches = redact_labels(_redacted(tickets.tickets, step, counts, spread, redactions), step, counts)
    sample = None
    if step.names is not None and step.names.mode == "sample":
        sample = NameSample(tickets.tickets, step.names)
        batches = sample.watch(batches)
    if pseudonyms is not None:
        batches = _with_pseudonyms(batches, step, pseudonyms)
    n_rows = _write(batches, step, out)
    write_removed([], out)
    _write_redactions(redactions, step, pseudonyms, out)
    notes = {name: counts[name] for name in (*(f"redacted_{type_}" for type_ in step.types), "redacted_tickets")}
    notes |= {name: n for name, n in sorted(counts.items()) if name.startswith("labels_")}
    if sample is not None:
        notes |= sample.notes()
    if pseudonyms is not None:
        notes["pseudonyms"] = len(pseudonyms)
    return TicketTable(root=out, rows=RowCounts(n_in=n_rows, n_out=n_rows), notes=notes)


def _redacted(
    path: Path, step: RedactStep, counts: Counter[str], spread: Spread | None, redactions: Redactions
) -> Iterator[pa.Table]:
    """Yield the file's rows in order, those that pass the gate redacted; add to `counts` and `redactions`."""
    if spread is None:
        return _redact_gated(path, step, counts, redactions)
    return redact_in_parts(path, step, counts, spread, redactions)


def _redact_gated(path: Path, step: RedactStep, counts: Counter[str], redactions: Redactions) -> Iterator[pa.Table]:
    """As `_redacted`, in this process."""
    redactor = TicketRedactor(step)
    for batch, gate in _gated(path, step):
        changes = find_changes(batch, gate, redactor, counts)
        redactions.add(batch, changes)
        yield changed_table(batch, changes)


def faulty_rows(path: Path, step: RedactStep) -> Iterator[tuple[int, Exception]]:
    """Yield the rows on which redaction raises, with the error."""
    redactor = TicketRedactor(step)
    start = 0
    for batch, gate in _gated(path, step):

        def work(low: int, high: int, batch: pa.Table = batch, gate: NDArray[np.int32] = gate) -> None:
            find_changes(batch.slice(low, high - low), gate[low:high], redactor, Counter())

        for row, error in find_faulty(work, 0, batch.num_rows):
            yield start + row, error
        start += batch.num_rows


def _gated(path: Path, step: RedactStep) -> Iterator[tuple[pa.Table, NDArray[np.int32]]]:
    """Yield the rows in batches, each with its gate bits."""
    for group in read_batches(path):
        bits = ticket_bits(group, step)  # compiling its patterns for each batch would cost more than for each group
        for start in range(0, group.num_rows, BATCH_ROWS):
            yield group.slice(start, BATCH_ROWS), bits[start : start + BATCH_ROWS]


def _with_pseudonyms(batches: Iterable[pa.Table], step: RedactStep, pseudonyms: Pseudonyms) -> Iterator[pa.Table]:
    for batch in batches:
        for name in step.pseudonymise:
            batch = with_column(batch, name, pseudonyms.of_all(batch.column(name).to_pylist()))
        yield batch


def _write_redactions(redactions: Redactions, step: RedactStep, pseudonyms: Pseudonyms | None, out: Path) -> None:
    table = redactions.table()
    if pseudonyms is not None and "ticket_id" in step.pseudonymise:
        table = with_column(table, "ticket_id", pseudonyms.of_all(table.column("ticket_id").to_pylist()))
    pq.write_table(table, out / "redactions.parquet", compression="zstd")


def _write(batches: Iterable[pa.Table], step: RedactStep, out: Path) -> int:
    if "ticket_id" in step.pseudonymise:
        return write_tickets(pa.concat_tables([TICKETS_ARROW.empty_table(), *batches]), out)
    return write_ordered_tickets(batches, out)
