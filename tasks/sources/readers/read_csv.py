"""CSV files as records, by the header's names: never by position, never by sniffing.

It knows nothing of tickets. Called by `tasks/sources/formats.py`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import DataError
from tasks.sources.readers.headers import check_header
from tasks.sources.readers.records import MAX_ROW_BYTES, Fault, Record, fault_of
from tasks.sources.readers.streams import Block, open_binary, read_blocks


def read_csv(path: Path) -> Iterator[Record]:
    """Every row under the header, as text by name (empty is None) or as its fault; blank lines are no rows.

    Quoted fields may hold line breaks. A row whose quoting is broken costs its first line only: reading goes on with
    the next one, so that one stray quote cannot swallow the rest of the file. `.tsv` files are separated by tabs.

    Raises:
        DataError: TG0202, UTF-16 or damaged compression; TG0204, no usable header.
    """
    separator = "\t" if ".tsv" in path.suffixes else ","
    with open_binary(path) as stream, _wide_fields():
        source = _Lines(read_blocks(stream, where=str(path)))
        header: list[str] | None = None
        for number, offset, content in _rows(source, separator):
            if header is None:
                header = _header(content, separator, f"{path}:{number}")
            elif isinstance(content, Fault):
                yield Record(number, offset, content)
            else:
                try:
                    row = _row(header, content)
                except Exception as error:
                    row = fault_of(error)
                yield Record(number, offset, row)


def _row(header: list[str], fields: list[str]) -> dict[str, object] | Fault:
    if len(fields) != len(header):
        return Fault("TG0244", f"The row has {len(fields)} fields, the header has {len(header)}.")
    if broken := _not_utf8(header, fields):
        return broken
    return {name: value or None for name, value in zip(header, fields, strict=True) if name}


class _TooLongError(Exception):
    """The row passed MAX_ROW_BYTES."""


class _Lines:
    """Feeds lines to csv.reader, knows those of the current row and takes some back after a fault."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks
        self._lines: list[bytes | None] = []
        self._offsets: list[int] = []
        self._number = 1  # of the first of these lines
        self._first = self._next = 0  # the current row's first line, and the one that comes next
        self._n_bytes = 0
        self._ended = True

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._next == len(self._lines):
            self._load()
        data = self._lines[self._next]
        self._next += 1
        self._n_bytes += MAX_ROW_BYTES + 1 if data is None else len(data) + 1
        if data is None or self._n_bytes > MAX_ROW_BYTES:
            raise _TooLongError
        text = data.decode("utf-8", "surrogateescape")
        return text + "\n" if self._ended or self._next < len(self._lines) else text

    def begin_row(self) -> None:
        self._first = self._next
        self._n_bytes = 0

    def place(self) -> tuple[int, int]:
        """Number and offset of the current row's first line."""
        return self._number + self._first, self._offsets[self._first]

    def keep_first(self) -> None:
        """Give back every line of the current row but its first."""
        self._next = self._first + 1

    def _load(self) -> None:
        """Add the next block, and forget the lines before the current row. StopIteration where there is none."""
        block = next(self._blocks)
        self._number += self._first
        self._lines = [*self._lines[self._first :], *block.lines]
        self._offsets = [*self._offsets[self._first :], *block.offsets.tolist()]
        self._next -= self._first
        self._first = 0
        self._ended = block.ended


def _rows(source: _Lines, separator: str) -> Iterator[tuple[int, int, list[str] | Fault]]:
    """Line, offset and fields of every row that is not blank."""
    reader = csv.reader(source, delimiter=separator, strict=True)
    while True:
        source.begin_row()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except _TooLongError:
            source.keep_first()
            yield *source.place(), Fault("TG0243", f"The row is longer than {MAX_ROW_BYTES:,} bytes.")
        except csv.Error as error:
            source.keep_first()
            yield *source.place(), Fault("TG0244", f"The row's quoting is broken: {_words(error)}.")
        else:
            if fields:
                yield *source.place(), fields


def _words(error: csv.Error) -> str:
    """csv's message in words; it names the separator but no data."""
    return "a quote is never closed" if "unexpected end of data" in str(error) else str(error)


def _header(content: list[str] | Fault, separator: str, where: str) -> list[str]:
    if isinstance(content, Fault):
        raise DataError(f"the header cannot be read: {content.reason}", code="TG0204", where=where)
    if any("\udc80" <= character <= "\udcff" for name in content for character in name):
        raise DataError("the header is not UTF-8", code="TG0204", where=where, hint="save the file as UTF-8")
    names = [name.strip() for name in content]
    for other, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(names) == 1 and other in names[0]:
            raise DataError(
                f"the header looks separated by {word}, expected {'tabs' if separator != ',' else 'commas'}",
                code="TG0204",
                where=where,
                hint="name tab-separated files .tsv; write others with commas",
            )
    check_header([name for name in names if name], where=where)
    return names


def _not_utf8(header: list[str], fields: list[str]) -> Fault | None:
    for name, value in zip(header, fields, strict=True):
        if not value.isascii() and any("\udc80" <= character <= "\udcff" for character in value):
            return Fault("TG0241", f"Field {name or '(unnamed)'} is not UTF-8.", name or None)
    return None


class _wide_fields:  # noqa: N801 - read as a word in the with statement
    """Raise csv's limit of 131,072 characters a field to that of a row, for the time of reading."""

    def __enter__(self) -> None:
        self._before = csv.field_size_limit(MAX_ROW_BYTES)

    def __exit__(self, *_: object) -> None:
        csv.field_size_limit(self._before)
