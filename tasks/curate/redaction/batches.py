"""Redact batches of rows: run the gate, find the changes, apply them.

Finding and applying are separate, so that a worker can find what another process applies: with a `Spread`, ranges of
rows go to workers, which return the changes. `NameSample` measures on a seeded sample how many tickets still contain a
name after redaction.

Labels such as `category` repeat, so each different one is searched once, with the gate and the rules of the texts. Two
that differ only by personal data become one: it is counted, since no number that depends on the other tickets could
keep them apart from one run to the next. A `reference` is replaced only if it is an e-mail address or the like: the
answer must repeat an order number.

It imports pyarrow, so `tasks/curate/redact.py` imports it inside functions.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.curation_steps import NamesSpec, RedactStep
from tasks.compute.spread import Spread
from tasks.curate.redaction.gates import bits_of, ticket_bits
from tasks.curate.redaction.names import find_names
from tasks.curate.redaction.personal import LABEL_COLUMNS, PERSONAL_ID, is_personal_id
from tasks.curate.redaction.ticket import TEXT_COLUMNS, TicketRedactor, texts_of
from tasks.curate.row_groups import GROUP_ROWS, cut, packed, row_ranges, unpacked
from tasks.curate.rows import count_rows, read_batches

if TYPE_CHECKING:
    import pyarrow as pa

REDACTED = (*TEXT_COLUMNS, "messages")
READ = (*REDACTED, "reference")
BATCH_ROWS = 16_384
"""Rows with their texts as Python objects at the same time."""
REDACTIONS = "redactions"
Changes = dict[str, tuple[list[int], list[str | None]]]
"""Text column -> changed rows of the batch, ascending, and their new texts. Under `REDACTIONS` a row for each type
of value that was replaced in it, and type and number as text (`email 2`), which workers return like texts."""
Found = tuple[dict[str, tuple[list[int], pa.Buffer]], Counter[str]]
"""Text column -> changed rows and their new texts; and the notes."""
FEW_VALUES = 200
"""Up to so many values the gate costs more than it saves: RE2 compiles its patterns in ten milliseconds."""


def find_changes(batch: pa.Table, bits: NDArray[np.int32], redactor: TicketRedactor, counts: Counter[str]) -> Changes:
    """Find what redaction changes in the rows that pass the gate (`ticket_bits`); add to `counts`."""
    passed = np.flatnonzero(bits.any(axis=1))
    changes: Changes = {name: ([], []) for name in (*REDACTED, REDACTIONS)}
    rows = batch.select(list(READ)).take(passed).to_pylist()
    for place, row, row_bits in zip(passed.tolist(), rows, bits[passed].tolist(), strict=True):
        redacted, placeholders = redactor.redact(row, redactor.types_of(*row_bits))
        if not placeholders.counts:
            continue
        for name in REDACTED:
            places, texts = changes[name]
            if redacted[name] is not row[name] and redacted[name] != row[name]:
                places.append(place)
                texts.append(redacted[name])
        for type_, n_values in placeholders.counts.items():
            counts[f"redacted_{type_}"] += n_values
            changes[REDACTIONS][0].append(place)
            changes[REDACTIONS][1].append(f"{type_} {n_values}")
        counts["redacted_tickets"] += 1
    return changes


def redact_strings(texts: pa.Array, step: RedactStep) -> tuple[pa.Array, Counter[str]]:
    """Each string redacted as if it were the body of a ticket of its own, and the values replaced per type.

    Null stays null. Equal strings are read once, so a column of labels costs as much as its labels.
    """
    encoded = texts.dictionary_encode()
    strings = encoded.dictionary.cast(pa.string())
    n_rows = np.bincount(pc.drop_null(encoded.indices).to_numpy(), minlength=len(strings))
    bits = bits_of(strings, step)
    passed = np.flatnonzero(bits)
    redactor, counts = TicketRedactor(step), Counter[str]()
    places, changed = [], []
    for place, text in zip(passed.tolist(), strings.take(passed).to_pylist(), strict=True):
        redacted, placeholders = redactor.redact({"body": text}, redactor.types_of(0, int(bits[place]), 0, 0))
        if placeholders.counts:
            places.append(place)
            changed.append(redacted["body"])
            counts.update({type_: n * int(n_rows[place]) for type_, n in placeholders.counts.items()})
    if not places:
        return texts, counts
    mask = np.zeros(len(strings), bool)
    mask[places] = True
    strings = pc.replace_with_mask(strings, pa.array(mask), pa.array(changed, pa.string()))
    return strings.take(encoded.indices).cast(texts.type), counts


def changed_table(
    batch: pa.Table, changes: Mapping[str, tuple[Sequence[int], Sequence[str | None] | pa.Array]]
) -> pa.Table:
    """Return the batch with the changes applied."""
    for name, (places, texts) in changes.items():
        if not len(places) or name == REDACTIONS:
            continue
        mask = np.zeros(batch.num_rows, bool)
        mask[places] = True
        column = pa.concat_arrays(batch.column(name).chunks)
        new = texts if isinstance(texts, pa.Array) else pa.array(texts, column.type)
        batch = with_column(batch, name, pc.replace_with_mask(column, pa.array(mask), new))
    return batch


def with_column(table: pa.Table, name: str, values: object) -> pa.Table:
    """Return the table with other values in this column."""
    place = table.schema.get_field_index(name)
    field = table.schema.field(place)
    return table.set_column(place, field, pa.array(values, field.type) if isinstance(values, list) else values)


class NameSample:
    """A sample of the tickets that depends only on their ids and the seed."""

    def __init__(self, path: Path, spec: NamesSpec) -> None:
        self._spec = spec
        ids = (name for batch in read_batches(path, ("ticket_id",)) for name in batch.column("ticket_id").to_pylist())
        lots = zip((self._lot(name) for name in ids), count())  # of equal ids the first row comes first
        self._wanted = np.array(sorted(row for _, row in heapq.nsmallest(spec.sample_tickets, lots)), np.int64)
        self._tables: list[pa.Table] = []

    def watch(self, batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Pass the batches through and keep the texts of the sampled rows."""
        start = 0
        for batch in batches:
            low, high = np.searchsorted(self._wanted, (start, start + batch.num_rows))
            if high > low:
                self._tables.append(batch.select(list(READ)).take(self._wanted[low:high] - start))
            start += batch.num_rows
            yield batch

    def notes(self) -> dict[str, int]:
        """`names_sampled`, and `names_found_permille`: how many of 1,000 of them still contain a name."""
        least = self._spec.min_score
        rows = [row for table in self._tables for row in table.to_pylist()]
        n_found = sum(any(any(find_names(text, min_score=least)) for text in texts_of(row)) for row in rows)
        return {"names_sampled": len(rows), "names_found_permille": round(1000 * n_found / len(rows)) if rows else 0}

    def _lot(self, ticket_id: str) -> str:
        return hashlib.sha256(f"{self._spec.seed}:{ticket_id}".encode()).hexdigest()


