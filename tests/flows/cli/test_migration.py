"""`tunegate ops migrate`: copies the ledger to another place."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.cli.ops import migrate
from flows.ledger.ledger import Ledger
from schemas.errors import StorageError
from tests.support.place import Place


@pytest.fixture
def home(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a ledger."""
    monkeypatch.setenv("TUNEGATE_HOME", str(place.home))
    monkeypatch.delenv("TUNEGATE_LEDGER_URL", raising=False)
    place.promote(1, after=None)
    return place.home


def migrated(capsys: pytest.CaptureFixture[str], *, ledger_to: str) -> dict[str, str]:
    assert migrate(ledger_to=ledger_to, config=Path("pipelines.yaml"), as_json=True) == 0
    [done] = json.loads(capsys.readouterr().out)
    return dict(done)


def test_the_ledger_is_copied_into_a_folder_and_stays(
    home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    done = migrated(capsys, ledger_to=str(copy))
    assert done["what"] == str(copy / "ledger.sqlite")
    assert done["message"].startswith(f"copied from {home / 'ledger.sqlite'}: ")
    assert Ledger(copy).history() == Ledger(home).history() != ()
    assert migrate(ledger_to=str(tmp_path / "text"), config=Path("pipelines.yaml"), as_json=False) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'text' / 'ledger.sqlite'}: copied from ")


def test_a_ledger_of_another_version_is_not_copied(
    home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with closing(sqlite3.connect(home / "ledger.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageError, match="TG0530"):
        migrated(capsys, ledger_to=str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()
