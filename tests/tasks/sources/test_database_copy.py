"""A DuckDB file that another process has open and writes: whole transactions are read, and the writer is in peace."""

from pathlib import Path

import duckdb
import pytest

from schemas.errors import DataError, StorageError
from schemas.source import DuckDBSource
from tasks.sources.registry import ingest_source
from tests.support.synced import folder_of, sync, tickets

SOURCE = DuckDBSource(kind="duckdb", database="desk.duckdb", table="tickets")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "desk.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE tickets (ticket_id VARCHAR, body VARCHAR, reply VARCHAR)")
    return path


def read(folder: Path) -> list[str]:
    """The ticket ids that a run would read now."""
    return sorted(tickets(sync(SOURCE, folder)))


def test_a_file_that_no_process_holds_is_read_in_place_and_old_copies_go(database: Path, tmp_path: Path) -> None:
    with duckdb.connect(str(database)) as connection:
        connection.execute("INSERT INTO tickets VALUES ('1', 'body', 'reply')")
    folder = folder_of(SOURCE, tmp_path)
    folder.mkdir(parents=True)
    (folder / "copy-999999999.duckdb").write_bytes(b"of a process that was killed")
    assert read(tmp_path) == ["1"]
    assert list(folder.iterdir()) == []


def test_a_file_of_no_bytes_is_none_and_a_damaged_one_says_so(database: Path, tmp_path: Path) -> None:
    with duckdb.connect(str(database)) as connection:
        connection.execute(
            "INSERT INTO tickets SELECT n, md5('a' || n) || md5('b' || n), 'reply' FROM range(20000) t(n)"
        )
    whole = database.read_bytes()
    database.write_bytes(b"")
    with pytest.raises(DataError, match=r"TG0201.*0 bytes"):
        ingest_source(SOURCE, root=tmp_path, landed=tmp_path / "landed")
    database.write_bytes(whole[: len(whole) // 2])
    with pytest.raises((StorageError, DataError), match=r"TG0519|TG0202"):
        read(tmp_path)
    place = len(whole) // 3
    database.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(DataError, match="TG0202"):
        read(tmp_path)
    database.write_text("ticket_id,body\n1,a\n")
    with pytest.raises(StorageError, match="TG0519"):
        ingest_source(SOURCE, root=tmp_path, landed=tmp_path / "landed")
