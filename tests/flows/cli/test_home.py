"""A state folder that is not what it should be: every command says so, and none calls it an internal error."""

from __future__ import annotations

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
def test_a_file_in_the_place_of_the_state_folder_is_named(
    refusal: Callable[..., str], tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("no folder")
    said = refusal(*words, TUNEGATE_HOME=str(tmp_path / "file"))
    assert "TG0554" in said
    assert str(tmp_path / "file") in said


def test_a_ledger_that_is_taken_away_while_a_run_works_is_named(place: Place) -> None:
    ledger, home = place.ledger, place.settings.home
    ledger.start_run("r1", pipeline="small", model_name="small", input_digest="", config_json="{}")
    shutil.rmtree(home)
    with pytest.raises(StorageError, match=r"TG0554.*removed or replaced"), named_disk_errors(home):
        ledger.record_failure("r1", "extract", ValueError("no such thing"))
