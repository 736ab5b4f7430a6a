"""The base of every `source` section, and how rows and files are read. Part of `source` (`schemas/source.py`)."""

import re
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field, field_validator

from schemas.spec import Spec
from schemas.tables import Shape, TicketColumn

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
"""A number as text. Python reads `1_0` and the digits of other scripts, too, which no tool writes for a number."""
EXCEL_DAYS = "excel"
"""As `time_format`: days since 1899-12-30, which Excel shows as dates."""


class Source(Spec):
    """A section `source`: each kind has one, with a literal `kind`."""


class TurnsSpec(Spec):
    """How a list of turns becomes messages, if its objects are not `{role, content}`.

    Turns of one side in a row are one message. What agents say before the customer, and what customers say after the
    last answer, is left out."""

    speaker: str
    """Key of who wrote a turn."""
    text: str
    """Key of the text."""
    agents: tuple[str, ...] = Field(min_length=1)
    """Values of `speaker` whose turns are answers to learn; all other speakers are the customer."""


class RowReading(Source):
    """How rows become tickets."""

    shape: Shape = "auto"
    """`auto` detects messages, Alpaca, ShareGPT and prompt-completion rows by their keys; a mix is refused."""
    columns: dict[TicketColumn, str] = Field(default={})
    """Ticket column -> column of the source, or a path into nested rows (`requester.id`, `comments[-1].body`). Other
    columns are read by their own name."""
    turns: TurnsSpec | None = None
    """Who speaks in the conversations of `messages`, and where their text is; null for `{role, content}`."""
    extra_columns: Literal["ignore", "error"] = "ignore"
    """What to do with columns that are neither ticket columns nor mapped; they are always counted."""
    time_format: str | None = None
    """Format of `created_at` and `updated_at` as Python's strptime has it, e.g. `%d.%m.%Y %H:%M`; ISO 8601 and numbers
    are read with and without it. `excel` reads numbers as days since 1899-12-30, as Excel stores dates. Times without a
    zone are UTC."""

    @field_validator("time_format")
    @classmethod
    def _has_a_day(cls, value: str | None) -> str | None:
        """Refuse a format that loses the day: writing a time and reading it again must keep it."""
        if value in (None, EXCEL_DAYS):
            return value
        day = datetime(2026, 11, 28, 13, 45, 59, tzinfo=UTC)
        try:
            same = datetime.strptime(day.strftime(value), value).date() == day.date()
        except ValueError:
            same = False
        if not same:
            raise ValueError(
                f"{value!r} does not give day, month and year; an example: %d.%m.%Y %H:%M; `excel` reads days"
            )
        return value


Encoding = Literal["utf-8", "windows-1252", "latin-1", "iso-8859-15", "iso-8859-2", "windows-1250"]


class CsvForm(Spec):
    """The form of a CSV file, where it is not the usual one. Nothing is sniffed."""

    delimiter: Literal[",", ";", "|", "\t"] | None = None
    """Between fields; null is a comma, and a tab in .tsv files."""
    encoding: Encoding = "utf-8"
    """Of the bytes. Excel in western Europe writes windows-1252, of which latin-1 is nearly a part."""
    escape: Literal["backslash"] | None = None
    r"""`backslash` reads the escapes of MySQL's exports and PostgreSQL's COPY: `\N` is null, `\n` a line break, `\"` a
    quote; null reads a backslash as itself."""


class CsvSpec(CsvForm):
    """The form of CSV files, where it is not the usual one. Nothing is sniffed; `tunegate init` proposes it."""

    decimal: Literal[".", ","] = "."
    """Between whole numbers and decimals of `rating`; with `,` a dot groups thousands."""


class FileReading(RowReading):
    """Settings of both local and remote files."""

    format: Literal["auto", "csv", "jsonl", "parquet"] = "auto"
    """`auto` uses the file's suffix, never its content."""
    csv: CsvSpec = CsvSpec()
    """Delimiter, encoding and decimals of CSV files."""
