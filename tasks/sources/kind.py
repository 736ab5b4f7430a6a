"""What a kind of source has to say: how it is named, fingerprinted and read, and, where it is ingested, how.

It knows no kind. Each kind's file holds a subclass of `SourceKind` and an instance of it, `KIND`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeVar, cast

from schemas.columns import Shape, TicketColumn
from schemas.file_reading import Source
from schemas.source import SOURCES
from tasks.progress import Progress, silent

if TYPE_CHECKING:
    from tasks.privacy.hashes import Forgotten
    from tasks.sources.readers.records import Batch

S = TypeVar("S", bound=Source)


class RowReading(Protocol):
    """Settings by which rows become tickets; most specs have them, with the defaults of `FileReading`."""

    @property
    def shape(self) -> Shape: ...
    @property
    def columns(self) -> dict[TicketColumn, str]: ...
    @property
    def extra_columns(self) -> Literal["ignore", "error"]: ...


@dataclass(frozen=True)
class Place:
    """Where a source is read.

    Attributes:
        root: Folder of pipelines.yaml, from which relative paths start.
        folder: Where this source is ingested; null where it is read in place.
    """

    root: Path
    folder: Path | None = None

    def ingested(self) -> Path:
        """The folder of a source that is always ingested."""
        if self.folder is None:
            raise ValueError("the source is ingested, and no folder is given to read it from")
        return self.folder


class Part(NamedTuple):
    """One file or table of a source."""

    name: str
    """Kept with its rows as their `source`."""
    prefix: str
    """Of the ids made for its rows, where it has none."""
    batches: Iterator[Batch]


@dataclass(frozen=True)
class Ingested:
    """What is here of an ingested source.

    Attributes:
        n_rows: Tickets, rows or files, those that are gone upstream included; 0 for a copied DuckDB file.
        n_gone: Of these, deleted upstream.
        finished_at: When it was complete, UTC, ISO 8601.
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
        folder: Private to this source; what is in it outlives the run.
        forgotten: Customers whose rows are left out before anything is written.
    """

    root: Path
    folder: Path
    forgotten: Forgotten | None = None
    progress: Progress = silent


class SourceKind(Generic[S]):
    """A kind of source. Heavy imports belong inside its methods: validating a file must not load them."""

    spec: type[S]
    """Its section of pipelines.yaml; `kind` is a literal, by which the kind is chosen."""
    is_remote: bool = False
    """It is reached over a connection, which only a run opens: plan, report and reproduce never do."""

    @property
    def name(self) -> str:
        """What `kind` says."""
        return SOURCES.name_of(self.spec)

    def describe(self, source: S) -> str:
        """The source in a few words, for errors and names of rows; never a secret."""
        raise NotImplementedError

    def fingerprint(self, source: S, place: Place) -> str:
        """sha256 of what the source holds now; with an equal one its rows are equal. Opens no connection.

        How rows are mapped plays no part: that is in the spec.
        """
        raise NotImplementedError

    def parts(self, source: S, place: Place) -> Iterator[Part]:
        """Every row, one part for each file or table."""
        raise NotImplementedError

    def row_reading(self, source: S) -> RowReading:
        """How rows become tickets; the spec itself where it has the settings of `FileReading`."""
        return cast(RowReading, source)

    def check(self, source: S) -> None:
        """Raise what can be known to be wrong without reading the source or opening a connection."""

    def identity(self, source: S) -> Mapping[str, Any] | None:
        """What tells one ingested source of this kind from another; None where it is read in place.

        What only decides how rows are mapped plays no part: with other `columns` nothing is fetched again.
        """
        return None

    def ingest(self, source: S, ingestion: Ingestion) -> Ingested | None:
        """Make what the source holds now readable in the folder; killed at any moment, the next call resumes.

        Rows go into a `landing.py`, files into `copies.py`: there a forgotten customer's are found and removed.
        """
        raise NotImplementedError

    def ingested(self, source: S, folder: Path) -> Ingested | None:
        """What the last complete call of `ingest` left; None where there is nothing. Opens no connection."""
        return None

    def release(self, folder: Path) -> None:
        """Remove what only the run that ends now needed."""

    def summary(self, source: S, here: Ingested) -> str:
        """What was ingested, in words."""
        gone = f", {here.n_gone:,} of them deleted upstream" if here.n_gone else ""
        return f"{self.name}: {here.n_rows:,} {here.unit} ingested{gone}, as of {here.finished_at}"
