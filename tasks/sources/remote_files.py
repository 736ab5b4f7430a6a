"""`source.kind: remote_files`: files in S3-compatible storage and at https addresses, read from local copies.

`remote_fetch.py` makes the copies; `copies.py` stores them.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.remote_source import RemoteFilesSource
from tasks.sources.copies import copies_fingerprint, digest_urls, read_snapshot, require_copies
from tasks.sources.formats import file_parts
from tasks.sources.kind import Ingested, Ingestion, Part, Place, SourceKind
from tasks.sources.remote_fetch import fetch_files
from tasks.sources.s3 import profile_keys


class RemoteFiles(SourceKind[RemoteFilesSource]):
    """Files that are fetched before they are read."""

    spec = RemoteFilesSource
    is_remote = True

    def describe(self, source: RemoteFilesSource) -> str:
        return ", ".join(source.urls)

    def check(self, source: RemoteFilesSource) -> None:
        """Check that the profile has keys.

        Raises:
            ConfigError: TG0130, it has none.
        """
        if source.profile is not None:
            profile_keys(source.profile)

    def fingerprint(self, source: RemoteFilesSource, place: Place) -> str:
        """Digest of urls and bytes of the last complete round."""
        return copies_fingerprint(source, place.ingested())

    def parts(self, source: RemoteFilesSource, place: Place) -> Iterator[Part]:
        """The copies, named by their urls."""
        return file_parts(require_copies(source, place.ingested()), source)

    def identity(self, source: RemoteFilesSource) -> Mapping[str, Any]:
        """The storage; files stay when urls change."""
        return {"endpoint": source.endpoint}

    def ingest(self, source: RemoteFilesSource, ingestion: Ingestion) -> Ingested | None:
        """Fetch the files that changed."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        fetch_files(source, ingestion.folder, at=at, progress=ingestion.progress)
        return self.ingested(source, ingestion.folder)

    def ingested(self, source: RemoteFilesSource, folder: Path) -> Ingested | None:
        """The last complete round, unless it had other urls."""
        last = read_snapshot(folder)
        if last is None or last.urls_digest != digest_urls(source):
            return None
        return Ingested(len(last.copies) + len(last.gone), len(last.gone), last.finished_at, "files")


KIND = RemoteFiles()
