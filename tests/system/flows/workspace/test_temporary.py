"""Temporary files of killed processes, which may contain tickets, are removed by the next command."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.cli.tracing import forget
from flows.workspace.temporary import ABANDONED_S, temporary_files_below
from tests.support.commands import run_here
from tests.support.forgetful_workspace import CUSTOMER, KEY, build

SPILLING = """
import sys
from pathlib import Path
from flows.workspace.temporary import temporary_files_below
from tasks.storage.warehouse import connect
with temporary_files_below(Path(sys.argv[1]), make=True):
    with connect(memory_limit="60MB", threads=1) as connection:
        text = "md5(i::varchar) || ' a ticket of amber@ibis.example'"
        connection.sql(f"select count(*) from (select distinct {text} from range(60000000) t(i))").fetchall()
"""


def kill_while_spilling(home: Path, system_temp: Path) -> None:
    """Kill a process while DuckDB spills to disk."""
    system_temp.mkdir(exist_ok=True)
    environ = {**os.environ, "TMPDIR": str(system_temp)}
    with subprocess.Popen([sys.executable, "-c", SPILLING, str(home)], env=environ) as process:
        deadline = time.monotonic() + 120
        while sum(path.stat().st_size for path in files_below(home / "tmp")) < 1 << 20:
            assert process.poll() is None, "it ended without spilling"
            assert time.monotonic() < deadline, "it does not spill"
            time.sleep(0.05)
        process.kill()
    assert files_below(home / "tmp")
    assert files_below(system_temp) == []


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_spilled_files_of_a_killed_process_are_removed_at_the_next_start(tmp_path: Path) -> None:
    home = tmp_path / "home"
    kill_while_spilling(home, tmp_path / "elsewhere")
    with temporary_files_below(home):
        pass
    assert list((home / "tmp").iterdir()) == []


def test_forgetting_a_customer_removes_spilled_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQ_KEY", KEY)
    workspace = build(tmp_path)
    kill_while_spilling(workspace.settings.home, tmp_path / "elsewhere")
    code = forget(
        customer=CUSTOMER, plan=False, apply=True, again=False, reason="case 17", by="a person", unknown=False,
        config=workspace.settings.home.with_name("pipelines.yaml"), as_json=False,
    )  # fmt: skip
    assert code == 0
    assert files_below(workspace.settings.home / "tmp") == []


WRITING = """
import os, sys
from pathlib import Path
from tasks.storage.files import write_json
os.fsync = lambda _descriptor: os.kill(os.getpid(), 9)
write_json(Path(sys.argv[1]), {"text": "a ticket of amber@ibis.example"})
"""


def test_half_written_files_of_a_killed_process_are_removed_at_the_next_start(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for folder in (home / "scratch" / "answers", home / "mlflow"):
        folder.mkdir(parents=True)
        killed = subprocess.run([sys.executable, "-c", WRITING, str(folder / "file.json")], check=False)
        assert killed.returncode == -9
    (home / "mlflow" / ".mlflow.db.tmp-journal").touch()
    (home / "login").touch()
    kept = [
        home / "scratch" / name for name in (f".mine.{os.getpid()}.tmp", ".hidden", "file.1.tmp", ".fresh.word.tmp")
    ]
    for path in kept:
        path.touch()
    left = [path for path in files_below(home) if path not in kept]
    assert len(left) == 4
    for path in (*left, *kept[:-1]):
        os.utime(path, (time.time() - 2 * ABANDONED_S,) * 2)
    with temporary_files_below(home):
        pass
    assert set(files_below(home)) == {home / "login", *kept}


def test_a_command_without_a_state_folder_removes_spilled_files_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "tickets.jsonl").write_text('{"body": "Where is it?", "reply": "On its way."}\n' * 40)
    system_temp, cache = tmp_path / "elsewhere", tmp_path / "cache"
    kill_while_spilling(cache, system_temp)
    environ = {
        **{name: value for name, value in os.environ.items() if name != "TUNEGATE_HOME"},
        "TUNEGATE_CACHE": str(cache), "TMPDIR": str(system_temp),
    }  # fmt: skip
    run_here(["init", "--from", "tickets.jsonl"], cwd=tmp_path, environ=environ)
    assert list((cache / "tmp").iterdir()) == []
    assert files_below(system_temp) == []
    assert not (tmp_path / ".tunegate").exists()
