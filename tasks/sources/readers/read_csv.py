"""CSV files as records, by the header's names: never by position, never by sniffing."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

from schemas.errors import DataError
from schemas.file_reading import CsvForm
from tasks.sources.readers.escapes import hide, is_open, may_be_escaped, reveal
from tasks.sources.readers.headers import check_header, shown
from tasks.sources.readers.records import MAX_ROW_BYTES, Fault, Record, fault_of
from tasks.sources.readers.row_form import RowForm, learn_form
from tasks.sources.readers.streams import LineBlock, open_binary, read_blocks

USUAL = CsvForm()
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SAMPLE_ROWS = 300
_TRUSTED_RUN = {True: 50, False: 3}
"""Consecutive rows without a fault that are trusted although they lack the form of the file's rows (True), or although
the file has none (False)."""
_MAX_HELD, _MAX_HELD_CHARACTERS = 200, 1 << 20
_BROKEN = ("TG0243", "TG0244")
_DECLARE = "Where a backslash escapes, as in exports of MySQL, declare `csv: {escape: backslash}`."
_MAY_BE_CUT = Fault("TG0244", "The row may be cut off: the line after it does not begin like a row.")
_MAY_BE_TEXT = Fault("TG0244", "The row may be part of the text of a broken row above it.")


class _Row(NamedTuple):
    """One row of the file: its place, its fields or fault, and its text."""

    line: int
    offset: int
    content: list[str] | Fault
    text: str


_Typed: TypeAlias = tuple[_Row, dict[str, object]]
"""A row, and its values by name; none where it has a fault."""


def read_csv(path: Path, form: CsvForm = USUAL) -> Iterator[Record]:
    """Every row under the header, as text by name (empty is None) or as its fault; blank lines are no rows.

    Quoted fields may hold line breaks. Reading continues after a row whose quoting is broken, so that one stray quote
    cannot swallow the rest of the file. Rows below it are quarantined until one certainly begins a row: lines of a text
    that has lost its quote can pass for rows. `.tsv` files are separated by tabs; there a quote inside a field is text.
    A first line such as `sep=;`, which Excel reads, is no row. Neither is the header of two or more columns
    where it is repeated, as between files that were joined. Backslash escapes are read where the form declares them;
    elsewhere a row with a field `\\N` is faulty.

    Raises:
        DataError: TG0202, UTF-16, UTF-32 or damaged compression; TG0204, no usable header.
    """
    with open_binary(path) as stream, _wide_fields():
        blocks = read_blocks(stream, where=str(path))
        first = next(blocks, None)
        if first is None:
            return
        separator = _separator(path, form)
        source = _Lines(chain([first], blocks), form)
        rows = _rows(source, separator)
        above = _row_above(rows, separator)
        if above is None:
            return
        header = _header(above, form.encoding, separator, f"{path}:{above.line}")
        names = [above.content] if len(header) > 1 else []
        learnt = _learn(_Lines(iter([first]), form), header, above.line, separator)
        learnt = replace(learnt, encoding=form.encoding, has_escapes=form.escape is not None)
        below = (_typed(row, header, learnt) for row in rows if row.content not in names)
        yield from _Trust(learnt, source).records(below)


def read_header(path: Path, form: CsvForm = USUAL) -> list[str]:
    """The names of the columns, also of a file without rows.

    Raises:
        DataError: as `read_csv`; TG0204, the file is empty.
    """
    separator = _separator(path, form)
    with open_binary(path) as stream, _wide_fields():
        above = _row_above(_rows(_Lines(read_blocks(stream, where=str(path)), form), separator), separator)
    if above is None:
        raise DataError("the file is empty, without a header", code="TG0204", where=str(path))
    return [name for name in _header(above, form.encoding, separator, f"{path}:{above.line}") if name]


def _separator(path: Path, form: CsvForm) -> str:
    return form.delimiter or ("\t" if ".tsv" in path.suffixes else ",")


def _row_above(rows: Iterator[_Row], separator: str) -> _Row | None:
    """The row with the names: the first one that is not `sep=;`."""
    above = next(rows, None)
    if above is not None and above.text.strip().lower().strip('"') == f"sep={separator}":
        return next(rows, above)
    return above


def _learn(lines: _Lines, header: list[str], header_line: int, separator: str) -> RowForm:
    """The form of the first rows."""
    none = RowForm(separator, {})
    first = islice(_rows(lines, separator), _SAMPLE_ROWS)
    rows = (_typed(row, header, none) for row in first if row.line > header_line)
    whole = [(row.text, row.content) for row, _ in rows if not isinstance(row.content, Fault)]
    return learn_form(whole, separator=separator)


def _typed(row: _Row, header: list[str], form: RowForm) -> _Typed:
    """The row, with a fault if its fields cannot be used, and its values by name."""
    content: dict[str, object] | Fault
    if isinstance(row.content, Fault):
        content = row.content
    else:
        try:
            content = _values(header, row.content, row.text, form)
        except Exception as error:
            content = fault_of(error)
    if not isinstance(content, Fault):
        return row, content
    if content.code == "TG0244" and not form.has_escapes and may_be_escaped(row.text):
        content = replace(content, reason=f"{content.reason} {_DECLARE}")
    return row._replace(content=content), {}


def _values(header: list[str], fields: list[str], text: str, form: RowForm) -> dict[str, object] | Fault:
    if len(fields) != len(header):
        return Fault("TG0244", f"The row has {len(fields)} fields, the header has {len(header)}.")
    if not text.isascii() and (broken := _not_text(header, fields, form.encoding)):
        return broken
    if not form.has_escapes and "\\" in text and "\\N" in fields:
        name = header[fields.index("\\N")]
        return Fault("TG0244", f"Field {shown(name) if name else '(unnamed)'} is \\N, a null.", name or None)
    has_quote = '"' in text and '"' in "".join(fields)
    if has_quote and form.separator != "\t" and (broken := _stray_quote(header, fields, text, form)):
        return broken
    values = map(reveal, fields) if form.has_escapes else fields
    return {name: value or None for name, value in zip(header, values, strict=True) if name}


def _stray_quote(header: list[str], fields: list[str], text: str, form: RowForm) -> Fault | None:
    """The fault of a quote in an unquoted field, if that may have split another field.

    In a file that quotes no field, `27" screen` is text; two such fields may be one that a comma has split.
    """
    stray = [
        name
        for name, value in zip(header, fields, strict=True)
        if '"' in value and f'"{value.replace(chr(34), chr(34) * 2)}"' not in text
    ]
    if not stray or (len(stray) == 1 and not form.has_quotes):
        return None
    shown_name = shown(stray[0]) if stray[0] else "(unnamed)"
    return Fault("TG0244", f"Field {shown_name} has a quote but does not begin with one.", stray[0] or None)


class _Trust:
    """Decides which rows near a broken one are rows.

    Args:
        form: Of the file's rows.
        source: Its lines; a line that may not begin a row must not take further lines with it.
    """

    def __init__(self, form: RowForm, source: _Lines) -> None:
        self._form, self._source = form, source
        self._is_sure = True
        self._held: list[_Typed] = []  # sure: the last rows; unsure: the rows since the broken one
        self._n_characters = 0
        self._is_open = False  # unsure: a quoted field of the broken row is not closed

    def records(self, rows: Iterator[_Typed]) -> Iterator[Record]:
        """The rows as records, in their order."""
        is_known = self._form.is_known
        for typed in rows:
            row, _ = typed
            if isinstance(row.content, Fault) and row.content.code in _BROKEN:
                yield from self._before(row)
                yield Record(row.line, row.offset, row.content)
                self._is_open = (self._is_open and not self._is_sure) != bool(row.text.count('"') % 2)
                self._is_sure = False
            elif not self._is_sure:
                yield from self._take_unsure(typed)
            elif is_known:
                self._held.append(typed)
                self._n_characters += len(row.text)
                if len(self._held) >= _MAX_HELD or self._n_characters >= _MAX_HELD_CHARACTERS:
                    yield from self._release(None, keep=min(len(self._held) - 1, _MAX_HELD // 2))
            else:
                yield _record(typed)
        yield from self._release(None if self._is_sure else _MAY_BE_TEXT)

    def _before(self, broken: _Row) -> Iterator[Record]:
        """The rows held when a broken one comes: those that may be a part of it are quarantined."""
        begins_row = self._form.begins_row(broken.text)
        if not self._is_sure:
            yield from self._release(_MAY_BE_TEXT)
            return
        since = next((n for n, typed in enumerate(reversed(self._held)) if self._fits(typed[0])), None)
        if begins_row or since is None:
            yield from self._release(None)
            return
        yield from self._release(None, keep=since + 1)
        # A row that ends with a quote is whole: the broken line is not the rest of it.
        if begins_row is None or self._held[0][0].text.rstrip("\r\n").endswith('"'):
            yield from self._release(None, keep=since)
        yield from self._release(_MAY_BE_CUT)

    def _take_unsure(self, typed: _Typed) -> Iterator[Record]:
        row, _ = typed
        if self._fits(row):
            yield from self._release(_MAY_BE_TEXT)
            if self._is_open and self._form.begins_row(row.text) is None:
                self._is_open = False
                yield Record(row.line, row.offset, _MAY_BE_TEXT)  # the end of the broken row has its form as well
                return
            self._is_sure = True
            self._held.append(typed)
        elif self._form.is_known and self._source.keep_first():
            yield from self._release(_MAY_BE_TEXT)
            yield Record(row.line, row.offset, _MAY_BE_TEXT)
        else:
            self._held.append(typed)
            if len(self._held) >= _TRUSTED_RUN[self._form.is_known]:
                yield from self._release(None)
                self._is_sure = True

    def _fits(self, row: _Row) -> bool:
        return self._form.is_known and not isinstance(row.content, Fault) and self._form.fits(row.text, row.content)

    def _release(self, fault: Fault | None, *, keep: int = 0) -> Iterator[Record]:
        """The held rows but the last ones to keep, as they are or with this fault if they have none."""
        n_released = len(self._held) - keep
        for typed in self._held[:n_released]:
            row = typed[0]
            if fault is None or isinstance(row.content, Fault):
                yield _record(typed)
            else:
                yield Record(row.line, row.offset, fault)
        del self._held[:n_released]
        self._n_characters = sum(len(row.text) for row, _ in self._held)


def _record(typed: _Typed) -> Record:
    row, values = typed
    return Record(row.line, row.offset, row.content if isinstance(row.content, Fault) else values)


class _TooLongError(Exception):
    """The row passed MAX_ROW_BYTES."""


class _Lines:
    """Feeds lines to csv.reader, knows those of the current row and takes some back after a fault."""

    def __init__(self, blocks: Iterator[LineBlock], form: CsvForm) -> None:
        self._blocks, self._encoding, self.has_escapes = blocks, form.encoding, form.escape is not None
        self._lines: list[bytes | None] = []
        self._offsets: list[int] = []
        self._number = 1  # of the first of these lines
        self._first = self._next = 0  # the current row's first line, and the one that comes next
        self._n_bytes = 0
        self._ended = True
        self._texts: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        text = self._line()
        if self.has_escapes:
            text = hide(self._closed(text))
        self._texts.append(text)
        return text

    def _closed(self, text: str) -> str:
        """The line with those that follow it, as long as the line break between them is escaped."""
        while is_open(text):
            try:
                text += self._line()
            except StopIteration:
                break
        return text

    def _line(self) -> str:
        if self._next == len(self._lines):
            self._load()
        data = self._lines[self._next]
        self._next += 1
        self._n_bytes += MAX_ROW_BYTES + 1 if data is None else len(data) + 1
        if data is None or self._n_bytes > MAX_ROW_BYTES:
            raise _TooLongError
        text = data.decode(self._encoding, "surrogateescape")
        if self._ended or self._next < len(self._lines):
            text += "\n"
        return text

    def begin_row(self) -> None:
        self._first = self._next
        self._n_bytes = 0
        self._texts = []

    def text(self) -> str:
        """The current row as it is in the file."""
        return self._texts[0] if len(self._texts) == 1 else "".join(self._texts)

    def place(self) -> tuple[int, int]:
        """Number and offset of the current row's first line."""
        return self._number + self._first, self._offsets[self._first]

    def keep_first(self) -> bool:
        """Give back every line of the current row but its first; returns whether there was one."""
        had_more = self._next > self._first + 1
        self._next = self._first + 1
        del self._texts[1:]
        return had_more

    def _load(self) -> None:
        """Add the next block, and forget the lines before the current row. StopIteration where there is none."""
        block = next(self._blocks)
        self._number += self._first
        self._lines = [*self._lines[self._first :], *block.lines]
        self._offsets = [*self._offsets[self._first :], *block.offsets.tolist()]
        self._next -= self._first
        self._first = 0
        self._ended = block.ended


