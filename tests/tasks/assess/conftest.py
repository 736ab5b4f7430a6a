"""Small tables of the right form for the tests of tasks/assess."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import EvalSet, Predictions, RowCounts, Scores, Splits
from schemas.tables import TICKETS

_TYPES = {
    "VARCHAR": pa.string(), "TIMESTAMP": pa.timestamp("us"), "BIGINT": pa.int64(), "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
}  # fmt: skip
TICKET_SCHEMA = pa.schema([(column.name, _TYPES[column.sql_type]) for column in TICKETS])


def ticket_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Ticket rows with every column, null where not given."""
    full = [
        dict.fromkeys(TICKET_SCHEMA.names) | {"source": "test", "source_line": number} | dict(row)
        for number, row in enumerate(rows, 1)
    ]
    return pa.Table.from_pylist(full, schema=TICKET_SCHEMA)


@pytest.fixture(scope="session")
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A fresh empty directory per call, also inside hypothesis examples."""
    return lambda: tmp_path_factory.mktemp("assess")


@pytest.fixture(scope="session")
def make_splits(new_folder: Callable[[], Path]) -> Callable[..., Splits]:
    def make(
        *,
        train: Sequence[Mapping[str, Any]] = (),
        test: Sequence[Mapping[str, Any]] = (),
        validation: Sequence[Mapping[str, Any]] = (),
    ) -> Splits:
        root = new_folder()
        for name, rows in (("train", train), ("validation", validation), ("test", test)):
            pq.write_table(ticket_table(rows), root / f"{name}.parquet")
        n = len(train) + len(validation) + len(test)
        return Splits(
            root=root,
            rows=RowCounts(n_in=n, n_out=n),
            n_train=len(train),
            n_validation=len(validation),
            n_test=len(test),
        )

    return make


@pytest.fixture(scope="session")
def make_items(new_folder: Callable[[], Path]) -> Callable[..., EvalSet]:
    def make(rows: Sequence[Mapping[str, Any]]) -> EvalSet:
        """Each row has ticket_id and answer, and whichever ticket columns matter."""
        root = new_folder()
        table = ticket_table([{k: v for k, v in row.items() if k != "answer"} for row in rows])
        table = table.append_column("item_id", table.column("ticket_id"))
        table = table.append_column("answer", pa.array([row["answer"] for row in rows], pa.string()))
        pq.write_table(table, root / "items.parquet")
        return EvalSet(root=root, n_items=len(rows), n_available=len(rows))

    return make


@pytest.fixture(scope="session")
def make_predictions(new_folder: Callable[[], Path]) -> Callable[..., Predictions]:
    def make(rows: Sequence[Mapping[str, Any]]) -> Predictions:
        root = new_folder()
        full = [{"text": "", "n_new_tokens": 1, "finished": True, "loss": 1.0} | dict(row) for row in rows]
        schema = pa.schema(
            [("item_id", pa.string()), ("text", pa.string()), ("n_new_tokens", pa.int64()), ("finished", pa.bool_()),
             ("loss", pa.float64())]
        )  # fmt: skip
        pq.write_table(pa.Table.from_pylist(full, schema=schema), root / "predictions.parquet")
        return Predictions(root=root, n_items=len(rows), n_new_tokens=len(rows))

    return make


@pytest.fixture(scope="session")
def make_scores(new_folder: Callable[[], Path]) -> Callable[..., Scores]:
    def make(
        arm: str,
        metrics: Mapping[str, Sequence[float | None]],
        *,
        slices: Sequence[str] = (),
        n_items: int | None = None,
        first_item: int = 0,
    ) -> Scores:
        """Scores of items i000000, i000001, ...; `slices` gives each item's one slice."""
        root = new_folder()
        rows = [
            {"item_id": f"i{number + first_item:06d}", "metric": metric, "value": value}
            for metric, values in metrics.items()
            for number, value in enumerate(values)
        ]
        schema = pa.schema([("item_id", pa.string()), ("metric", pa.string()), ("value", pa.float64())])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), root / "scores.parquet")
        members = [{"item_id": f"i{number + first_item:06d}", "slice": name} for number, name in enumerate(slices)]
        schema = pa.schema([("item_id", pa.string()), ("slice", pa.string())])
        pq.write_table(pa.Table.from_pylist(members, schema=schema), root / "slices.parquet")
        longest = max((len(values) for values in metrics.values()), default=0)
        return Scores(root=root, arm=arm, n_items=longest if n_items is None else n_items, means={})

    return make
