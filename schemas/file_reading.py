"""The base of every `source` section, and how rows and files are read. Part of `source` (`schemas/source.py`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field, field_validator

from schemas.spec import Spec
from schemas.tables import Shape, TicketColumn


class Source(Spec):
    """A section `source`: each kind has one, with a literal `kind`."""


class RowReading(Source):
    """How rows become tickets."""

    shape: Shape = "auto"
    """`auto` detects messages, Alpaca, ShareGPT and prompt-completion rows by their keys; a mix is refused."""
    columns: dict[TicketColumn, str] = Field(default={})
    """Ticket column -> column of the source, or a path into nested rows (`requester.id`, `comments[-1].body`). Other
    columns are read by their own name."""
    extra_columns: Literal["ignore", "error"] = "ignore"
    """What to do with columns that are neither ticket columns nor mapped; they are always counted."""


Encoding = Literal["utf-8", "windows-1252", "latin-1", "iso-8859-15", "iso-8859-2", "windows-1250"]


class CsvSpec(Spec):
    """The form of CSV files, where it is not the usual one. Nothing is sniffed; `tunegate init` proposes it."""

    delimiter: Literal[",", ";", "|", "\t"] | None = None
    """Between fields; null is a comma, and a tab in .tsv files."""
    encoding: Encoding = "utf-8"
    """Of the bytes. Excel in western Europe writes windows-1252, of which latin-1 is nearly a part."""
    decimal: Literal[".", ","] = "."
    """Between whole numbers and decimals of `rating`; with `,` a dot groups thousands."""


class FileReading(RowReading):
    """Settings of both local and remote files."""

    format: Literal["auto", "csv", "jsonl", "parquet"] = "auto"
    """`auto` uses the file's suffix, never its content."""
    csv: CsvSpec = CsvSpec()
    """Delimiter, encoding and decimals of CSV files."""
    time_format: str | None = None
    """Format of `created_at` and `updated_at` as Python's strptime has it, e.g. `%d.%m.%Y %H:%M`; ISO 8601 and numbers
    are read with and without it. Times without a zone are UTC."""

    @field_validator("time_format")
    @classmethod
    def _has_a_day(cls, value: str | None) -> str | None:
        """Refuse a format that loses the day: writing a time and reading it again must keep it."""
        if value is None:
            return None
        day = datetime(2026, 11, 28, 13, 45, 59, tzinfo=UTC)
        try:
            same = datetime.strptime(day.strftime(value), value).date() == day.date()
        except ValueError:
            same = False
        if not same:
            raise ValueError(f"{value!r} does not give day, month and year; an example: %d.%m.%Y %H:%M")
        return value
