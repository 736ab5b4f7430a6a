"""Faults that the campaign (`make torture`) found, one test for each."""

import errno
import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from flows.graph.execute import Run
from flows.graph.graph import Graph
from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.workspace.disk import named_disk_errors
from schemas.artifacts import Artifact, TicketTable
from schemas.errors import StorageError
from tasks.step import as_step
from tasks.storage.disk_errors import name_disk_error
from tasks.storage.sealed_folder import MANIFEST, seal, verify


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_a_flipped_bit_in_a_reused_result_is_found_and_the_result_is_made_again(kit, tmp_path):
    good = kit.table_of(tmp_path / "home", tmp_path / "journal").result
    flip(good.root / "two.txt")
    again = kit.table_of(tmp_path / "home", tmp_path / "journal")
    assert (again.reused, again.result) == (False, good)
    assert verify(good.root) == good.digest


def test_an_altered_manifest_is_not_accepted(tmp_path):
    (tmp_path / "one.txt").write_text("one")
    seal(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_bytes())
    manifest["files"]["one.txt"]["sha256"] = "0" * 64
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(StorageError, match=r"TG0510.*altered"):
        verify(tmp_path)


def test_a_damaged_champion_is_not_answered_with(tmp_path):
    root = tmp_path / "champion"
    root.mkdir()
    (root / "weights").write_text("weights")
    champion = TicketTable(root=root, rows={"n_in": 1, "n_out": 1}, digest=seal(root))
    other = champion.model_copy(update={"digest": "0" * 64})
    with pytest.raises(StorageError, match="TG0549"):
        answer_with(other, tmp_path / "home")
    flip(root / "weights")
    with pytest.raises(StorageError, match="TG0510"):
        answer_with(champion, tmp_path / "home")
    assert not (tmp_path / "home" / "store").exists()


def answer_with(champion, home):
    graph = Graph()
    graph.add(never_called, champion=champion)
    Run(graph, Store(home)).make(graph.nodes["answers"])


@as_step("answers")
def never_called(out: Path, *, champion: Artifact) -> Artifact:
    raise AssertionError(f"it was read: {champion} {out}")


def test_an_empty_ledger_next_to_results_is_refused_but_a_killed_creation_is_not(tmp_path):
    (tmp_path / "ledger.sqlite").touch()  # what a kill during creation leaves
    ledger = Ledger(tmp_path)
    assert ledger.runs() == ()
    ledger.start_run("r1", pipeline="p", model_name="m", config_json="{}")
    (tmp_path / "store" / "extract" / "key").mkdir(parents=True)
    assert [row.run_id for row in ledger.runs()] == ["r1"]
    for path in tmp_path.glob("ledger.sqlite*"):
        path.unlink()
    (tmp_path / "ledger.sqlite").touch()
    for ask in (
        ledger.runs,
        lambda: ledger.start_run("r2", pipeline="p", model_name="m", config_json="{}"),
    ):
        with pytest.raises(StorageError, match="TG0581"):
            ask()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "TG0501"),
        (OSError(errno.EIO, "Input/output error", "/data/x"), "TG0554"),
        (sqlite3.OperationalError("disk I/O error"), "TG0554"),
        (OSError(errno.EMFILE, "Too many open files"), "TG0554"),
        (OSError(errno.EFBIG, "File too large"), "TG0554"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "TG0554"),
    ],
)
def test_disk_errors_are_reported_with_their_path(tmp_path, error, code):
    with pytest.raises(StorageError, match=code) as caught, named_disk_errors(tmp_path):
        raise error
    assert caught.value.where in (str(tmp_path), "/data/x")
    assert caught.value.hint


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EROFS, "Read-only file system", "/data/x"),
        sqlite3.OperationalError("attempt to write a readonly database"),
    ],
)
def test_a_state_folder_that_may_not_be_written_is_no_broken_disk(tmp_path, error):
    named = name_disk_error(error, tmp_path)
    assert named.message.startswith("this user may not read or write here")
    assert "permissions" in named.hint
    assert "dmesg" not in named.hint


def test_an_io_error_of_sqlite_on_a_full_disk_is_reported_as_a_full_disk():
    """SQLite has no room for the index of its log and reports an I/O error."""
    error = sqlite3.OperationalError("disk I/O error")
    full = Path("/proc")  # a full file system that every Linux has
    assert shutil.disk_usage(full).free == 0
    named = name_disk_error(error, full)
    assert named is not None
    assert named.code == "TG0501"
    assert "0 bytes are free" in named.message


def test_an_error_that_is_not_of_the_disk_is_kept(tmp_path):
    assert name_disk_error(ValueError("no"), tmp_path) is None
    with pytest.raises(FileNotFoundError), named_disk_errors(tmp_path):
        os.stat(tmp_path / "nowhere")  # noqa: PTH116
