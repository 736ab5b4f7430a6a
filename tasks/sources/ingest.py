"""Ingest a source before a run reads it, and say what is here: each source has a folder of its own.

What is readable in place needs nothing. Only `ingest_source` opens a connection, and only because the source says so.
Called by `flows/context/ingest.py`; the kinds do the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schemas.file_reading import Source
from tasks.progress import Progress, silent
from tasks.sources.kind import Ingested, Ingestion
from tasks.sources.registry import kind_of, place_of

if TYPE_CHECKING:
    from tasks.privacy.hashes import Forgotten


def ingest_source(
    source: Source, *, root: Path, landed: Path, forgotten: Forgotten | None = None, progress: Progress = silent
) -> Ingested | None:
    """Make what the source holds now readable below `landed`; None when it is read in place.

    Killed at any moment, the next call resumes after the last committed page.

    Args:
        forgotten: Customers whose rows are left out before anything is written.

    Raises:
        ConfigError: an extra is not installed, a variable is not set, or settings do not fit what is there.
        DataError: TG0203, TG0209 and TG0270.
        LockedError: TG0520, another process ingests it.
        SecurityError: TG0829.
        ServiceError: TG0707 to TG0709 and TG0714.
    """
    folder = place_of(source, root=root, landed=landed).folder
    if folder is None:
        return None
    return kind_of(source).ingest(source, Ingestion(root, folder, forgotten, progress))


def check_source(source: Source) -> None:
    """Raise what can be known to be wrong with a source without opening a connection.

    Raises:
        ConfigError: TG0112, its extra is not installed; TG0106, a variable is not set; TG0103, it holds no address of a
            database; TG0130, the profile holds no keys; TG0125, its query does not parse.
        SecurityError: TG0811, its query is not one SELECT.
    """
    kind_of(source).check(source)


def ingested(source: Source, *, landed: Path) -> Ingested | None:
    """What was ingested last; None when nothing was, or the source is read in place. Opens no connection."""
    folder = source_folder(source, landed)
    return None if folder is None else kind_of(source).ingested(source, folder)


def source_folder(source: Source, landed: Path) -> Path | None:
    """The folder of this source below `landed`; None for a source that is read in place."""
    return place_of(source, root=Path(), landed=landed).folder