class Redactions:
    """How many values of each type were replaced in each ticket."""

    def __init__(self) -> None:
        self._ids: list[pa.Array] = []
        self._counts: list[pa.Array] = []

    def add(
        self, batch: pa.Table, changes: Mapping[str, tuple[Sequence[int], Sequence[str | None] | pa.Array]]
    ) -> None:
        """Record what was replaced in the batch."""
        places, counts = changes[REDACTIONS]
        if len(places):
            self._ids.append(batch.column("ticket_id").combine_chunks().take(pa.array(places, pa.int64())))
            self._counts.append(counts if isinstance(counts, pa.Array) else pa.array(counts, pa.string()))

    def table(self) -> pa.Table:
        """Return ticket_id, type and n_values, in the order of the tickets."""
        ids = pa.concat_arrays(self._ids) if self._ids else pa.array([], pa.string())
        # Few different texts such as `email 2`: each is parsed once.
        counts = (pa.concat_arrays(self._counts) if self._counts else pa.array([], pa.string())).dictionary_encode()
        parts = [text.split(" ") for text in counts.dictionary.to_pylist()]
        types = pa.array([type_ for type_, _ in parts], pa.string()).take(counts.indices)
        numbers = pa.array([int(n) for _, n in parts], pa.int64()).take(counts.indices)
        return pa.table({"ticket_id": ids, "type": types, "n_values": numbers})


