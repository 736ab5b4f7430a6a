"""The DuckDB connection and how it is locked down."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from schemas.errors import LockedError
from tasks.storage.warehouse import connect, create_database


def test_a_locked_database_is_reported_with_its_holder(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_endless_sql(number: signal.Signals, code: int) -> None:
    script = """
import signal, sys
from tasks.storage.warehouse import connect, in_bounds
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
endless = "with recursive r as (select 1 as i union all select i + 1 from r) select count(*) from r"
with connect() as connection:
    try:
        print("asking", flush=True)
        in_bounds(connection, lambda: connection.sql(endless).fetchall(), where="--sql")
    except KeyboardInterrupt:
        sys.exit(130)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as query:
        try:
            assert query.stdout is not None
            assert query.stdout.readline() == b"asking\n"
            time.sleep(0.5)
            query.send_signal(number)
            assert query.wait() == code
        finally:
            query.kill()
