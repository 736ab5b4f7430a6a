"""Whose the rows of local copies of files from afar are, so that copies of forgotten customers' rows are let go.

A copy is read as extraction reads it, by what `reading.json` beside it tells. Called by `flows/privacy/index.py`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import TunegateError
from schemas.source import FilesSource
from tasks.curate.ingest.copies import FILES, READING
from tasks.curate.readers.records import Batch
from tasks.files import sha256_file

UNREAD = "\0unread"
"""Stands for whose rows nobody could read: no id holds a NUL."""


def all_copies(ingest: Path) -> list[Path]:
    """Every copy below the folder of all pipelines' sources."""
    return sorted(ingest.glob(f"*/remote_files-*/{FILES}/*"))


def reading_digest(copy: Path) -> str:
    """Changes with how the copy is read; the same bytes name other customers by other columns."""
    reading = copy.parent.parent / READING
    return sha256_file(reading)[:8] if reading.is_file() else "unknown"


def copy_customers(copy: Path) -> list[tuple[str, int]]:
    """Each customer of a copy with the number of their rows, and how many rows nobody could read."""
    from tasks.curate.extract import reader_of
    from tasks.curate.readers.columns import TicketMaker
    from tasks.curate.readers.source_files import SourceFile, file_format

    found = Counter[str]()
    try:
        reading: dict[str, Any] = orjson.loads((copy.parent.parent / READING).read_bytes())
        source = FilesSource(kind="files", paths=(copy.name,), **reading)
        maker = TicketMaker(source)
        maker.begin_file(copy.name)
        for batch in reader_of(file_format(SourceFile(copy.name, copy), source.format))(copy):
            _count(maker, batch, found)
    except (TunegateError, OSError, ValueError):  # the run is told; here it counts that nobody has read on
        found[UNREAD] += 1
    return sorted(found.items())


def _count(maker: Any, batch: Batch, found: Counter[str]) -> None:
    import pyarrow.compute as pc

    made = maker.make(batch)
    found[UNREAD] += len(batch.faulty)
    for index in made.faults:
        found[made.customers.get(index) or UNREAD] += 1
    if "customer_id" in made.columns:
        for each in pc.value_counts(made.columns["customer_id"].drop_null()).to_pylist():
            found[str(each["values"])] += each["counts"]
    if not found[UNREAD]:
        del found[UNREAD]
