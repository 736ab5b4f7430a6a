"""Ingest a source before a run reads it, and report what was ingested: each source has its own folder.

Sources that are read in place need nothing. Only `ingest_source` opens a connection. Called by
`flows/context/ingest.py`; the kinds do the work.
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
    """Bring the folder of the source below `landed` up to date; None if the source is read in place.

    After a kill the next call resumes after the last committed page.

    Args:
        forgotten: Customers whose rows are skipped before anything is written.

    Raises:
        ConfigError: an extra is not installed, a variable is not set, or the settings do not fit the source.
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
    """Raise errors of a source that can be detected without opening a connection.

    Raises:
        ConfigError: TG0112, its extra is not installed; TG0106, a variable is not set; TG0103, it holds no address of a
            database; TG0130, the profile has no keys; TG0125, its query does not parse.
        SecurityError: TG0811, its query is not a single SELECT.
    """
    kind_of(source).check(source)


def ingested(source: Source, *, landed: Path) -> Ingested | None:
    """What was ingested last; None if nothing was, or if the source is read in place. Opens no connection."""
    folder = source_folder(source, landed)
    return None if folder is None else kind_of(source).ingested(source, folder)


def source_folder(source: Source, landed: Path) -> Path | None:
    """The folder of this source below `landed`; None if it is read in place."""
    return place_of(source, root=Path(), landed=landed).folder
