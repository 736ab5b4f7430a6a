"""`source.kind: feed`: one question and its answer on a line, fetched from a folder that stands for a server."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from acme_tickets.lines import rows_of
from schemas.file_reading import FileReading
from tasks.sources.kind import Ingested, Ingestion, Part, Place, SourceKind
from tasks.sources.readers.records import Record, in_batches
from tasks.storage.files import sha256_file

NAME = "feed.txt"


class FeedSource(FileReading):
    """Lines of a feed."""

    kind: Literal["feed"]
    server: str
    """Folder with `feed.txt`."""


class Feed(SourceKind[FeedSource]):
    """Copies the feed below the state folder, and reads the copy."""

    spec = FeedSource
    is_remote = True

    def describe(self, source: FeedSource) -> str:
        return source.server

    def identity(self, source: FeedSource) -> Mapping[str, Any]:
        return {"server": source.server}

    def ingest(self, source: FeedSource, ingestion: Ingestion) -> Ingested | None:
        ingestion.folder.mkdir(parents=True, exist_ok=True)
        fetched = ingestion.folder / f".{NAME}.tmp"
        fetched.write_bytes((ingestion.root / source.server / NAME).read_bytes())
        fetched.replace(ingestion.folder / NAME)
        return self.ingested(source, ingestion.folder)

    def ingested(self, source: FeedSource, folder: Path) -> Ingested | None:
        here = folder / NAME
        return Ingested(here.read_text().count("\n"), 0, "today") if here.is_file() else None

    def fingerprint(self, source: FeedSource, place: Place) -> str:
        here = place.ingested() / NAME
        return sha256_file(here) if here.is_file() else "nothing"

    def parts(self, source: FeedSource, place: Place) -> Iterator[Part]:
        rows = rows_of((place.ingested() / NAME).read_text())
        yield Part("feed", "feed", in_batches(Record(n, None, row) for n, row in enumerate(rows, 1)))


KIND = Feed()
