"""Redact the columns next to the texts: labels such as `category`, and `reference`.

Labels repeat, so each different one is searched once, with the gate and the rules of the texts. A reference is replaced
only if it is an e-mail address or the like: the answer must repeat an order number. Called by `tasks/curate/redact.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from schemas.curation_steps import RedactStep
from tasks.curate.redaction.batches import redact_strings, with_column
from tasks.curate.redaction.ids import LABEL_COLUMNS, PERSONAL_ID, is_personal_id
from tasks.curate.redaction.ticket import TicketRedactor

FEW_VALUES = 200
"""Up to so many values the gate costs more than it saves: RE2 compiles its patterns in ten milliseconds."""


def redact_labels(batches: Iterable[pa.Table], step: RedactStep, counts: Counter[str]) -> Iterator[pa.Table]:
    """Yield the batches with labels and references redacted; count the values replaced as `labels_redacted`."""
    redactor = TicketRedactor(step)
    known, redacted = pa.array([], pa.string()), pa.array([], pa.string())
    for batch in batches:
        for name in (*LABEL_COLUMNS, "reference"):
            column = batch.column(name).combine_chunks()
            values = _personal_references(column) if name == "reference" else pc.unique(column).drop_null()
            new = values.filter(pc.invert(pc.is_in(values, known)))
            if len(new):
                known = pa.concat_arrays([known, new])
                redacted = pa.concat_arrays([redacted, _redacted(new, step, redactor)])
            batch = _replaced(batch, name, values, known, redacted, counts)
        yield batch


def _personal_references(column: pa.Array) -> pa.Array:
    values = pc.unique(column.filter(pc.fill_null(pc.match_substring_regex(column, PERSONAL_ID), False)))
    return pa.array([value for value in values.to_pylist() if is_personal_id(value)], pa.string())


def _redacted(values: pa.Array, step: RedactStep, redactor: TicketRedactor) -> pa.Array:
    """Return the values with what is personal in them replaced."""
    if len(values) <= FEW_VALUES:
        return pa.array([redactor.redact({"body": value})[0]["body"] for value in values.to_pylist()], pa.string())
    return redact_strings(values, step)[0]


def _replaced(
    batch: pa.Table, name: str, values: pa.Array, known: pa.Array, redacted: pa.Array, counts: Counter[str]
) -> pa.Table:
    places = pc.index_in(values, known)
    new = redacted.take(places)
    personal = values.filter(pc.not_equal(values, new))
    if not len(personal):
        return batch
    column = batch.column(name).combine_chunks()
    hit = pc.is_in(column, personal)
    counts["labels_redacted"] += pc.sum(hit).as_py()
    replacements = redacted.take(pc.index_in(column.filter(hit), known))
    return with_column(batch, name, pc.replace_with_mask(column, hit, replacements))
