"""A DuckDB file that another process writes: whole transactions are read, and the writer is not disturbed."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from schemas.errors import DataError
from tasks.sources.database_copy import copy_of, log_of
from tasks.sources.registry import fingerprint_source, ingest_source
from tests.support.synced import folder_of
from tests.tasks.sources.test_database_copy import SOURCE, database, read

WRITER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
connection.execute("SET checkpoint_threshold = '256KB'")
number, filler = 0, "x" * 2000
while True:
    connection.execute("BEGIN")
    for side in ("a", "b"):  # a transaction is two rows, of one number
        connection.execute("INSERT INTO tickets VALUES (?, ?, ?)", [f"{number:06d}-{side}", filler, "reply"])
    connection.execute("COMMIT")
    number += 1
    if number == 1:
        sys.stdout.write("held\\n")
        sys.stdout.flush()
"""
HOLDER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
connection.execute("INSERT INTO tickets VALUES ('in the log', 'body', 'reply')")
sys.stdout.write("held\\n")
sys.stdout.flush()
sys.stdin.read()
"""


@contextmanager
def database_open_in(database: Path, program: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_whole_transactions_are_read_while_a_writer_commits_and_merges(database: Path, tmp_path: Path) -> None:
    n_before = 0
    with database_open_in(database, WRITER) as writer:
        for _ in range(3):
            found = read(tmp_path)
            n_pairs = len(found) // 2
            assert found == [f"{n:06d}-{side}" for n in range(n_pairs) for side in ("a", "b")]
            assert n_pairs > n_before
            n_before = n_pairs
        assert writer.poll() is None
    assert copy_of(folder_of(SOURCE, tmp_path)).stat().st_mode & 0o077 == 0


def test_commits_that_are_only_in_the_log_are_read_and_the_file_is_not_changed(database: Path, tmp_path: Path) -> None:
    with database_open_in(database, HOLDER):
        before = {path: path.read_bytes() for path in (database, log_of(database))}
        assert read(tmp_path) == ["in the log"]
        assert {path: path.read_bytes() for path in (database, log_of(database))} == before
    # Equal content has an equal fingerprint, open or not: nothing is curated again.
    landed = tmp_path / "landed"
    with_copy = fingerprint_source(SOURCE, root=tmp_path, landed=landed)
    assert fingerprint_source(SOURCE, root=tmp_path) == with_copy


def test_a_writer_that_never_pauses_is_reported(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.sources import database_copy

    monkeypatch.setattr(database_copy, "ATTEMPTS", 1)
    copyfile = database_copy.shutil.copyfile

    def copy_during_merge(path: Path, to: Path) -> None:
        copyfile(path, to)
        with database.open("r+b") as stream:  # as in a merge, the other header becomes the newer one
            stream.seek(4096)
            stream.write(b"\xff")

    monkeypatch.setattr(database_copy.shutil, "copyfile", copy_during_merge)
    with database_open_in(database, HOLDER), pytest.raises(DataError, match="TG0203"):
        ingest_source(SOURCE, root=tmp_path, landed=tmp_path / "landed")
    assert list(folder_of(SOURCE, tmp_path).iterdir()) == []