def redact_in_parts(
    path: Path, step: RedactStep, counts: Counter[str], spread: Spread, redactions: Redactions
) -> Iterator[pa.Table]:
    """Yield the file's rows in order, those that pass the gate redacted; add to `counts` and `redactions`.

    The file is read twice, for the texts that workers get and for the other columns: as many parts as processors are
    with workers at a time, and keeping their other columns meanwhile would cost memory.
    """
    n_rows = count_rows(path)
    n_parts = max(spread.n_parts, -(-n_rows // GROUP_ROWS))
    ranges = row_ranges(n_rows, n_parts, at_least=BATCH_ROWS // 8)
    parts = ((packed(rows), step) for rows in cut(read_batches(path, READ), ranges))
    found = spread.each(redact_piece, parts)
    for rows, (changes, counted) in zip(cut(read_batches(path), ranges), found, strict=True):
        texts = {name: (places, _column(new)) for name, (places, new) in changes.items()}
        counts.update(counted)
        redactions.add(rows, texts)
        yield changed_table(rows, texts)


def redact_piece(piece: pa.Buffer, step: RedactStep) -> Found:
    """Find what redaction changes in these rows, numbered from the first of them."""
    table, counts = unpacked(piece), Counter[str]()
    bits = ticket_bits(table, step)
    redactor = TicketRedactor(step)
    all_changes: Changes = {name: ([], []) for name in (*REDACTED, REDACTIONS)}
    for start in range(0, table.num_rows, BATCH_ROWS):
        batch = table.slice(start, BATCH_ROWS)
        changes = find_changes(batch, bits[start : start + BATCH_ROWS], redactor, counts)
        for name, (places, texts) in changes.items():
            all_changes[name][0].extend(start + place for place in places)
            all_changes[name][1].extend(texts)
    return {name: (places, _texts(texts)) for name, (places, texts) in all_changes.items()}, counts


def _texts(texts: list[str | None]) -> pa.Buffer:
    return packed(pa.table({"texts": pa.array(texts, pa.string())}))


def _column(found: pa.Buffer) -> pa.Array:
    """The texts in one array: those of a part are below its limit of 2 GiB."""
    column = unpacked(found).column("texts")
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def redact_labels(batches: Iterable[pa.Table], step: RedactStep, counts: Counter[str]) -> Iterator[pa.Table]:
    """Yield the batches with labels and references redacted; count what was replaced, once all batches are read.

    `labels_redacted` counts the values of all these columns, `labels_redacted_<column>` those of one of
    `LABEL_COLUMNS`, and `labels_merged_<column>` how many different labels are lost because others became the same.
    """
    redactor = TicketRedactor(step)
    none = pa.array([], pa.string())
    known, redacted = none, none
    replaced, replacements = dict.fromkeys(LABEL_COLUMNS, none), dict.fromkeys(LABEL_COLUMNS, none)
    for batch in batches:
        for name in (*LABEL_COLUMNS, "reference"):
            column = batch.column(name).combine_chunks()
            values = _personal_references(column) if name == "reference" else pc.unique(column).drop_null()
            new = _unknown(values, known)
            if len(new):
                known = pa.concat_arrays([known, new])
                redacted = pa.concat_arrays([redacted, _redacted(new, step, redactor)])
            becomes = redacted.take(pc.index_in(values, known))
            differs = pc.not_equal(values, becomes)
            values, becomes = values.filter(differs), becomes.filter(differs)
            if not len(values):
                continue
            hit = pc.is_in(column, values)
            n_rows = pc.sum(hit).as_py()
            counts["labels_redacted"] += n_rows
            if name in replaced:
                counts[f"labels_redacted_{name}"] += n_rows
                replaced[name] = pa.concat_arrays([replaced[name], _unknown(values, replaced[name])])
                more = _unknown(pc.unique(becomes), replacements[name])
                replacements[name] = pa.concat_arrays([replacements[name], more])
            labels = becomes.take(pc.index_in(column.filter(hit), values))
            batch = with_column(batch, name, pc.replace_with_mask(column, hit, labels))
        yield batch
    for name, values in replaced.items():
        if n_lost := len(values) - len(replacements[name]):
            counts[f"labels_merged_{name}"] = n_lost


def _unknown(values: pa.Array, known: pa.Array) -> pa.Array:
    return values.filter(pc.invert(pc.is_in(values, known)))


def _personal_references(column: pa.Array) -> pa.Array:
    values = pc.unique(column.filter(pc.fill_null(pc.match_substring_regex(column, PERSONAL_ID), False)))
    return pa.array([value for value in values.to_pylist() if is_personal_id(value)], pa.string())


def _redacted(values: pa.Array, step: RedactStep, redactor: TicketRedactor) -> pa.Array:
    """Return the values with what is personal in them replaced."""
    if len(values) <= FEW_VALUES:
        return pa.array([redactor.redact({"body": value})[0]["body"] for value in values.to_pylist()], pa.string())
    return redact_strings(values, step)[0]
