"""What a reader hands on: one row with its place, or why it could not be read.

It knows nothing of files or columns. Used by the readers and by `tasks/curate/extract.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MAX_ROW_BYTES = 16 * 1024 * 1024
"""Longest row a reader takes into memory; a longer one is quarantined unread, so that memory stays flat."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row is quarantined. `reason` is one sentence without ticket text."""

    code: str
    reason: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a source: `content` is its values by name, or its fault."""

    line: int
    """Line (1-based) where the row begins; row number where a source has no lines."""
    offset: int | None
    """Byte where the row begins in the decompressed file; None where a source has no bytes of its own."""
    content: Mapping[str, object] | Fault
