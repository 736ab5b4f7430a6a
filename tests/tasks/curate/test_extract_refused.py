"""Sources that cannot be extracted: each is refused by the code of its fault."""

from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from schemas.errors import TunegateError
from schemas.source import DuckDBSource, FilesSource, HuggingFaceSource, SourceSpec
from tasks.curate.rows import read_rows
from tests.support.synced import extract


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


def of_duckdb(query: str) -> DuckDBSource:
    return DuckDBSource(kind="duckdb", database="desk.duckdb", query=query)


@pytest.mark.parametrize(
    ("code", "source"),
    [
        ("TG0130", HuggingFaceSource(kind="hf", path="saved", split="tests")),
        ("TG0111", files(columns={"body": "body", "reply": "body"})),
        ("TG0125", of_duckdb("selec 1")),
        ("TG0209", of_duckdb("SELECT nothing FROM tickets")),
        ("TG0204", files(extra_columns="error")),
        ("TG0720", HuggingFaceSource(kind="hf", path="no-one/tickets", revision="a" * 40, allow_download=True)),
    ],
)
def test_a_source_is_refused(exports: Path, monkeypatch: pytest.MonkeyPatch, code: str, source: SourceSpec) -> None:
    # Tests ask no hub for anything; the offline setting is read when the library is imported.
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TunegateError) as caught:
        extract(source, exports)
    assert caught.value.code == code


def test_a_row_without_any_key_of_its_shape_is_quarantined(tmp_path: Path) -> None:
    (tmp_path / "week.jsonl").write_bytes(b'{"ticket_id": "1", "body": "It broke."}\n{"mood": "bad"}\n')
    table = extract(files(), tmp_path)
    assert [row["code"] for row in read_rows(table.removed).to_pylist()] == ["TG0246"]
