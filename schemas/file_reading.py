"""The base of every `source` section, and how files of tickets are read. Part of `source` (`schemas/source.py`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.columns import Shape, TicketColumn
from schemas.spec import Spec


class Source(Spec):
    """A section `source`: each kind has one, with a literal `kind`."""


class FileReading(Source):
    """Settings of both local and remote files."""

    format: Literal["auto", "csv", "jsonl", "parquet"] = "auto"
    """`auto` uses the file's suffix, never its content."""
    shape: Shape = "auto"
    """`auto` detects messages, Alpaca, ShareGPT and prompt-completion rows by their keys; a mix is refused."""
    columns: dict[TicketColumn, str] = Field(default={})
    """Canonical column -> column of the file, or a path into nested rows (`requester.id`, `comments[-1].body`). Other
    columns are read by their own name."""
    extra_columns: Literal["ignore", "error"] = "ignore"
    """What to do with columns that are neither canonical nor mapped; they are always counted."""
