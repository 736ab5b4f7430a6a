"""What readers return: rows with their places, and rows that could not be read, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from tasks.sources.readers.rows_read import DictRows
from tasks.tickets.row_fault import is_row_fault, row_fault

if TYPE_CHECKING:
    from tasks.sources.readers.rows_read import RowsRead

Numbers = npt.NDArray[np.int64]
MAX_ROW_BYTES = 16 * 1024 * 1024
"""Longest row that is read into memory; longer ones are quarantined unread, so that memory stays flat."""
BATCH_ROWS = 4096
_BATCH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row is quarantined, or dropped because the source has deleted it. `reason` is a sentence without ticket
    text."""

    code: str
    reason: str
    field: str | None = None
    outcome: Literal["quarantined", "dropped"] = "quarantined"


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a source: `content` is its values by name, or its fault."""

    line: int
    """Line (1-based) where the row begins; the row number if the source has no lines."""
    offset: int | None
    """Byte where the row begins in the decompressed file; None if the source is not a file of bytes."""
    content: Mapping[str, object] | Fault
    ticket_id: str | None = None
    """Set if it is known although there is no content."""


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Consecutive rows of a source with their places, and those among them that could not be read."""

    rows: RowsRead
    lines: Numbers
    """As `Record.line`, one for each of `rows`."""
    offsets: Numbers | None
    """As `Record.offset`."""
    faulty: Sequence[Record] = ()

    def __len__(self) -> int:
        return len(self.rows) + len(self.faulty)


def fault_of(error: Exception) -> Fault:
    """Why a row that raised is quarantined.

    Raises:
        Exception: `error` itself, if no row can cause it.
    """
    if not is_row_fault(error):
        raise error
    return Fault(*row_fault(error, "extract"))


def in_batches(records: Iterable[Record], *, max_rows: int = BATCH_ROWS) -> Iterator[RowBatch]:
    """The records in batches, limited by rows and by bytes of the source, so that long rows do not pile up."""
    waiting: list[Record] = []
    begin = 0
    for record in records:
        place = record.offset or 0
        if waiting and (len(waiting) >= max_rows or place - begin >= _BATCH_BYTES):
            yield _batch(waiting)
            waiting = []
        if not waiting:
            begin = place
        waiting.append(record)
    if waiting:
        yield _batch(waiting)


def _batch(records: list[Record]) -> RowBatch:
    read = [(record.line, record.offset, record.content) for record in records if not isinstance(record.content, Fault)]
    offsets = [offset for _, offset, _ in read if offset is not None]
    return RowBatch(
        rows=DictRows([content for _, _, content in read]),
        lines=np.array([line for line, _, _ in read], np.int64),
        offsets=np.array(offsets, np.int64) if len(offsets) == len(read) else None,
        faulty=[record for record in records if isinstance(record.content, Fault)],
    )
