"""Rows of forgotten customers are dropped on reading: counted, without a trace of their content."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from schemas.source import FilesSource
from tasks.curate import gather
from tasks.privacy.hashes import Forgotten, KeyedHash
from tests.support.synced import extract

HASHES = KeyedHash(b"a key of sixteen")
GONE = Forgotten(HASHES, owners=[HASHES.of("customer", "ann"), HASHES.of("customer", "77")])


def row(number: int, customer: object, **more: object) -> dict[str, object]:
    return {"ticket_id": f"t{number}", "customer_id": customer, "body": f"text of {customer}", "reply": "Yes.", **more}


@pytest.mark.parametrize("held_bytes", [1 << 25, 1], ids=["held", "set aside"])
def test_rows_of_forgotten_customers_are_dropped_before_anything_is_written(
    tmp_path: Path, held_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "HELD_BYTES", held_bytes)
    rows = [
        row(1, "ann"), row(2, "bob"), row(3, "ann", created_at="no time"), row(4, 77), row(5, None),
        row(6, "bob", created_at="no time"),
    ]  # fmt: skip
    (tmp_path / "tickets.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    source = FilesSource(kind="files", paths=("tickets.jsonl",))
    table = extract(source, tmp_path, forgotten=GONE)
    assert (table.rows.n_in, table.rows.n_out, table.rows.n_quarantined, table.rows.n_dropped) == (6, 2, 1, 3)
    assert pq.read_table(table.tickets).column("ticket_id").to_pylist() == ["t2", "t5"]
    removed = pq.read_table(table.removed).to_pylist()
    dropped = [each for each in removed if each["outcome"] == "dropped"]
    assert [(each["source_line"], each["code"], each["ticket_id"]) for each in dropped] == [
        (1, "forgotten", None), (3, "forgotten", None), (4, "forgotten", None),
    ]  # fmt: skip
    assert {each["ticket_id"] for each in removed} == {None, "t6"}


def test_a_source_without_forgotten_customers_is_read_unchanged(tmp_path: Path) -> None:
    (tmp_path / "tickets.jsonl").write_text('{"ticket_id": "t1", "body": "a", "reply": "b"}\n')
    source = FilesSource(kind="files", paths=("tickets.jsonl",))
    table = extract(source, tmp_path, forgotten=GONE)
    assert (table.rows.n_out, table.rows.n_dropped) == (1, 0)
