"""Temporary files of a process and its children: below the home, and gone with the process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flows.workspace.lock import hold
from flows.workspace.temporary import sweep, temporary_files_below, temporary_folder


def test_temporary_files_of_this_process_and_its_children_lie_below_the_home(tmp_path: Path) -> None:
    before, home = tempfile.gettempdir(), tmp_path / "home"
    with temporary_files_below(home, make=True):
        child = [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"]
        of_child = subprocess.run(child, capture_output=True, text=True, check=True).stdout.strip()
        assert Path(tempfile.mkdtemp()).parent == Path(of_child)
        assert Path(of_child).is_relative_to(home / "tmp")
        with temporary_files_below(home):
            assert tempfile.gettempdir() == of_child
    assert tempfile.gettempdir() == before
    assert os.environ.get("TMPDIR", before) == before
    assert list((home / "tmp").iterdir()) == []


def test_a_process_below_another_has_a_folder_of_its_own(tmp_path: Path) -> None:
    script = (
        "import sys, tempfile; from pathlib import Path; from flows.workspace.temporary import temporary_files_below\n"
        "with temporary_files_below(Path(sys.argv[1])): print(tempfile.gettempdir())"
    )
    with temporary_files_below(tmp_path):
        mine = Path(tempfile.gettempdir())
        child = [sys.executable, "-c", script, str(tmp_path)]
        theirs = Path(subprocess.run(child, capture_output=True, text=True, check=True).stdout.strip())
        assert theirs != mine, "who kills it leaves nothing that waits for this process to end"
        assert theirs.parent == mine.parent


def test_a_home_that_is_not_there_is_not_made_by_who_only_looks(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    with temporary_files_below(tmp_path / "home"):
        assert tempfile.gettempdir() == before
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_process_left_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    dead = tmp_path / "tmp" / "dead"
    dead.mkdir(parents=True)
    (dead / "spill").write_text("text of a ticket")
    dead.with_suffix(".lock").touch()
    with temporary_folder(tmp_path) as living:
        sweep(tmp_path)
        assert sorted((tmp_path / "tmp").iterdir()) == sorted((living, living.with_suffix(".lock")))


def test_a_folder_whose_lock_belongs_to_another_user_is_left_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object, **_named: object) -> None:
        raise PermissionError

    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "theirs.lock").touch()
    monkeypatch.setattr("flows.workspace.temporary.hold", refused)
    sweep(tmp_path)
    monkeypatch.undo()
    with hold(tmp_path / "tmp" / "theirs.lock", wait_s=0) as held:
        assert held
