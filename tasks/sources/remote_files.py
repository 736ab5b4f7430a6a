"""`source.kind: remote_files`: files in S3-compatible storage and at https addresses, read from local copies.

`remote_fetch.py` makes the copies; `copies.py` keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.remote_files import RemoteFilesSource
from tasks.sources.copies import asked_for, copies_fingerprint, need_copies, read_snapshot
from tasks.sources.formats import file_parts
from tasks.sources.kind import Ingested, Ingestion, Part, Place, SourceKind
from tasks.sources.s3 import profile_keys


class RemoteFiles(SourceKind[RemoteFilesSource]):
    """Files that are fetched before they are read."""

    spec = RemoteFilesSource
    is_remote = True

    def describe(self, source: RemoteFilesSource) -> str:
        """The addresses."""
        return ", ".join(source.urls)

    def check(self, source: RemoteFilesSource) -> None:
        """The profile holds keys.

        Raises:
            ConfigError: TG0130.
        """
        if source.profile is not None:
            profile_keys(source.profile)

    def fingerprint(self, source: RemoteFilesSource, place: Place) -> str:
        """Of urls and bytes of the last complete round."""
        return copies_fingerprint(source, place.ingested())

    def parts(self, source: RemoteFilesSource, place: Place) -> Iterator[Part]:
        """Each copy, named by its url."""
        return file_parts(need_copies(source, place.ingested()), source.format)

    def identity(self, source: RemoteFilesSource) -> Mapping[str, Any]:
        """The storage; urls come and go, and their files stay."""
        return {"endpoint": source.endpoint}

    def ingest(self, source: RemoteFilesSource, ingestion: Ingestion) -> Ingested | None:
        """Fetch what changed."""
        from tasks.sources.remote_fetch import fetch_files

        at = datetime.now(UTC).isoformat(timespec="seconds")
        fetch_files(source, ingestion.folder, at=at, progress=ingestion.progress)
        return self.ingested(source, ingestion.folder)

    def ingested(self, source: RemoteFilesSource, folder: Path) -> Ingested | None:
        """The last complete round, unless it was for other urls."""
        last = read_snapshot(folder)
        if last is None or last.asked != asked_for(source):
            return None
        return Ingested(len(last.copies) + len(last.gone), len(last.gone), last.finished_at, "files")


KIND = RemoteFiles()
