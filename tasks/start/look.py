"""What a file of tickets holds, column by column: counts and kinds of values, never the values themselves.

Read by the same readers as a run's. It knows nothing of what a column is for (`tasks/start/roles.py` does).
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from zlib import crc32

from schemas.errors import DataError
from schemas.source import FilesSource
from tasks.curate.extract import reader_of
from tasks.curate.readers.records import Batch, Fault, Record, in_batches
from tasks.curate.readers.source_files import file_format, find_files
from tasks.curate.readers.values import to_time
from tasks.curate.redaction.personal import find_personal

SAMPLE_ROWS = 2000
"""Between this and twice as many rows of a large file are looked at, spread evenly over it; all rows are counted."""
_DEPTH = 4
_ITEMS = (0, 1)
"""Items of a list that are looked into: what a customer wrote first, and the first answer."""
_MAX_PATHS = 400
_YEARS = (1990, 2100)
"""A number outside these years is an id, not a time since 1970."""
_NUMBER = re.compile(r"\s*[+-]?\d+(\.\d+)?\s*", re.ASCII)


@dataclass
class ColumnFacts:
    """One column, or one path into nested rows."""

    name: str
    n_filled: int = 0
    n_times: int = 0
    """Values that are a time as the readers take it."""
    n_numbers: int = 0
    n_texts: int = 0
    n_emails: int = 0
    n_phones: int = 0
    lengths: list[int] = field(default_factory=list)
    """Characters of each text."""
    counts: dict[int, int] = field(default_factory=dict)
    """Hash of a value -> how often it occurs."""

    @property
    def n_distinct(self) -> int:
        return len(self.counts)

    @property
    def median_chars(self) -> int:
        return int(median(self.lengths)) if self.lengths else 0

    def share(self, n: int) -> float:
        """Of the filled values, 0-1."""
        return n / self.n_filled if self.n_filled else 0.0

    def add(self, value: object) -> None:
        """Count one value; blank ones count as absent."""
        if value is None or (isinstance(value, str) and not value.strip()):
            return
        self.n_filled += 1
        key = hash(value)
        self.counts[key] = self.counts.get(key, 0) + 1
        self.n_times += _is_time(value)
        if isinstance(value, int | float) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
            self.n_numbers += not isinstance(value, bool)
        if isinstance(value, str):
            self.n_texts += 1
            self.lengths.append(len(value))
            if len(value) <= 200:
                found = {each.type for each in find_personal(value, ("email", "phone"))}
                self.n_emails += "email" in found
                self.n_phones += "phone" in found


@dataclass(frozen=True)
class Look:
    """A file, looked at."""

    path: Path
    n_rows: int
    """Rows in the file, unreadable ones included."""
    unreadable: Mapping[str, int]
    """Error code -> rows of the file that no reader can make sense of."""
    rows: tuple[Mapping[str, object], ...]
    """The sample, as read."""
    batches: tuple[Batch, ...]
    """The same rows as batches of a reader."""
    columns: Mapping[str, ColumnFacts]
    """Columns of the rows in their order, and paths into those that are nested."""
    top: tuple[str, ...]
    """Names that rows have at their top."""

    @property
    def n_looked(self) -> int:
        return len(self.rows)


def look_at(path: Path) -> Look:
    """Read the file: all rows are counted, some are looked at.

    Raises:
        DataError: TG0201 to TG0204, the file is absent, damaged or has no usable header; TG0208, it holds no row.
        ConfigError: TG0130, its suffix names no format.
    """
    source = FilesSource(kind="files", paths=(glob.escape(str(path.absolute())),))
    (file,) = find_files(source, root=path.absolute().parent)
    sample, unreadable, n_rows = _Sample(), Counter[str](), 0
    for batch in reader_of(file_format(file, "auto"))(file.path):
        n_rows += len(batch)
        unreadable.update(each.content.code for each in batch.faulty if isinstance(each.content, Fault))
        sample.add(batch)
    if not n_rows:
        raise DataError("the file holds no row", code="TG0208", where=str(path), hint="a header alone tells too little")
    rows = tuple(row for _, row in sample.kept)
    return Look(
        path=path,
        n_rows=n_rows,
        unreadable=dict(unreadable.most_common()),
        rows=rows,
        batches=tuple(in_batches(Record(line, None, row) for line, row in sample.kept)),
        columns=_facts(rows),
        top=tuple(dict.fromkeys(name for row in rows for name in row)),
    )


class _Sample:
    """Every row, then about every second, every fourth and so on: never more than twice `SAMPLE_ROWS`.

    Chosen by a hash of the row's number, so that nothing that repeats in a file can hide between the steps.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[int, int, Mapping[str, object]]] = []
        self._mask = 0
        self._n_seen = 0

    @property
    def kept(self) -> list[tuple[int, Mapping[str, object]]]:
        """Line and row of each."""
        return [(line, row) for _, line, row in self._kept]

    def add(self, batch: Batch) -> None:
        for index in range(len(batch.rows)):
            mark = crc32(b"%d" % self._n_seen)
            self._n_seen += 1
            if mark & self._mask:
                continue
            self._kept.append((mark, int(batch.lines[index]), batch.rows.pick(index, batch.rows.names(index))))
            if len(self._kept) >= 2 * SAMPLE_ROWS:
                self._mask = 2 * self._mask + 1
                self._kept = [each for each in self._kept if not each[0] & self._mask]


def _facts(rows: Iterable[Mapping[str, object]]) -> dict[str, ColumnFacts]:
    found: dict[str, ColumnFacts] = {}
    for row in rows:
        for name, value in row.items():
            for path, leaf in _leaves(name, value, _DEPTH):
                if path in found or len(found) < _MAX_PATHS:
                    found.setdefault(path, ColumnFacts(path)).add(leaf)
    return found


def _leaves(path: str, value: object, depth: int) -> Iterator[tuple[str, object]]:
    """Values that are neither object nor list, each under its path; below `depth` nothing is told."""
    if isinstance(value, dict):
        for key, inner in value.items() if depth else ():
            if isinstance(key, str) and re.fullmatch(r"[^.\[\]]+", key):
                yield from _leaves(f"{path}.{key}", inner, depth - 1)
    elif isinstance(value, list):
        for place in _ITEMS if depth else ():
            if place < len(value):
                yield from _leaves(f"{path}[{place}]", value[place], depth - 1)
    else:
        yield path, value


def _is_time(value: object) -> bool:
    if isinstance(value, str) and len(value) > 40:
        return False
    time = to_time("created_at", value)
    return isinstance(time, datetime) and _YEARS[0] <= time.year < _YEARS[1]