def _rows(source: _Lines, separator: str) -> Iterator[_Row]:
    """Every row that is not blank."""
    # Programs that escape and separate by tabs quote nothing: there a text may begin with a quote.
    is_quoted = not (source.has_escapes and separator == "\t")
    reader = csv.reader(
        source, delimiter=separator, strict=True, quoting=csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE
    )
    while True:
        source.begin_row()
        content: list[str] | Fault
        try:
            content = next(reader)
        except StopIteration:
            return
        except _TooLongError:
            source.keep_first()
            content = Fault("TG0243", f"The row is longer than {MAX_ROW_BYTES:,} bytes.")
        except csv.Error as error:
            source.keep_first()
            content = Fault("TG0244", _reason(error))
        if content:
            line, offset = source.place()
            yield _Row(line, offset, content, source.text())


_REASONS = {
    "unexpected end of data": "A quote is never closed.",
    "new-line character": "A carriage return (CR) stands alone outside of quotes.",
    "expected after": "Text follows a closing quote.",
    "field larger": f"A field is longer than {MAX_ROW_BYTES:,} bytes.",
}
"""Part of a message of Python's csv module -> the reason shown."""


def _reason(error: csv.Error) -> str:
    found = (reason for words, reason in _REASONS.items() if words in str(error))
    return next(found, "The row's quoting is broken.")


