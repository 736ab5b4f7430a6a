"""Temporary files of a process and its children: below the home, removed with the process."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flows.workspace.lock import hold
from flows.workspace.temporary import sweep, temporary_files_below, temporary_folder


def test_temporary_files_of_this_process_and_its_children_are_below_the_home(tmp_path: Path) -> None:
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


def test_a_child_process_has_its_own_folder(tmp_path: Path) -> None:
    script = (
        "import sys, tempfile; from pathlib import Path; from flows.workspace.temporary import temporary_files_below\n"
        "with temporary_files_below(Path(sys.argv[1])): print(tempfile.gettempdir())"
    )
    with temporary_files_below(tmp_path):
        ours = Path(tempfile.gettempdir())
        child = [sys.executable, "-c", script, str(tmp_path)]
        theirs = Path(subprocess.run(child, capture_output=True, text=True, check=True).stdout.strip())
        assert theirs != ours, "killing it leaves nothing that waits for this process to end"
        assert theirs.parent == ours.parent


def test_a_missing_home_is_not_created_by_a_reader(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    with temporary_files_below(tmp_path / "home"):
        assert tempfile.gettempdir() == before
    assert list(tmp_path.iterdir()) == []


def test_files_of_a_dead_process_are_removed_and_those_of_a_live_one_kept(tmp_path: Path) -> None:
    dead = tmp_path / "tmp" / "dead"
    dead.mkdir(parents=True)
    (dead / "spill").write_text("text of a ticket")
    dead.with_suffix(".lock").touch()
    with temporary_folder(tmp_path) as living:
        sweep(tmp_path)
        assert sorted((tmp_path / "tmp").iterdir()) == sorted((living, living.with_suffix(".lock")))


def test_a_folder_locked_by_another_user_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_arguments: object, **_named: object) -> None:
        raise PermissionError

    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "theirs.lock").touch()
    monkeypatch.setattr("flows.workspace.temporary.hold", refused)
    sweep(tmp_path)
    monkeypatch.undo()
    with hold(tmp_path / "tmp" / "theirs.lock", wait_s=0) as held:
        assert held
