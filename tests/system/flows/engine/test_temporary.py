"""Killed while its temporary files hold tickets: nothing of them outlives the next command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.commands.forget import forget
from flows.engine.temporary import temporary_files_below
from tests.support.forgetful_workspace import CUSTOMER, KEY, build

SPILLING = """
import sys
from pathlib import Path
from flows.engine.temporary import temporary_files_below
from tasks.warehouse import connect
with temporary_files_below(Path(sys.argv[1]), make=True):
    with connect(memory_limit="60MB", threads=1) as connection:
        text = "md5(i::varchar) || ' a ticket of amber@ibis.example'"
        connection.sql(f"select count(*) from (select distinct {text} from range(60000000) t(i))").fetchall()
"""


def kill_while_spilling(home: Path, elsewhere: Path) -> None:
    """Leave what a process leaves that is killed while DuckDB writes to disk what its memory does not hold."""
    elsewhere.mkdir(exist_ok=True)
    environ = {**os.environ, "TMPDIR": str(elsewhere)}
    with subprocess.Popen([sys.executable, "-c", SPILLING, str(home)], env=environ) as process:
        deadline = time.monotonic() + 120
        while sum(path.stat().st_size for path in files_below(home / "tmp")) < 1 << 20:
            assert process.poll() is None, "it ended without spilling"
            assert time.monotonic() < deadline, "it does not spill"
            time.sleep(0.05)
        process.kill()
    assert files_below(home / "tmp")
    assert files_below(elsewhere) == []


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_a_killed_process_spilled_is_gone_after_the_next_start(tmp_path: Path) -> None:
    home = tmp_path / "home"
    kill_while_spilling(home, tmp_path / "elsewhere")
    with temporary_files_below(home):
        pass
    assert list((home / "tmp").iterdir()) == []


def test_forgetting_leaves_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQ_KEY", KEY)
    here = build(tmp_path)
    kill_while_spilling(here.settings.home, tmp_path / "elsewhere")
    code = forget(
        customer=CUSTOMER, plan=False, apply=True, again=False, reason="case 17", by="a person", unknown=False,
        config=here.settings.home.with_name("pipelines.yaml"), as_json=False,
    )  # fmt: skip
    assert code == 0
    assert files_below(here.settings.home / "tmp") == []
