"""The DuckDB connection and how it is locked down."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from schemas.errors import LockedError, SecurityError, StorageError
from tasks.curate.rows import ticket_table
from tasks.storage.warehouse import connect, create_database, in_bounds, quote_identifier


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside.csv"
    path.write_text("a\n1\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "statement",
    [
        "select * from read_csv('{outside}')",
        "select * from '{inside}/../outside.csv'",
        "select * from '{inside}/link.csv'",
        "select * from glob('/etc/*')",
        "select * from read_text('/etc/passwd')",
        "copy (select 1) to '{outside}'",
        "attach '{outside}.duckdb' as other",
        "install httpfs",
        "load httpfs",
        "select * from 'https://example.com/x.parquet'",
        "set enable_external_access=true",
        "set threads=1",
        "reset allowed_directories",
        "create persistent secret s (type s3)",
        "select * from frame",
    ],
)
def test_a_locked_connection_refuses_files_that_were_not_named(tmp_path: Path, outside: Path, statement: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.csv").symlink_to(outside)
    frame = ticket_table([])
    assert frame.num_rows == 0
    with connect(readable=(inside,)) as connection, pytest.raises(duckdb.Error):
        connection.execute(statement.format(inside=inside, outside=outside)).fetchall()


def test_named_files_and_folders_are_read(tmp_path: Path, outside: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "b.csv").write_text("a\n2\n", encoding="utf-8")
    with connect(readable=(inside, outside)) as connection:
        for path in (inside / "b.csv", outside):
            assert connection.execute("select count(*) from read_csv(?)", [str(path)]).fetchall() == [(1,)]


def test_work_larger_than_memory_spills_and_the_spill_is_removed(tmp_path: Path) -> None:
    with connect(memory_limit="40MB", threads=1) as connection:
        folder = connection.sql("select current_setting('temp_directory')").fetchall()[0][0]
        query = "select count(*) from (select distinct md5(i::varchar) from range(600000) t(i))"
        assert connection.sql(query).fetchall() == [(600_000,)]
    assert not Path(folder).exists()


def test_a_zero_byte_file_counts_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    path.touch()
    with connect(path) as connection:
        connection.execute("create table t as select 1 as a")
    with connect(path, read_only=True) as connection:
        assert connection.sql("select a from t").fetchall() == [(1,)]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["w.duckdb"]


def test_a_read_only_connection_refuses_writes(tmp_path: Path) -> None:
    create_database(tmp_path / "w.duckdb")
    with connect(tmp_path / "w.duckdb", read_only=True) as connection, pytest.raises(duckdb.Error):
        connection.execute("create table t as select 1")


def test_reading_a_missing_database_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"TG0519.*no database"), connect(tmp_path / "absent.duckdb", read_only=True):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_is_refused(outside: Path) -> None:
    with pytest.raises(StorageError, match=r"TG0519.*not a DuckDB database"), connect(outside):
        pass


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "x" * 256])
def test_odd_identifiers_are_refused(name: str) -> None:
    with pytest.raises(SecurityError, match="TG0801"):
        quote_identifier(name)


def test_a_quoted_identifier_is_only_a_name() -> None:
    name = 'x"; drop table t; --'
    with connect() as connection:
        connection.execute(f"create table t as select 1 as {quote_identifier(name)}")
        assert connection.sql(f"select {quote_identifier(name)} from t").fetchall() == [(1,)]


def test_thirty_threads_read_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "desk.duckdb"
    with connect(path) as connection:
        connection.execute("create table t as select range as i from range(1000)")
    together = threading.Barrier(30)

    def read(number: int) -> list[tuple[int]]:
        together.wait(timeout=60)
        # Places and limits differ, as for a scrape and a query.
        with connect(path, read_only=True, readable=(tmp_path,), threads=1 + number % 2) as connection:
            return connection.sql("select count(*) from t").fetchall()

    with ThreadPoolExecutor(30) as pool:
        assert list(pool.map(read, range(30))) == [[(1000,)]] * 30


def test_a_writer_in_this_process_blocks_readers_only_while_it_writes(tmp_path: Path) -> None:
    path = tmp_path / "desk.duckdb"
    create_database(path)
    with connect(path) as writer:
        writer.execute("create table t as select 1 as a")
        with pytest.raises(LockedError, match="TG0520"), connect(path, read_only=True):
            pass
        with pytest.raises(LockedError, match="TG0520"), connect(path):
            pass
    with connect(path, read_only=True) as reader:
        assert reader.sql("select a from t").fetchall() == [(1,)]


def test_waiting_ends_when_the_holder_releases_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "desk.duckdb"
    create_database(path)
    with duckdb.connect(str(path)) as holder:
        threading.Timer(0.3, holder.close).start()
        with connect(path, wait_s=30) as connection:
            connection.execute("create table t as select 1 as a")


ENDLESS = "with recursive r as (select 1 as i union all select i + 1 from r) select count(*) from r"


def test_endless_sql_is_stopped_at_its_deadline() -> None:
    began = time.monotonic()
    with connect() as connection, pytest.raises(SecurityError, match=r"TG0837.*did not end within 0\.3 s"):
        in_bounds(connection, lambda: connection.sql(ENDLESS).fetchall(), where="--sql", timeout_s=0.3)
    assert time.monotonic() - began < 60  # generous for a busy machine; without the deadline the query never ends


@pytest.mark.parametrize("text", ["repeat('x', 2000000000)", "string_agg(repeat('x', 1000000), '')"])
def test_sql_that_builds_huge_texts_is_stopped_early(text: str) -> None:
    with connect(threads=1, memory_limit="256MB") as connection:
        with pytest.raises(SecurityError, match=r"TG0837.*memory"):
            in_bounds(
                connection, lambda: connection.sql(f"select {text} from range(100000)").to_arrow_table(),
                where="--sql", memory=1 << 29,
            )  # fmt: skip
        assert connection.sql("select 1").fetchall() == [(1,)]
