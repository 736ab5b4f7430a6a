"""`tunegate ops migrate` between a file and Postgres."""

from pathlib import Path

import pytest

from flows.ledger.ledger import Ledger
from schemas.errors import StorageError
from tests.flows.cli.test_migration import home, migrated
from tests.support.place import Place
from tests.support.postgres import Postgres


def test_the_ledger_moves_into_postgres_and_back_into_a_folder(
    home: Path, postgres: Postgres, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = postgres.fresh()
    moved = migrated(capsys, ledger_to=url)
    assert moved["what"] == url.replace("tunegate@", "")
    assert " rows, digest " in moved["message"]
    monkeypatch.setenv("TUNEGATE_LEDGER_URL", url)
    (home / "ledger.sqlite").unlink()
    back = migrated(capsys, ledger_to=str(tmp_path / "copy"))
    assert back["message"].split("digest ")[1] == moved["message"].split("digest ")[1]
    champion = Ledger(tmp_path / "copy").champion("replies")
    assert champion is not None
    assert champion.version == "1"
    with pytest.raises(StorageError, match="TG0531"):
        migrated(capsys, ledger_to=str(tmp_path / "copy"))
