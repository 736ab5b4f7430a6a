"""`tunegate ops migrate`: updates files of other versions after a backup, and moves the ledger."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flows.cli.ops import migrate
from schemas.errors import StorageError
from tasks.warehouse_versions import OURS, storage_version
from tests.support.place import Place


@pytest.fixture
def home(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a ledger, and feedback in a DuckDB file of an older version."""
    monkeypatch.setenv("TUNEGATE_HOME", str(place.home))
    monkeypatch.setenv("TUNEGATE_NOW", "2026-06-01T05:00:00Z")
    monkeypatch.delenv("TUNEGATE_LEDGER_URL", raising=False)
    place.promote(1, after=None)
    feedback = place.home / "feedback" / "replies"
    feedback.mkdir(parents=True)
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"ATTACH '{feedback / 'feedback.duckdb'}' AS made (STORAGE_VERSION 'v1.0.0')")
        connection.execute("CREATE TABLE made.feedback AS SELECT 1 AS seq, 'accepted' AS outcome")
    return place.home


def migrated(capsys: pytest.CaptureFixture[str], *, ledger_to: str | None = None) -> list[dict[str, Any]]:
    assert migrate(ledger_to=ledger_to, config=Path("pipelines.yaml"), as_json=True) == 0
    return list(json.loads(capsys.readouterr().out))


def test_each_file_is_backed_up_and_then_updated(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    feedback = home / "feedback" / "replies" / "feedback.duckdb"
    before = feedback.read_bytes()
    ledger, database = migrated(capsys)
    assert (ledger["message"], ledger["backup"]) == ("nothing to do", "")
    assert database["message"] == f"storage version 64 was rewritten as {OURS}"
    assert database["backup"] == str(home / "backups" / "replies-feedback-20260601-050000.duckdb")
    assert Path(database["backup"]).read_bytes() == before
    assert storage_version(feedback) == OURS
    assert {one["message"] for one in migrated(capsys)} == {"nothing to do"}
    assert len(list((home / "backups").iterdir())) == 1
    assert migrate(ledger_to=None, config=Path("pipelines.yaml"), as_json=False) == 0
    assert capsys.readouterr().out.count("nothing to do") == 2


def test_a_newer_ledger_stops_the_migration_before_any_change(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(home / "ledger.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageError, match="TG0530"):
        migrated(capsys)
    assert storage_version(home / "feedback" / "replies" / "feedback.duckdb") == 64
    assert not (home / "backups").exists()


def test_an_empty_home_has_nothing_to_migrate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path / "none"))
    monkeypatch.delenv("TUNEGATE_LEDGER_URL", raising=False)
    assert migrated(capsys) == []
    assert not (tmp_path / "none").exists()
