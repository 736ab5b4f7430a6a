"""`tables`: files that SQL of a pipeline may read besides its tickets."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas.file_reading import CsvForm
from schemas.spec import Conflict, Spec

RESERVED = ("tickets", "raw_tickets", "curated", "selected")
"""Names that SQL has for something else."""


class NamedTable(Spec):
    """A CSV or Parquet file, or a table of a DuckDB file. SQL steps, rules and SQL checks may read it by its name."""

    path: str = Field(pattern=r"\.(csv|parquet|duckdb|db)$")
    """File in the folder of pipelines.yaml, relative to it. All values of a CSV are text; an empty one is null."""
    table: str | None = Field(default=None, min_length=1, max_length=200)
    """Table or view of a DuckDB file."""
    csv: CsvForm = CsvForm()
    """Delimiter and encoding of a CSV; nothing is guessed, and a row at fault is an error."""
    key: tuple[str, ...] | str = ()
    """Column or columns that no two rows share and that are never null: checked, so that a join by them makes no
    ticket twice."""

    @model_validator(mode="after")
    def _names_a_table(self) -> Self:
        if self.is_database != (self.table is not None):
            what = "a DuckDB file needs `table`" if self.is_database else "`table` is for DuckDB files"
            raise ValueError(what)
        if "csv" in self.model_fields_set and not self.path.endswith(".csv"):
            raise ValueError("`csv` is for CSV files")
        return self

    @property
    def is_database(self) -> bool:
        """Whether the path is a DuckDB file."""
        return self.path.endswith((".duckdb", ".db"))

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns of the key."""
        return (self.key,) if isinstance(self.key, str) else self.key


TableName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
"""How SQL names a table."""
NamedTables = tuple[tuple[str, NamedTable, str], ...]
"""Name, declaration and digest of the file of each table, as steps take them."""


def table_conflicts(tables: Mapping[str, NamedTable]) -> Iterator[Conflict]:
    """Yield the tables whose name SQL has for something else."""
    for name in tables:
        if name in RESERVED:
            yield Conflict(f"{name!r} is the tickets themselves", at=("tables", name), hint="give it another name")
