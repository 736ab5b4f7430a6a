"""A real Postgres as a source: pages by cursor and key, kills at every step, deletions found, nothing written."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from schemas.artifacts import TicketTable
from schemas.errors import ConfigError, DataError, SecurityError, ServiceError
from tasks.curate.rows import read_rows
from tasks.sources.landing import FILE
from tasks.sources.registry import check_source, ingest_source
from tests.support.ingest_process import Ingests
from tests.support.postgres import Postgres
from tests.support.synced import extract, fingerprint, folder_of, removed, sync, tickets
from tests.tasks.sources.test_postgres import VARIABLE, source

pytestmark = pytest.mark.server

PLACES = ("ingest.written", "ingest.fetched", "ingest.committed")
TABLE = (
    'CREATE TABLE "the % tickets" '
    "(id bigint PRIMARY KEY, body text, reply text, updated_at timestamptz, due date, amount numeric)"
)
FIRST = (
    "INSERT INTO \"the % tickets\" SELECT n, 'Question ' || n, 'Answer ' || n, "
    "timestamptz '2026-06-01' + (n / 4) * interval '1 second', 'infinity', n / 3.0 FROM generate_series(1, 25) n"
)


class Desk:
    """An empty database, and a connection that writes to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = psycopg2.connect(url)
        self.connection.autocommit = True

    def do(self, *statements: str) -> None:
        with self.connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


