"""A SQLite file as a source: its rows as they are, one SELECT over it and nothing else, and no write."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ConfigError, DataError, SecurityError
from schemas.source import SQLiteSource
from tasks.sources import sqlite_file
from tasks.sources.registry import fingerprint_source
from tests.support.synced import extract, removed, tickets


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "desk.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE tickets (ticket_id INTEGER PRIMARY KEY, body TEXT, reply TEXT, created_at)")
        connection.executemany(
            "INSERT INTO tickets VALUES (?, ?, ?, ?)",
            [(n, f"Frage {n}?", f"Antwort {n}.", f"{n}.11.2026") for n in range(1, 6)],
        )
    return path


def source(**options: Any) -> SQLiteSource:
    form = {"time_format": "%d.%m.%Y"}
    declared = {
        "kind": "sqlite",
        "database": "desk.sqlite",
        **form,
        **({} if "query" in options else {"table": "tickets"}),
    }
    return SQLiteSource.model_validate({**declared, **options})


def test_rows_are_read_in_place_and_nothing_is_written(database: Path, tmp_path: Path) -> None:
    before = database.read_bytes()
    found = tickets(extract(source(), tmp_path))
    assert {ticket: row["body"] for ticket, row in found.items()} == {str(n): f"Frage {n}?" for n in range(1, 6)}
    assert found["3"]["created_at"].day == 3
    query = (
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT tickets.* FROM tickets, r "
    )
    assert set(tickets(extract(source(query=f"{query} WHERE ticket_id = r.n"), tmp_path))) == {"1", "2", "3"}
    assert database.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("desk")] == ["desk.sqlite"]


def test_what_a_writer_has_not_merged_yet_is_read_and_counts_in_the_digest(database: Path, tmp_path: Path) -> None:
    before = fingerprint_source(source(), root=tmp_path)
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        with writer:
            writer.execute("INSERT INTO tickets VALUES (6, 'Frage 6?', 'Antwort 6.', '')")
        assert fingerprint_source(source(), root=tmp_path) != before
        assert "6" in tickets(extract(source(), tmp_path))


def test_a_text_that_is_not_utf8_is_quarantined(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE tickets SET body = CAST(x'ff41' AS TEXT) WHERE ticket_id = 2")
    table = extract(source(), tmp_path)
    assert set(tickets(table)) == {"1", "3", "4", "5"}
    assert list(removed(table).values()) == ["TG0241"]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"query": "DELETE FROM tickets"}, SecurityError, "TG0811"),
        ({"query": "SELECT 1; SELECT 2"}, SecurityError, "TG0811"),
        ({"query": "ATTACH 'other.sqlite' AS other"}, SecurityError, "TG0811"),
        ({"query": "PRAGMA journal_mode = WAL"}, SecurityError, "TG0811"),
        ({"query": "VACUUM INTO 'copy.sqlite'"}, SecurityError, "TG0811"),
        ({"query": ""}, SecurityError, "TG0811"),
        ({"query": "SELECT ("}, ConfigError, "TG0125"),
        ({"query": "SELECT nowhere FROM tickets"}, DataError, "TG0209.*no such column"),
        ({"query": "SELECT body, body FROM tickets"}, DataError, "TG0204"),
        ({"table": "tickts"}, ConfigError, "TG0130.*tables are: tickets"),
        ({"database": "nowhere.sqlite"}, DataError, "TG0201"),
        ({"database": "t.csv"}, DataError, "TG0202.*not a SQLite database"),
    ],
)  # fmt: skip
def test_an_unreadable_source_is_refused_with_a_reason(
    database: Path, tmp_path: Path, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    (tmp_path / "t.csv").write_text("id,body\n1,a\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(kind, match=message):
        extract(source(**options), tmp_path, out=tmp_path)
    assert set(before) <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "copy.sqlite").exists()


def test_a_query_that_does_not_end_is_stopped(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "STEP_TIMEOUT_S", 0.05)
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) AS body FROM r"
    with pytest.raises(SecurityError, match="TG0837"):
        extract(source(query=endless), tmp_path)


def test_a_damaged_file_says_so(database: Path, tmp_path: Path) -> None:
    data = bytearray(database.read_bytes())
    data[100:] = b"\xff" * (len(data) - 100)
    database.write_bytes(bytes(data))
    with pytest.raises(DataError, match="TG0202"):
        extract(source(), tmp_path)
