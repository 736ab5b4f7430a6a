"""What MLflow shows of the data has labels, numbers and hashes, and no text or id of a ticket."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import EvalSet, Scores
from tasks.release.shown_data import MAX_VALUES, count_labels, write_items

ITEMS = [
    {
        "item_id": f"ticket-{number}", "ticket_id": f"ticket-{number}", "customer_id": "ada@example.org",
        "created_at": datetime(2026, 5, number, tzinfo=UTC), "subject": "my parcel", "body": f"Where is it? {number}",
        "reply": "On its way. [billing]", "answer": "On its way. [billing]", "category": category, "priority": None,
    }
    for number, category in ((1, "billing"), (2, "returns"), (3, "billing"))
]  # fmt: skip


@pytest.fixture
def items(tmp_path: Path) -> EvalSet:
    root = tmp_path / "items"
    root.mkdir()
    pq.write_table(pa.Table.from_pylist(ITEMS), root / "items.parquet")
    return EvalSet(root=root, digest="ab" * 32, n_items=3, n_available=3)


def scores_of(folder: Path, arm: str, exact: dict[str, float]) -> Scores:
    root = folder / arm
    root.mkdir()
    rows = [{"item_id": item, "metric": "exact", "value": value} for item, value in exact.items()]
    pq.write_table(pa.Table.from_pylist(rows), root / "scores.parquet")
    return Scores.model_validate({"root": root, "digest": arm, "arm": arm, "n_items": 3, "means": {}})


def test_an_item_has_its_labels_and_whether_candidate_and_champion_are_right(tmp_path: Path, items: EvalSet) -> None:
    scores = (
        scores_of(tmp_path, "tuned", {"ticket-1": 1.0, "ticket-2": 0.0, "ticket-3": float("nan")}),
        scores_of(tmp_path, "champion", {"ticket-1": 0.0, "ticket-2": 0.0}),
        scores_of(tmp_path, "zero_shot", {"ticket-1": 0.0}),
    )
    for name in ("first.json", "second.json"):
        write_items(tmp_path / name, items=items, scores=scores)
    text = (tmp_path / "first.json").read_text()
    assert text == (tmp_path / "second.json").read_text()
    table = json.loads(text)
    assert table["columns"] == ["item_sha256", "category", "priority", "exact", "champion/exact"]
    hashes = [row[0] for row in table["data"]]
    assert hashes == sorted(hashes)
    assert len(set(hashes)) == 3
    assert {len(each) for each in hashes} == {64}
    assert sorted((row[1:] for row in table["data"]), key=str) == [
        ["billing", None, 1.0, 0.0], ["billing", None, None, None], ["returns", None, 0.0, 0.0]
    ]  # fmt: skip
    for hidden in ("ticket-", "example.org", "parcel", "On its way", "Where"):
        assert hidden not in text


def test_the_hash_of_an_item_is_that_of_its_row_in_every_set(tmp_path: Path, items: EvalSet) -> None:
    write_items(tmp_path / "all.json", items=items, scores=())
    root = tmp_path / "fewer"
    root.mkdir()
    pq.write_table(pa.Table.from_pylist(ITEMS[1:2], schema=pa.Table.from_pylist(ITEMS).schema), root / "items.parquet")
    write_items(tmp_path / "one.json", items=items.model_copy(update={"root": root}), scores=())
    (only,) = json.loads((tmp_path / "one.json").read_text())["data"]
    assert only in json.loads((tmp_path / "all.json").read_text())["data"]
    pq.write_table(pa.Table.from_pylist([ITEMS[1] | {"body": "another"}]), root / "items.parquet")
    write_items(tmp_path / "one.json", items=items.model_copy(update={"root": root}), scores=())
    assert json.loads((tmp_path / "one.json").read_text())["data"][0][0] != only[0]


def test_labels_are_counted_most_frequent_first_without_empty_columns(tmp_path: Path, items: EvalSet) -> None:
    assert count_labels(items.root / "items.parquet") == {"category": {"billing": 2, "returns": 1}}
    many = [{"product": f"product {number:03}"} for number in range(60)] + [{"product": "product 059"}]
    pq.write_table(pa.Table.from_pylist(many), tmp_path / "many.parquet")
    counted = count_labels(tmp_path / "many.parquet")["product"]
    assert list(counted.items())[:2] == [("product 059", 2), ("product 000", 1)]
    assert len(counted) == MAX_VALUES
