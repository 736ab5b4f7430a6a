"""Find the form of a CSV file: delimiter, encoding, decimals and the format of its times.

A run never sniffs: what is found here is proposed as `csv` and `time_format` in pipelines.yaml, where a user sees it.
Called by `tasks/start/file_profile.py`.
"""

from __future__ import annotations

import csv
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Literal

from schemas.errors import DataError
from schemas.file_reading import CsvSpec, Encoding
from tasks.sources.readers.read_csv import SEPARATORS
from tasks.sources.readers.streams import COMPRESSED, open_binary
from tasks.sources.readers.values import to_time

_SAMPLE_ROWS = 200
_TITLE_LINES = 10
"""Lines in which the header may be below the title of a report."""
_CHUNK_BYTES = 1 << 20
_AGREE = 0.9
"""Share of the rows that must have as many fields as the header, or of the values that must have a form."""
_UNDEFINED = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
"""Bytes that windows-1252 does not have, and latin-1 has as control characters."""
_DECIMAL_COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+),\d{1,2}", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d+(,\d{1,2})?", re.ASCII)
_DATE = re.compile(r"\d{1,4}([./-])(\d{1,2}|[A-Za-z]{3})\1\d{1,4}(?!\d)")
_DAYS = (
    "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%y", "%m/%d/%y", "%Y/%m/%d",
    "%Y.%m.%d", "%d/%b/%y",
)  # fmt: skip
_CLOCKS = ("", " %H:%M", " %H:%M:%S", ", %H:%M", ", %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
TIME_FORMATS = tuple(day + clock for day in _DAYS for clock in _CLOCKS)
"""Formats that exports of help desks have; two that both read every value are ambiguous."""


def find_csv_form(path: Path) -> CsvSpec:
    """The delimiter and encoding of the file; the usual ones if they fit.

    Raises:
        DataError: TG0202, the compressed file is damaged; TG0204, the header seems to be below a report's title.
    """
    encoding = _encoding(path)
    usual = "\t" if ".tsv" in path.suffixes else ","
    lines = _first_lines(path, encoding)
    if at := _header_below_title(lines):
        raise _title(path, *at)
    columns = {mark: _n_columns(lines, mark) for mark in SEPARATORS}
    if columns[usual] > 1 or max(columns.values()) < 2:
        return CsvSpec(encoding=encoding)
    found = max((mark for mark in SEPARATORS if mark != usual), key=lambda mark: columns[mark])
    return CsvSpec.model_validate({"delimiter": found, "encoding": encoding})


def _encoding(path: Path) -> Encoding:
    """UTF-8 unless more lines with other characters are not UTF-8 than are."""
    n_good = n_bad = 0
    undefined = False
    with open_binary(path) as stream:
        while chunk := stream.readlines(_CHUNK_BYTES):
            for line in () if all(map(bytes.isascii, chunk)) else chunk:
                if line.isascii():
                    continue
                try:
                    line.decode("utf-8")
                    n_good += 1
                except UnicodeDecodeError:
                    n_bad += 1
                    undefined = undefined or _UNDEFINED.search(line) is not None
    if n_bad <= n_good:
        return "utf-8"
    return "latin-1" if undefined else "windows-1252"


def _first_lines(path: Path, encoding: str) -> list[str]:
    """The first lines of the file, without the line `sep=;` of Excel."""
    with open_binary(path) as stream:
        lines = [line.decode(encoding, "replace") for line in islice(iter(lambda: stream.readline(1 << 20), b""), 600)]
    return lines[1:] if lines and lines[0].lstrip("\ufeff").lower().startswith(("sep=", '"sep=')) else lines


def _n_columns(lines: Sequence[str], mark: str) -> int:
    """Columns of the header if the rows have as many, else 0."""
    try:
        rows = list(islice((row for row in csv.reader(lines, delimiter=mark) if row), _SAMPLE_ROWS))
    except csv.Error:
        return 0
    n = len(rows[0]) if rows else 0
    n_same = sum(len(row) == n for row in rows)
    return n if n_same >= _AGREE * len(rows) else 0


def _header_below_title(lines: Sequence[str]) -> tuple[int, int] | None:
    """Line of the likely header and its number of fields, if line 1 has one value and the rows have several fields."""
    tables = [_numbered_rows(lines, mark) for mark in SEPARATORS]
    # A separator in line 1 makes it a header, also where commas in the texts look like columns.
    if any(rows and sum(map(bool, rows[0][1])) > 1 for rows in tables):
        return None
    for rows in tables:
        n_fields = Counter(len(row) for _, row in rows).most_common(1)[0][0] if rows else 0
        head = next((n for n, (_, row) in enumerate(rows) if len(row) == n_fields > 1 and all(row)), 0)
        below = rows[head:]
        if head and rows[head][0] <= _TITLE_LINES:
            n_same = sum(len(row) == n_fields for _, row in below)
            if len(below) > 1 and n_same >= _AGREE * len(below):
                return rows[head][0], n_fields
    return None


def _numbered_rows(lines: Sequence[str], mark: str) -> list[tuple[int, list[str]]]:
    """Last line and fields of the first rows that are not blank."""
    reader = csv.reader(lines, delimiter=mark)
    try:
        return [(reader.line_num, row) for row in islice(reader, _SAMPLE_ROWS) if any(map(str.strip, row))]
    except csv.Error:
        return []


def _title(path: Path, line: int, n_fields: int) -> DataError:
    plain = path.stem if path.suffix in COMPRESSED else path.name
    return DataError(
        f"the first line has one value, and most rows have {n_fields} fields: is the header in line {line}?",
        code="TG0204",
        where=f"{path}:1",
        hint=f"if it is, remove the lines above: tail -n +{line} {shlex.quote(plain)} > {shlex.quote(f'cut-{plain}')}",
    )


def find_decimal(columns: Iterable[Sequence[object]]) -> Literal[".", ","]:
    """A comma if a column consists of numbers, and some of them have a decimal comma."""
    for values in columns:
        texts = [value.strip() for value in values if isinstance(value, str) and value.strip()]
        n_commas = sum(_DECIMAL_COMMA.fullmatch(text) is not None for text in texts)
        if n_commas and all(_NUMBER.fullmatch(text) or _DECIMAL_COMMA.fullmatch(text) for text in texts):
            return ","
    return "."


def find_time_formats(values: Sequence[object]) -> tuple[str, ...]:
    """The formats that read the dates of a column that ISO 8601 does not read: a run reads ISO 8601 next to a format.

    None if it is no column of dates, or ISO 8601 reads them; several if day and month are ambiguous.
    """
    texts = [value.strip() for value in values if isinstance(value, str) and looks_like_date(value)]
    if len(texts) < _AGREE * sum(isinstance(value, str) and bool(value.strip()) for value in values) or not texts:
        return ()
    texts = [text for text in texts if not isinstance(to_time("created_at", text), datetime)]
    likely = [form for form in TIME_FORMATS if any(_has_format(text, form) for text in texts[:20])]
    n_read = {form: sum(_has_format(text, form) for text in texts) for form in likely}
    best = max(n_read.values(), default=0)
    return tuple(form for form, n in n_read.items() if n == best) if best >= _AGREE * len(texts) else ()


def looks_like_date(value: object) -> bool:
    """Whether a text begins like a date in figures, or with the month as Jira writes it.

    >>> looks_like_date("31.12.2026 10:00"), looks_like_date("31/Dec/26 10:00"), looks_like_date("1.5")
    (True, True, False)
    """
    return isinstance(value, str) and len(value) <= 40 and _DATE.match(value.strip()) is not None


def _has_format(text: str, time_format: str) -> bool:
    try:
        datetime.strptime(text, time_format)
    except ValueError:
        return False
    return True