@pytest.fixture
def desk(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    desk = Desk(postgres.fresh())
    monkeypatch.setenv(VARIABLE, desk.url)
    desk.do(TABLE, FIRST)
    with closing(desk.connection):
        yield desk


def bodies(table: TicketTable) -> dict[str, str]:
    return {name: row["body"] for name, row in tickets(table).items()}


def change(desk: Desk) -> None:
    """Edit a text, delete a row, insert one late with an old time, and one without a cursor."""
    desk.do(
        "UPDATE \"the % tickets\" SET body = 'Edited', updated_at = now() WHERE id = 3",
        'DELETE FROM "the % tickets" WHERE id = 5',
        "INSERT INTO \"the % tickets\" VALUES (0, 'Late', 'Answer', '2026-05-01'), (99, 'Nowhere', '', NULL)",
    )


def test_every_row_is_ingested_once_although_many_share_a_time(desk: Desk, tmp_path: Path) -> None:
    table = sync(source(page_size=3), tmp_path)
    assert bodies(table) == {str(n): f"Question {n}" for n in range(1, 26)}
    assert table.rows.n_in == table.rows.n_out == 25
    same = fingerprint(source(page_size=3), tmp_path)
    sync(source(page_size=3), tmp_path)
    assert fingerprint(source(page_size=3), tmp_path) == same


DEEP = "(repeat('[', 2000) || repeat(']', 2000))::jsonb"


@pytest.mark.parametrize("value", [DEEP, "(repeat('9', 5000))::jsonb", "'[100000000000000000000]'::jsonb"])
def test_a_row_that_cannot_be_stored_is_quarantined_until_it_is_corrected(
    desk: Desk, tmp_path: Path, value: str
) -> None:
    """Fields of a help desk contain what its customers write."""
    desk.do('ALTER TABLE "the % tickets" ADD extra jsonb', 'UPDATE "the % tickets" SET extra = \'{"a": [1]}\'')
    desk.do(f'UPDATE "the % tickets" SET extra = {value}, updated_at = now() WHERE id = 7')
    for _ in range(2):
        table = sync(source(), tmp_path)
        assert bodies(table) == {str(n): f"Question {n}" for n in range(1, 26) if n != 7}
        assert removed(table) == {"7": "TG0246"}
    desk.do('UPDATE "the % tickets" SET extra = NULL, updated_at = now() WHERE id = 7')
    assert len(bodies(sync(source(), tmp_path))) == 25


def test_edits_deletions_late_rows_and_rows_without_a_cursor_are_found(desk: Desk, tmp_path: Path) -> None:
    sync(source(), tmp_path)
    change(desk)
    table = sync(source(), tmp_path)
    found = bodies(table)
    assert (found["3"], found["0"], len(found)) == ("Edited", "Late", 25)
    assert removed(table) == {"5": "deleted_upstream", None: "TG0246"}
    assert (table.rows.n_in, table.rows.n_out, table.rows.n_quarantined, table.rows.n_dropped) == (27, 25, 1, 1)
    content = (folder_of(source(), tmp_path) / FILE).read_bytes()
    assert b"Question 4" in content
    assert b"Question 5" not in content
    assert b'"Question 3"' not in content
    desk.do("INSERT INTO \"the % tickets\" VALUES (5, 'Back', 'Answer', '2026-05-01')")
    assert bodies(sync(source(), tmp_path))["5"] == "Back"


def test_killed_at_every_step_no_row_is_lost_or_doubled(desk: Desk, process: Ingests, tmp_path: Path) -> None:
    """Ingest three pages of rows with a kill after each; then edits, deletions and late rows with a kill before, during
    and after each write, until a sync has no such step left."""
    spec, killed = source(), tmp_path / "killed"
    for _ in range(4):  # the identity of the database, and three pages
        assert not process.ingest(spec, killed, "ingest.committed")
    for is_changed in (False, True):
        if is_changed:
            change(desk)
        whole = sync(spec, tmp_path / "whole")
        for count in itertools.count(1) if is_changed else ():
            ends = [process.ingest(spec, killed, f"{place}:{count}") for place in PLACES]
            if all(ends):
                assert count > 3
                break
        for place in ("ingest.finished", ""):
            assert process.ingest(spec, killed, place) is (place == "")
        table = extract(spec, killed)
        assert (table.rows, bodies(table)) == (whole.rows, bodies(whole))


def test_a_row_written_before_a_sync_and_committed_after_it_is_not_lost(desk: Desk, tmp_path: Path) -> None:
    spec = source(deletions="ignore")
    with closing(psycopg2.connect(desk.url)) as slow, slow.cursor() as cursor:
        cursor.execute("UPDATE \"the % tickets\" SET body = 'Slow', updated_at = now() WHERE id = 7")
        desk.do("UPDATE \"the % tickets\" SET body = 'Quick', updated_at = now() WHERE id = 8")
        assert bodies(sync(spec, tmp_path))["7"] == "Question 7"
        slow.commit()
    found = bodies(sync(spec, tmp_path))
    assert (found["7"], found["8"]) == ("Slow", "Quick")


def test_rows_written_during_a_sync_never_tear_it(desk: Desk, tmp_path: Path) -> None:
    """Both columns of a row are always written together, while the sync reads pages of one snapshot."""
    stop = threading.Event()

    def write() -> None:
        with closing(psycopg2.connect(desk.url)) as connection:
            connection.autocommit = True
            number = 0
            while not stop.wait(0.001):
                number += 1
                connection.cursor().execute(
                    'UPDATE "the %% tickets" SET body = %s, reply = %s, updated_at = now() WHERE id = %s',
                    (f"w{number}", f"w{number}", 1 + number % 25),
                )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(2):
            sync(source(page_size=4), tmp_path)
    finally:
        stop.set()
        writer.join()
    table = sync(source(page_size=4), tmp_path)
    rows = read_rows(table.tickets).to_pylist()
    with desk.connection.cursor() as cursor:
        cursor.execute('SELECT id::text, body, reply FROM "the % tickets" ORDER BY id')
        assert sorted((row["ticket_id"], row["body"], row["reply"]) for row in rows) == sorted(cursor.fetchall())


@pytest.mark.parametrize(
    ("query", "kind", "message"),
    [
        ("delete from t", SecurityError, "TG0811"),
        ("select 1 as id, now() as updated_at; drop table t", SecurityError, "TG0811"),
        ("with gone as (delete from t returning *) select * from gone", SecurityError, "TG0811"),
        ("select * into t from pg_class", SecurityError, "TG0811"),
        ("select (", ConfigError, "TG0125"),
        ("select * from nowhere", ConfigError, "TG0130"),
        ("select 1 as id", ConfigError, "TG0130.*no column updated_at; columns are: id"),
        ("select 1 as id, now() as updated_at union all select 1, now()", ConfigError, "TG0130.*it is not a key"),
        ("select 1/0 as id, now() as updated_at", DataError, "TG0209"),
        ("select 1 as id, now() as updated_at from pg_sleep(5)", DataError, "TG0209.*longer than 1 s"),
        ("select nextval('numbers') as id, now() as updated_at", DataError, "TG0209.*read-only"),
    ],
)  # fmt: skip
def test_an_unreadable_source_is_refused_with_a_reason(
    desk: Desk, tmp_path: Path, query: str, kind: type[Exception], message: str
) -> None:
    desk.do("CREATE SEQUENCE numbers")
    with pytest.raises(kind, match=message):
        ingest_source(source(query=query, statement_timeout_s=1), root=tmp_path, landed=tmp_path / "landed")


def test_a_query_with_percent_signs_and_a_number_as_cursor(desk: Desk, tmp_path: Path) -> None:
    query = "SELECT *, '50%' AS share FROM \"the % tickets\" WHERE body LIKE 'Question 2%';"
    spec = source(query=query, cursor="id", page_size=3)
    assert set(bodies(sync(spec, tmp_path))) == {"2", "20", "21", "22", "23", "24", "25"}
    desk.do("INSERT INTO \"the % tickets\" VALUES (29, 'Question 29', 'Answer', now())")
    assert "29" in bodies(sync(spec, tmp_path))


def test_another_database_in_the_same_variable_starts_over(
    desk: Desk, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(source(), tmp_path)
    other = Desk(postgres.fresh())
    with closing(other.connection):
        other.do(TABLE, "INSERT INTO \"the % tickets\" VALUES (1, 'Elsewhere', 'Answer', now())")
    monkeypatch.setenv(VARIABLE, other.url)
    assert bodies(sync(source(), tmp_path)) == {"1": "Elsewhere"}


def test_errors_of_a_refused_login_and_a_lost_server_contain_no_password(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.do("DROP ROLE IF EXISTS nobody_here")
    for url, message in (
        (desk.url.replace("tunegate@", "nobody_here:hunter2@"), "TG0707|TG0709"),
        ("postgresql://tunegate:hunter2@127.0.0.1:1/nowhere", "TG0709"),
    ):
        monkeypatch.setenv(VARIABLE, url)
        with pytest.raises(ServiceError, match=message) as raised:
            ingest_source(source(), root=tmp_path, landed=tmp_path / "landed")
        assert "hunter2" not in str(raised.value)
    monkeypatch.setenv(VARIABLE, "not an address with hunter2")
    with pytest.raises(ConfigError, match="TG0103") as refused:
        check_source(source())
    assert "hunter2" not in str(refused.value)
