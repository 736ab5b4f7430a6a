"""Small ticket tables on disk, and their rows read back."""

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import RowCounts, Splits, TicketTable
from tasks.curate.rows import read_rows, ticket_table, write_removed, write_tickets

Row = Mapping[str, object]
NewFolder = Callable[[], Path]
MakeTickets = Callable[..., TicketTable]
MakeSplits = Callable[..., Splits]


def with_places(rows: Iterable[Row]) -> list[dict[str, object]]:
    """Rows with source and source_line filled in."""
    return [{"source": "test", "source_line": line} | dict(row) for line, row in enumerate(rows, start=1)]


@pytest.fixture
def make_tickets(new_folder: NewFolder) -> MakeTickets:
    """Write rows as a `TicketTable`; columns a row does not name are null."""

    def make(rows: Iterable[Row]) -> TicketTable:
        out = new_folder()
        n_rows = write_tickets(ticket_table(with_places(rows)), out)
        write_removed([], out)
        return TicketTable(root=out, rows=RowCounts(n_in=n_rows, n_out=n_rows))

    return make


@pytest.fixture
def make_splits(new_folder: NewFolder) -> MakeSplits:
    """Write three lists of rows as `Splits` grouped by customer and thread."""

    def make(*, train: Iterable[Row], test: Iterable[Row], validation: Iterable[Row] = ()) -> Splits:
        out = new_folder()
        n_rows = {
            part: write_tickets(ticket_table(with_places(rows)), out, name=f"{part}.parquet")
            for part, rows in (("train", train), ("validation", validation), ("test", test))
        }
        write_removed([], out)
        total = sum(n_rows.values())
        return Splits(
            root=out,
            rows=RowCounts(n_in=total, n_out=total),
            n_train=n_rows["train"],
            n_validation=n_rows["validation"],
            n_test=n_rows["test"],
            group_by=("customer_id", "thread_id"),
        )

    return make


@pytest.fixture
def rows_of() -> Callable[[Path], dict[str, dict[str, Any]]]:
    """The rows of a Parquet file by ticket_id."""

    def read(path: Path) -> dict[str, dict[str, Any]]:
        return {row["ticket_id"]: row for row in read_rows(path).to_pylist()}

    return read


@pytest.fixture(scope="session")
def banking77(shared_data: Path) -> list[dict[str, object]]:
    """10,003 short questions of bank customers."""
    with (shared_data / "banking77" / "train.csv").open(newline="", encoding="utf-8") as stream:
        return [
            {"ticket_id": f"bank-{number:05d}", "body": row["text"], "category": row["category"]}
            for number, row in enumerate(csv.DictReader(stream))
        ]


@pytest.fixture(scope="session")
def bitext(shared_data: Path) -> list[dict[str, object]]:
    """4,514 requests to a shop with their answers."""
    path = shared_data / "bitext_support" / "bitext_support_training_2023-08-18.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            {"ticket_id": f"bitext-{number:05d}", "body": row["instruction"], "reply": row["response"]}
            for number, row in enumerate(csv.DictReader(stream))
        ]


@pytest.fixture(scope="session")
def bitext_intents(shared_data: Path) -> dict[str, str]:
    """The intent of each request, by its ticket_id."""
    path = shared_data / "bitext_support" / "bitext_support_training_2023-08-18.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        return {f"bitext-{number:05d}": row["intent"] for number, row in enumerate(csv.DictReader(stream))}
