"""Iceberg tables on this machine. Part of `source` (`schemas/source.py`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from schemas.columns import Shape, TicketColumn
from schemas.file_reading import Source


class IcebergSource(Source):
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
    shape: Shape = "auto"
    """As for `kind: files`."""
    columns: dict[TicketColumn, str] = Field(default={})
    """Ticket column -> column of the table, or a path into it, as for `kind: files`."""
    extra_columns: Literal["ignore", "error"] = "ignore"
    """What to do with columns that are neither ticket columns nor mapped."""

    @model_validator(mode="after")
    def _fits_together(self) -> IcebergSource:
        if (self.path is None) == (self.catalog is None):
            raise ValueError("give exactly one of `path` and `catalog`")
        if (self.catalog is None) != (self.table is None):
            raise ValueError("`table` and `catalog` need each other")
        return self
