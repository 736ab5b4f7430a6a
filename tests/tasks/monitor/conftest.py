"""Splits and warehouses of a few tickets."""

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

import pytest

from schemas.artifacts import Splits, WarehouseRef
from tests.tasks.curate.conftest import MakeSplits, Row, make_splits

__all__ = ["make_splits"]

MakeWarehouse = Callable[..., WarehouseRef]


@pytest.fixture
def make_warehouse(tmp_path: Path) -> MakeWarehouse:
    """A warehouse with only a table of duplicates: (ticket, kept)."""

    def make(duplicates: Iterable[tuple[str, str]] = ()) -> WarehouseRef:
        import pyarrow as pa
        import pyarrow.parquet as pq

        out = tmp_path / "warehouse"
        out.mkdir(exist_ok=True)
        rows = [{"ticket_id": ticket, "kept_id": kept} for ticket, kept in duplicates]
        schema = pa.schema([("ticket_id", pa.string()), ("kept_id", pa.string())])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), out / "duplicates.parquet")
        return WarehouseRef(root=out, n_tickets=0, snapshot_id="s1")

    return make


def ticket(number: int, **columns: object) -> Row:
    """A ticket with a date in June."""
    return {
        "ticket_id": f"T-{number:03}", "created_at": datetime(2026, 6, number, 10), "body": f"question {number}",
        "category": "billing", "priority": "low", **columns,
    }  # fmt: skip


def splits_of(make_splits: MakeSplits, train: Iterable[int], test: Iterable[int]) -> Splits:
    """Splits of plain tickets."""
    return make_splits(train=[ticket(number) for number in train], test=[ticket(number) for number in test])
