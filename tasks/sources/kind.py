"""The interface of a kind of source: how it is named, fingerprinted, read and, for some kinds, ingested.

It knows no kind. Each kind's file has a subclass of `SourceKind` and an instance of it, `KIND`.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast

from schemas.file_reading import RowReading, Source
from schemas.source import SOURCES
from tasks.extras import need_extra
from tasks.privacy.hashes import Forgotten
from tasks.progress import Progress, silent
from tasks.sources.readers.records import RowBatch
from tasks.sources.tables import SourceDatabase

S = TypeVar("S", bound=Source)


@dataclass(frozen=True)
class Place:
    """Where a source is read.

    Attributes:
        root: Folder of pipelines.yaml, from which relative paths start.
        folder: Where this source is ingested; None if it is read in place.
    """

    root: Path
    folder: Path | None = None

    def ingested(self) -> Path:
        """The folder of a source that is ingested.

        Raises:
            ValueError: There is none.
        """
        if self.folder is None:
            raise ValueError("the source is ingested, but no folder was given")
        return self.folder


class Part(NamedTuple):
    """One file or table of a source."""

    name: str
    """The `source` of its rows."""
    prefix: str
    """Prefix of the ids made for its rows, if they have none."""
    batches: Iterator[RowBatch]


@dataclass(frozen=True)
class Ingested:
    """State of an ingested source.

    Attributes:
        n_rows: Tickets, rows or files, including those deleted upstream; 0 for a copied DuckDB file.
        n_gone: How many of these are deleted upstream.
        finished_at: When ingestion finished, UTC, ISO 8601.
        unit: What was counted.
    """

    n_rows: int
    n_gone: int
    finished_at: str
    unit: Literal["rows", "files"] = "rows"


@dataclass(frozen=True)
class Ingestion:
    """One call to ingest a source.

    Attributes:
        root: As `Place.root`.
        folder: Private to this source; its content outlives the run.
        forgotten: Customers to skip before anything is written.
    """

    root: Path
    folder: Path
    forgotten: Forgotten | None = None
    progress: Progress = silent


class SourceKind(Generic[S]):
    """A kind of source. Heavy imports belong inside methods: validating pipelines.yaml must not load them."""

    spec: type[S]
    """Its section of pipelines.yaml; the literal `kind` selects it."""
    is_remote: bool = False
    """It needs a connection, which only a run opens; plan, report and reproduce open none."""

    @property
    def name(self) -> str:
        """The value of `kind`."""
        return SOURCES.name_of(self.spec)

    def describe(self, source: S) -> str:
        """A short name of the source for errors and rows; never a secret."""
        raise NotImplementedError

    def fingerprint(self, source: S, place: Place) -> str:
        """sha256 of the source's present content: equal digests mean equal rows. Opens no connection.

        It does not cover the mapping of columns, which is part of the spec.
        """
        raise NotImplementedError

    def parts(self, source: S, place: Place) -> Iterator[Part]:
        """All rows, one part per file or table."""
        raise NotImplementedError

    def row_reading(self, source: S) -> RowReading:
        """Settings for turning rows into tickets; by default the spec itself."""
        return cast(RowReading, source)

    def check(self, source: S) -> None:
        """Raise errors that can be detected without reading the source or opening a connection."""

    def identity(self, source: S) -> Mapping[str, Any] | None:
        """Settings that identify an ingested source of this kind; None if it is read in place.

        Settings of the mapping are left out, so that other `columns` do not fetch everything again.
        """
        return None

    def ingest(self, source: S, ingestion: Ingestion) -> Ingested | None:
        """Bring the folder up to date with the source; after a kill the next call resumes.

        Store rows with `landing.py` and files with `copies.py`, where those of forgotten customers can be removed.
        """
        raise NotImplementedError

    def ingested(self, source: S, folder: Path) -> Ingested | None:
        """Result of the last complete `ingest`; None if there was none. Opens no connection."""
        return None

    def release(self, folder: Path) -> None:
        """Remove what only the ending run needed."""

    def database(self, source: S, place: Place) -> AbstractContextManager[SourceDatabase]:
        """Open the whole database of the source, whose table or query matters not, for `tunegate init`.

        Only kinds that read databases have it.
        """
        raise NotImplementedError

    def summary(self, source: S, here: Ingested) -> str:
        """What was ingested, for the console."""
        gone = f", {here.n_gone:,} of them deleted upstream" if here.n_gone else ""
        return f"{self.name}: {here.n_rows:,} {here.unit} ingested{gone}, as of {here.finished_at}"


def need_package(kind: str) -> None:
    """Check that the packages of a kind of source are installed; the extra has the name of the kind.

    Raises:
        ConfigError: TG0112, one is not.
    """
    need_extra(kind, what=f"`source.kind: {kind}`", where="source.kind")
