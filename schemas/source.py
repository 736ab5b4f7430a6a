"""Where tickets come from: the `source` section of a pipeline."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from schemas.file_reading import FileReading, RowReading, Source
from schemas.kinds import Kinds
from schemas.remote_source import PostgresSource, RemoteFilesSource, ZendeskSource, is_a_day


class FilesSource(FileReading):
    """CSV, JSONL or Parquet files, optionally .gz or .zst, by path or glob."""

    kind: Literal["files"]
    paths: tuple[str, ...] = Field(min_length=1)
    """Paths or globs, relative to pipelines.yaml."""


class DuckDBSource(RowReading):
    """A table, or one SELECT, in a DuckDB file of yours; opened read-only, or copied while others write it."""

    kind: Literal["duckdb"]
    database: str
    """Path of the DuckDB file, relative to pipelines.yaml."""
    table: str | None = None
    """Name of a table or view; exactly one of `table` and `query`."""
    query: str | None = None
    """One SELECT statement; exactly one of `table` and `query`."""

    @field_validator("database")
    @classmethod
    def _is_a_file(cls, value: str) -> str:
        if value.startswith("ducklake:"):
            raise ValueError(
                "DuckLake is not read; with its extension: COPY (FROM lake.tickets AT (VERSION => 12)) TO "
                "'tickets.parquet', and `kind: files` (docs/how-to/connect-a-source.md)"
            )
        return value

    @model_validator(mode="after")
    def _one_of(self) -> DuckDBSource:
        if (self.table is None) == (self.query is None):
            raise ValueError("give exactly one of `table` and `query`")
        return self


class SQLiteSource(RowReading):
    """A table, or one SELECT, in a SQLite file of yours; opened read-only."""

    kind: Literal["sqlite"]
    database: str
    """Path of the SQLite file, relative to pipelines.yaml."""
    table: str | None = None
    """Name of a table or view; exactly one of `table` and `query`."""
    query: str | None = None
    """One SELECT statement in SQLite's dialect; exactly one of `table` and `query`."""

    @model_validator(mode="after")
    def _one_of(self) -> SQLiteSource:
        if (self.table is None) == (self.query is None):
            raise ValueError("give exactly one of `table` and `query`")
        return self


class IcebergSource(RowReading):
    """One snapshot of an Iceberg table with local files; deleted rows are never read. Needs the extra `iceberg`."""

    kind: Literal["iceberg"]
    path: str | None = None
    """The table's folder, or one of its `*.metadata.json`, relative to pipelines.yaml; exactly one of `path` and
    `catalog`."""
    catalog: str | None = None
    """The SQLite file of a SQL catalog, relative to pipelines.yaml; with `table`."""
    table: str | None = Field(default=None, pattern=r"^[^.]+(\.[^.]+)+$")
    """`namespace.table` in the catalog."""
    snapshot_id: int | None = Field(default=None, ge=0)
    """The snapshot to read; null reads the table's current one."""

    @model_validator(mode="after")
    def _fits_together(self) -> IcebergSource:
        if (self.path is None) == (self.catalog is None):
            raise ValueError("give exactly one of `path` and `catalog`")
        if (self.catalog is None) != (self.table is None):
            raise ValueError("`table` and `catalog` need each other")
        return self


class HuggingFaceSource(RowReading):
    """A dataset of the Hugging Face hub, or a local directory in its form."""

    kind: Literal["hf"]
    path: str
    """`org/name`, or a local directory: saved by `datasets`, or with the Parquet files of a dataset."""
    revision: str | None = None
    """Commit sha; required for a hub dataset, so that a run can be repeated."""
    split: str = "train"
    """Split of the dataset."""
    allow_download: bool = False
    """Nothing is fetched from the network unless this is true."""


class GeneratedSource(Source):
    """A seeded, fictional help desk: real work for every stage without anyone's data."""

    kind: Literal["generated"]
    seed: int = Field(default=20260601, ge=0)
    """The same seed and sizes give the same tickets."""
    n_tickets: int = Field(default=3000, ge=50, le=1_000_000)
    """Clean tickets before duplicates, threads and broken rows are added."""
    n_customers: int = Field(default=400, ge=10)
    """Customers who write them."""
    n_weeks: int = Field(default=8, ge=2, le=520)
    """Weeks over which they are spread."""
    start: str = Field(default="2026-06-01", pattern=r"^\d{4}-\d{2}-\d{2}$")
    """First day, ISO date."""
    n_topics: Literal[1, 2] = 1
    """Topics of a ticket. With 2 one of them is settled, in either order: the category is that of the open one, which
    takes reading, not counting words."""
    defect: Literal["none", "swapped_labels", "broken_format"] = "none"
    """`swapped_labels`: routing labels permuted while tone and format stay perfect.
    `broken_format`: the routing line is malformed."""
    defect_weeks: int = Field(default=6, ge=1)
    """The defect touches the first this many weeks only: what comes later, the held-out window, stays true."""

    _day = field_validator("start")(is_a_day)


SOURCES: Kinds[Source] = Kinds(
    FilesSource, RemoteFilesSource, DuckDBSource, SQLiteSource, IcebergSource, HuggingFaceSource, GeneratedSource,
    ZendeskSource, PostgresSource, key="kind",
)  # fmt: skip
SourceSpec = Annotated[Source, SOURCES]
