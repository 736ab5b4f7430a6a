"""Find the form of a CSV file: delimiter, encoding, escapes, decimals and the format of its times.

A run never sniffs: what is found here is proposed as `csv` and `time_format` in pipelines.yaml, where a user sees it.
"""

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
from tasks.sources.readers.escapes import has_escapes, hide
from tasks.sources.readers.read_csv import SEPARATORS
from tasks.sources.readers.streams import COMPRESSED, open_binary
from tasks.sources.readers.values import excel_time, to_time

_SAMPLE_ROWS = 200
_TITLE_LINES = 10
"""Lines in which the header may be below the title of a report."""
_NAME_CHARS = 64
_CHUNK_BYTES = 1 << 20
_AGREE = 0.9
"""Share of the rows that must have as many fields as the header, or of the values that must have a form."""
_UNDEFINED = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
"""Bytes that windows-1252 does not have, and latin-1 has as control characters."""
_DECIMAL_COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+),\d{1,2}", re.ASCII)
_TIME_DECIMALS = 4
_SECOND = 0.05
"""Seconds by which a time may miss a whole one: nine decimals of a day are 0.0001 seconds, six are 0.09."""
_NUMBER = re.compile(r"[+-]?\d+(,\d{1,2})?", re.ASCII)
_DATE = re.compile(
    r"\d{1,4}([./ -])(\d{1,2}|[A-Za-z]{3,9})\1\d{1,4}(?!\d)|([A-Z][a-z]{2}, )?\d{1,2} [A-Z][a-z]{2,8} \d{4}"
    r"|([A-Z][a-z]{2} )?[A-Z][a-z]{2,8} \d{1,2},? (\d{4}|\d{2}:)"
)
_DAYS = (
    "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%y", "%m/%d/%y", "%Y/%m/%d",
    "%Y.%m.%d", "%d/%b/%y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y",
)  # fmt: skip
_CLOCKS = (
    "", " %H:%M", " %H:%M:%S", ", %H:%M", ", %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", " %H:%M Uhr", " %Hh%M",
    " %H h %M", " \u00e0 %Hh%M", " \u00e0 %H:%M",
)  # fmt: skip
TIME_FORMATS = (
    *(day + clock for day in _DAYS for clock in _CLOCKS),
    "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z",
)  # fmt: skip
"""Formats that exports of help desks have; two that both read every value are ambiguous."""


def find_csv_form(path: Path) -> CsvSpec:
    """The delimiter, encoding and escapes of the file; the usual ones if they fit.

    Raises:
        DataError: TG0202, the compressed file is damaged; TG0204, the header does not fit the rows.
    """
    encoding = _encoding(path)
    usual = "\t" if ".tsv" in path.suffixes else ","
    lines = _first_lines(path, encoding)
    escape: Literal["backslash"] | None = None
    if has_escapes("".join(lines)):
        escape = "backslash"
        lines = [line + "\n" for line in hide("".join(lines)).split("\n")]
    tables = {mark: _numbered_rows(lines, mark) for mark in SEPARATORS}
    columns = {mark: _n_columns(rows) for mark, rows in tables.items()}
    # A header that fits under any separator is one, also where commas in the texts look like columns.
    if not any(n > 1 and 2 * sum(map(bool, tables[mark][0][1])) > n for mark, n in columns.items()):
        for mark, rows in tables.items():
            _refuse_misfit(path, rows, mark)
    if columns[usual] > 1 or max(columns.values()) < 2:
        return CsvSpec(encoding=encoding, escape=escape)
    found = max((mark for mark in SEPARATORS if mark != usual), key=lambda mark: columns[mark])
    return CsvSpec.model_validate({"delimiter": found, "encoding": encoding, "escape": escape})


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


def _numbered_rows(lines: Sequence[str], mark: str) -> list[tuple[int, list[str]]]:
    """Last line and fields of the first rows that are not blank."""
    reader = csv.reader(lines, delimiter=mark)
    try:
        return [(reader.line_num, row) for row in islice(reader, _SAMPLE_ROWS) if any(map(str.strip, row))]
    except csv.Error:
        return []


def _n_columns(rows: Sequence[tuple[int, list[str]]]) -> int:
    """Columns of the header if the rows have as many, else 0."""
    n = len(rows[0][1]) if rows else 0
    return n if sum(len(row) == n for _, row in rows) >= _AGREE * len(rows) else 0


def _refuse_misfit(path: Path, rows: Sequence[tuple[int, list[str]]], mark: str) -> None:
    """Refuse a file of which line 1 is no header, but a header is below it, or the rows end with one more separator."""
    n_fields = Counter(len(row) for _, row in rows).most_common(1)[0][0] if rows else 0
    first = rows[0][1] if rows else []
    head = next((n for n, (_, row) in enumerate(rows) if len(row) == n_fields > 1 and _are_names(row)), 0)
    n_same = sum(len(row) == n_fields for _, row in rows[head or 1 :])
    if n_same < max(2, _AGREE * len(rows[head or 1 :])):
        return
    if head and rows[head][0] <= _TITLE_LINES:
        line = rows[head][0]
        raise _misfit(
            path,
            f"line 1 does not fit the rows, of which most have {n_fields} fields: is the header in line {line}?",
            f"if it is, remove the lines above: tail -n +{line}",
        )
    if len(first) == n_fields - 1 > 0 and not any(row[-1] for _, row in rows[1:]):
        raise _misfit(
            path,
            f"the rows end with a separator that the header lacks: they have {n_fields} fields, it has {len(first)}",
            f"add it to the header: sed '1s/\\r*$/{mark}/'",
        )


def _are_names(row: Sequence[str]) -> bool:
    """Whether the fields may be the names of columns."""
    return len({*row}) == len(row) and all(
        field.strip() and not field[0].isdigit() and "@" not in field and len(field) <= _NAME_CHARS for field in row
    )


def _misfit(path: Path, message: str, command: str) -> DataError:
    plain = path.stem if path.suffix in COMPRESSED else path.name
    file, new_file = shlex.quote(plain), shlex.quote(f"cut-{plain}")
    return DataError(message, code="TG0204", where=f"{path}:1", hint=f"{command} {file} > {new_file}")


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


def is_excel_time(value: object) -> bool:
    """Whether a number can be nothing but Excel's time of a day: with many decimals, which make a whole second.

    Ids are whole numbers and amounts have two decimals. Of other numbers with nine decimals, one in ten looks alike.

    >>> is_excel_time("46027.604166667"), is_excel_time("46027.61"), is_excel_time(46027.123456)
    (True, False, False)
    """
    text = str(value).strip().replace(",", ".")
    if excel_time(value) is None or len(text.partition(".")[2]) < _TIME_DECIMALS:
        return False
    seconds = float(text) * 86_400
    return abs(seconds - round(seconds)) < _SECOND


def looks_like_date(value: object) -> bool:
    """Whether a text begins like a date in figures, or with the English name of a month.

    >>> looks_like_date("31.12.2026 10:00"), looks_like_date("31/Dec/26 10:00"), looks_like_date("1.5")
    (True, True, False)
    >>> looks_like_date("Dec 31, 2026 10:00 AM"), looks_like_date("Thu Dec 31 10:00:00 +0000 2026")
    (True, True)
    """
    return isinstance(value, str) and len(value) <= 40 and _DATE.match(value.strip()) is not None


def _has_format(text: str, time_format: str) -> bool:
    try:
        datetime.strptime(text, time_format)
    except ValueError:
        return False
    return True