def _header(row: _Row, encoding: str, separator: str, where: str) -> list[str]:
    content = row.content
    if isinstance(content, Fault):
        is_cr = "\r" in row.text.rstrip("\r\n")
        raise DataError(
            f"the header cannot be read: {'lines end with CR alone' if is_cr else content.reason}",
            code="TG0204",
            where=where,
            hint="convert the line ends: tr '\\r' '\\n' < FILE > FILE.lf" if is_cr else None,
        )
    if any("\udc80" <= character <= "\udcff" for name in content for character in name):
        raise DataError(
            f"the header is not {encoding.upper()}",
            code="TG0204",
            where=where,
            hint="save the file as UTF-8, or name its encoding: `csv: {encoding: windows-1252}`",
        )
    names = [(reveal(name) or "").strip() for name in content]
    for other, word in SEPARATORS.items():
        if len(names) == 1 and other in names[0]:
            raise DataError(
                f"the header looks separated by {word}, expected {SEPARATORS[separator]}",
                code="TG0204",
                where=where,
                hint=f"set `csv: {{delimiter: {json.dumps(other)}}}` in `source`",
            )
    check_header([name for name in names if name], where=where)
    return names


def _not_text(header: list[str], fields: list[str], encoding: str) -> Fault | None:
    for name, value in zip(header, fields, strict=True):
        if not value.isascii() and any("\udc80" <= character <= "\udcff" for character in value):
            return Fault("TG0241", f"Field {name or '(unnamed)'} is not {encoding.upper()}.", name or None)
    return None


class _wide_fields:  # noqa: N801 - read as a word in the with statement
    """Raise csv's limit of 131,072 characters a field to that of a row, for the time of reading."""

    def __enter__(self) -> None:
        self._before = csv.field_size_limit(MAX_ROW_BYTES)

    def __exit__(self, *_: object) -> None:
        csv.field_size_limit(self._before)
