"""The DuckDB connection and its lock-down."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from schemas.errors import LockedError
from tasks.warehouse import connect, create_database


def test_a_held_database_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    create_database(path)
    hold = f"import duckdb, time; c = duckdb.connect({str(path)!r}); print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(LockedError, match=f"process {holder.pid}"), connect(path):
                pass
        finally:
            holder.kill()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with connect(path):
                return
        except LockedError:
            time.sleep(0.1)
    pytest.fail("the lock outlived its holder")
