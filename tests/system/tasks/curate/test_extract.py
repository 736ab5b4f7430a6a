"""Extraction end to end: every row is a ticket or is quarantined with its place and reason."""

from pathlib import Path

import pytest

from schemas.errors import LockedError
from schemas.source import DuckDBSource
from tests.support.synced import extract


def test_a_database_that_a_writer_has_open_is_refused_with_its_name(tmp_path: Path) -> None:
    import subprocess
    import sys

    path = tmp_path / "w.duckdb"
    hold = (
        f"import duckdb, time; c = duckdb.connect({str(path)!r}); c.execute('create table t as select 1 as body'); "
        "print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(LockedError, match=f"process {holder.pid}"):
                extract(DuckDBSource(kind="duckdb", database="w.duckdb", table="t"), tmp_path)
        finally:
            holder.kill()
