"""Codes of rules, sources and tables: each is provoked by what a user may write or have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import EvalSet, RowCounts, Splits
from schemas.errors import TunegateError
from schemas.source import DuckDBSource, FilesSource, HuggingFaceSource, SourceSpec
from schemas.tables import TICKET_COLUMNS
from tasks.assess.baselines import score_classifier
from tasks.assess.items import select_items
from tasks.curate.extract import extract_tickets, fingerprint_source
from tasks.curate.rows import read_rows
from tasks.curate.sql.predicate import check_predicate
from tasks.warehouse import connect, quote_identifier


def code_of(provoke: Callable[[], Any]) -> str:
    """The code of the error that this ends with."""
    with pytest.raises(TunegateError) as caught:
        provoke()
    return caught.value.code


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("TG0120", "length("),
        ("TG0122", "length(created_at) > 3"),
        ("TG0123", "length(body)"),
        ("TG0811", "true), (false"),
        ("TG0813", "getenv('HOME') = 'x'"),
    ],
)
def test_a_rule_is_refused(code: str, rule: str) -> None:
    assert code_of(lambda: check_predicate(rule)) == code


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """A folder with a line of JSON, a DuckDB file, and a dataset with one split."""
    import datasets

    (tmp_path / "week.jsonl").write_bytes(orjson.dumps({"ticket_id": "1", "body": "It broke.", "mood": "bad"}) + b"\n")
    with duckdb.connect(str(tmp_path / "desk.duckdb")) as connection:
        connection.execute("CREATE TABLE tickets AS SELECT '1' AS ticket_id, 'It broke.' AS body")
    rows = datasets.Dataset.from_dict({"ticket_id": ["1"], "body": ["It broke."]})
    datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "saved"))
    return tmp_path


def files(**options: Any) -> FilesSource:
    return FilesSource(kind="files", paths=("week.jsonl",), **options)


def of_duckdb(**options: Any) -> DuckDBSource:
    return DuckDBSource(kind="duckdb", database="desk.duckdb", **options)


@pytest.mark.parametrize(
    ("code", "source"),
    [
        ("TG0132", HuggingFaceSource(kind="hf", path="saved", split="tests")),
        ("TG0134", files(columns={"body": "body", "reply": "body"})),
        ("TG0136", of_duckdb(query="selec 1")),
        ("TG0209", of_duckdb(query="SELECT nothing FROM tickets")),
        ("TG0216", files(extra_columns="error")),
        ("TG0722", HuggingFaceSource(kind="hf", path="nobody/tickets", revision="a" * 40, allow_download=True)),
    ],
)
def test_a_source_is_refused(exports: Path, monkeypatch: pytest.MonkeyPatch, code: str, source: SourceSpec) -> None:
    out = exports / "out"
    out.mkdir()
    # Nothing is asked of a hub in tests; the offline setting is read when the library is imported.
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def read() -> None:
        told = fingerprint_source(source, root=exports)
        extract_tickets(source=source, fingerprint=told, root=exports, out=out)

    assert code_of(read) == code


def test_a_row_without_any_key_of_its_shape_is_quarantined(exports: Path) -> None:
    (exports / "week.jsonl").write_bytes(b'{"ticket_id": "1", "body": "It broke."}\n{"mood": "bad"}\n')
    (exports / "out").mkdir()
    source = files()
    table = extract_tickets(
        source=source, fingerprint=fingerprint_source(source, root=exports), root=exports, out=exports / "out"
    )
    assert [row["code"] for row in read_rows(table.removed).to_pylist()] == ["TG0246"]


def test_a_database_that_a_writer_holds_is_told(exports: Path) -> None:
    path = exports / "desk.duckdb"
    with duckdb.connect(str(path)):
        assert code_of(lambda: connect(path, read_only=True).__enter__()) == "TG0551"


def test_a_name_that_is_no_identifier_is_refused() -> None:
    assert code_of(lambda: quote_identifier("a\0b")) == "TG0810"


def splits_of(folder: Path, **columns: list[Any]) -> Splits:
    """Splits that all hold these tickets; columns that are not given are null."""
    n = len(columns["ticket_id"])
    table = pa.table({name: pa.array(columns.get(name, [None] * n), pa.string()) for name in TICKET_COLUMNS})
    for part in ("train", "validation", "test"):
        pq.write_table(table, folder / f"{part}.parquet")
    return Splits(root=folder, rows=RowCounts(n_in=n, n_out=n), n_train=n, n_validation=n, n_test=n)


def test_a_ticket_twice_in_the_test_split_is_found(tmp_path: Path) -> None:
    splits = splits_of(tmp_path, ticket_id=["1", "1"], reply=["Yes.", "No."])
    select = {"splits": splits, "max_items": 5, "seed": 0, "answer": "{reply}", "out": tmp_path}
    assert code_of(lambda: select_items(**select)) == "TG0231"


def test_a_routing_baseline_without_labels_is_refused(tmp_path: Path) -> None:
    splits = splits_of(tmp_path, ticket_id=["1"], body=["It broke."], reply=["Yes."])
    items = select_items(splits=splits, max_items=5, seed=0, answer="{reply}", out=tmp_path)
    assert isinstance(items, EvalSet)
    ask = {"items": items, "splits": splits, "arm": "majority", "field": "category", "seed": 0, "out": tmp_path}
    assert code_of(lambda: score_classifier(**ask)) == "TG0232"
