"""A broken state folder: every command reports it, none as an internal error."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.workspace.disk import named_disk_errors
from schemas.errors import StorageError
from tests.support.place import Place


@pytest.mark.parametrize(
    "words",
    [("runs",), ("status",), ("plan", "replies"), ("run", "replies"), ("ops", "doctor"), ("ops", "reconcile"),
     ("report", "r1"), ("ops", "up"), ("model", "champion", "replies")],
)  # fmt: skip
def test_a_file_in_place_of_the_state_folder_is_reported(
    refusal: Callable[..., str], tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("no folder")
    error = refusal(*words, TUNEGATE_HOME=str(tmp_path / "file"))
    assert "TG0554" in error
    assert str(tmp_path / "file") in error


def test_a_ledger_that_is_removed_during_a_run_is_reported(place: Place) -> None:
    ledger, home = place.ledger, place.settings.home
    ledger.start_run("r1", pipeline="small", model_name="small", config_json="{}")
    shutil.rmtree(home)
    with pytest.raises(StorageError, match=r"TG0554.*removed or replaced"), named_disk_errors(home):
        ledger.record_failure("r1", "extract", ValueError("no such thing"))
