"""`tunegate migrate`: files of other versions are brought up to date after a backup, and the ledger moves house."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from flows.commands.migrate import migrate
from flows.engine.ledger import Ledger
from schemas.errors import StorageError

if TYPE_CHECKING:
    from tests.support.place import Place
    from tests.support.postgres import Postgres


@pytest.fixture
def home(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a ledger, and what agents said in a DuckDB file of an older version."""
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


def told(capsys: pytest.CaptureFixture[str], *, ledger_to: str | None = None) -> list[dict[str, Any]]:
    assert migrate(ledger_to=ledger_to, config=Path("pipelines.yaml"), as_json=True) == 0
    return list(json.loads(capsys.readouterr().out))


def test_the_ledger_moves_into_postgres_and_from_there_into_a_folder(
    home: Path, postgres: Postgres, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = postgres.fresh()
    moved = told(capsys, ledger_to=url)[-1]
    assert moved["what"] == url.replace("tunegate@", "")
    assert " rows, digest " in moved["told"]
    monkeypatch.setenv("TUNEGATE_LEDGER_URL", url)
    (home / "ledger.sqlite").unlink()
    back = told(capsys, ledger_to=str(tmp_path / "copy"))[-1]
    assert back["told"].split("digest ")[1] == moved["told"].split("digest ")[1]
    champion = Ledger(tmp_path / "copy").champion("replies")
    assert champion is not None
    assert champion.version == "1"
    with pytest.raises(StorageError, match="TG0518"):
        told(capsys, ledger_to=str(tmp_path / "copy"))
