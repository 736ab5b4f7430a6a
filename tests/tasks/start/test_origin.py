"""What `init` reads in a database: a table or a join where it is certain, and otherwise only a list of tables."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from schemas.errors import ConfigError, DataError
from schemas.load import load_file
from schemas.source import SQLiteSource
from tasks.start import origin
from tasks.start.origin import TableChoice
from tasks.start.pipeline_yaml import write_pipeline
from tasks.start.propose import Proposal, propose_pipeline
from tests.support.desk_tables import desk_rows, first_texts, write_duckdb, write_sqlite
from tests.support.synced import extract, tickets

ROLES = {
    "ticket_id": "ticket_id", "customer_id": "customer_id", "created_at": "created_at", "subject": "subject",
    "body": "body", "reply": "reply", "category": "queue",
}  # fmt: skip


def proposed(path: Path, *, table: str | None = None, query: str | None = None) -> Proposal:
    return propose_pipeline(path, name=None, root=path.parent, choice=TableChoice(table, query))


def columns(proposal: Proposal) -> dict[str, str]:
    return {str(role.column): role.name for role in proposal.roles.found}


def read_by_a_run(proposal: Proposal, folder: Path) -> dict[str, dict[str, object]]:
    """The tickets that a run reads from the source as the proposed file declares it."""
    (folder / "pipelines.yaml").write_text(write_pipeline(proposal))
    return tickets(extract(load_file(folder / "pipelines.yaml").get(proposal.name).source, folder))


@pytest.mark.parametrize("key", ["PRIMARY KEY", ""], ids=["declared", "by its values"])
@pytest.mark.parametrize("write", [write_duckdb, write_sqlite])
def test_tables_of_a_desk_are_joined_by_their_keys(write: Callable[..., Path], key: str, tmp_path: Path) -> None:
    rows = desk_rows(80)
    proposal = proposed(write(tmp_path / "desk.db", rows, key=key))
    assert columns(proposal) == ROLES
    assert (proposal.name, proposal.profile.n_rows) == ("desk", 80)
    evidence = "\n".join(proposal.origin.evidence)
    assert "messages.ticket_id is tickets.id: unique in 80 rows, which have all 80 values looked up" in evidence
    assert "not read: rows of messages with internal" in evidence
    assert "messages, 260 rows: id, ticket_id, author, internal, body, created_at" in evidence
    found = read_by_a_run(proposal, tmp_path)
    assert {ticket: (row["body"], row["reply"]) for ticket, row in found.items()} == first_texts(rows)
    assert {row["category"] for row in found.values()} == {"billing", "repairs", "delivery"}
    text = (tmp_path / "pipelines.yaml").read_text()
    assert "Note" not in text
    assert '"name" AS "queue"' in text
    assert "email" not in text.partition("query:")[2].partition("shape:")[0]  # nor the names of people


def test_the_one_table_with_rows_and_a_named_one_need_no_join(tmp_path: Path) -> None:
    path = tmp_path / "desk.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE empty (id INTEGER)")
        connection.execute('CREATE TABLE "odd\nname" (id INTEGER)')  # left out: no query could show it
        connection.execute('INSERT INTO "odd\nname" VALUES (1)')
        connection.execute("CREATE TABLE rückfragen (nr INTEGER, frage TEXT, antwort TEXT, abteilung TEXT, datum TEXT)")
        connection.executemany(
            "INSERT INTO rückfragen VALUES (?, ?, ?, ?, ?)",
            [
                (
                    n,
                    f"Wo ist mein Paket Nummer {n}?",
                    f"Paket {n} ist unterwegs.",
                    ("A", "B")[n % 2],
                    f"{1 + n % 28}.10.2026",
                )
                for n in range(60)
            ],
        )
    proposal = proposed(path)
    assert proposal.origin.settings == {"kind": "sqlite", "database": "desk.sqlite", "table": "rückfragen"}
    assert columns(proposal) | {"ticket_id": ""} == {
        "ticket_id": "", "body": "frage", "reply": "antwort", "category": "abteilung", "created_at": "datum",
    }  # fmt: skip
    found = read_by_a_run(proposal, tmp_path)
    assert len(found) == 60
    assert all(row["created_at"] for row in found.values())  # by the proposed `time_format`
    named = proposed(path, table="rückfragen")
    assert (named.origin.settings, named.name) == (proposal.origin.settings, "desk-ruckfragen")
    query = "SELECT nr AS ticket_id, frage AS body, antwort AS reply FROM rückfragen WHERE nr < 50;"
    chosen = proposed(path, query=query)
    assert chosen.profile.n_rows == 50
    assert isinstance(chosen.origin.source, SQLiteSource)
    assert len(read_by_a_run(chosen, tmp_path)) == 50


def test_tables_of_which_none_is_certain_are_listed_with_rows_and_columns(tmp_path: Path) -> None:
    path = tmp_path / "two.duckdb"
    with duckdb.connect(str(path)) as connection:
        for name in ("north", "south"):
            connection.execute(
                f"CREATE TABLE {name} AS SELECT n AS id, 'Where is parcel ' || n || '?' AS question, "
                "'It is on its way, ' || n AS answer FROM range(100) t(n)"
            )
    with pytest.raises(ConfigError, match="TG0167") as caught:
        proposed(path)
    assert "2 tables look like tickets" in caught.value.message
    assert "\n  north, 100 rows: id, question, answer\n  south, 100 rows" in caught.value.message
    assert "--table north" in str(caught.value.hint)
    assert proposed(path, table="south").name == "two-south"
    with pytest.raises(ConfigError, match=r"TG0130.*no table 'suoth'; tables are: north, south"):
        proposed(path, table="suoth")


def test_without_a_column_that_says_who_wrote_no_join_is_certain(tmp_path: Path) -> None:
    rows = desk_rows(80)
    rows["messages"] = [(*row[:2], f"Person {row[0]}", *row[3:]) for row in rows["messages"]]
    with pytest.raises(ConfigError, match=r"TG0167.*no table, and no join by keys, is certain"):
        proposed(write_sqlite(tmp_path / "desk.db", rows))


@pytest.mark.needs_extra("postgres")
def test_what_is_no_database_or_holds_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text\n1,a\n")
    with pytest.raises(ConfigError, match=r"TG0130.*is no database, so --table and --sql choose nothing"):
        proposed(tmp_path / "t.csv", table="t")
    with closing(sqlite3.connect(tmp_path / "t.sqlite")) as connection:
        connection.execute("CREATE TABLE t (id INTEGER)")
    with pytest.raises(DataError, match=r"TG0221.*no table of the database has rows"):
        proposed(tmp_path / "t.sqlite")
    with pytest.raises(ConfigError, match="TG0130") as caught:
        proposed(Path("postgresql://desk:hunter2@localhost/desk"))
    assert "hunter2" not in str(caught.value)
    assert "--from env:HELPDESK_DSN" in str(caught.value)
    with pytest.raises(ConfigError, match=r"TG0130.*is no name of a variable"):
        proposed(Path("env:my desk"))
    with pytest.raises(ConfigError, match="TG0106"):
        proposed(Path("env:TUNEGATE_NOWHERE_DSN"))


def test_a_ticket_with_a_text_of_its_own_is_joined_with_the_first_answer_of_another_author(tmp_path: Path) -> None:
    """As a help desk is loaded by connectors: ids of authors, public and private comments, and labels in a table."""
    path = tmp_path / "loaded.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            """
            CREATE SCHEMA desk;
            CREATE TABLE desk.ticket AS SELECT 1000 + n AS id, 1 + n % 30 AS requester_id, 'Case ' || n AS subject,
              'Where is parcel ' || n || ' of ' || md5('w' || n) || '?' AS description,
              TIMESTAMP '2026-01-01' + n * INTERVAL 1 HOUR AS created_at FROM range(90) t(n);
            CREATE TABLE desk.person AS SELECT n AS id, 'Person ' || n AS name FROM range(1, 50) t(n);
            CREATE TABLE desk.label AS SELECT 1000 + n AS ticket_id, ['billing', 'repairs'][1 + n % 2] AS label
              FROM range(90) t(n);
            CREATE TABLE desk.ticket_comment AS SELECT 10 * n + k AS id, 1000 + n AS ticket_id,
              ['Where is parcel ' || n || '?', 'Note: ' || n, 'Parcel ' || n || ' is on its way.', 'Thanks ' || n][k]
              AS body,
              [1 + n % 30, 40, 41 + n % 5, 1 + n % 30][k] AS author_id, k <> 2 AS public,
              TIMESTAMP '2026-01-01' + n * INTERVAL 1 HOUR + k * INTERVAL 1 MINUTE AS created
              FROM range(90) t(n), range(1, 5) s(k);
            """
        )
    proposal = proposed(path)
    assert columns(proposal) == {
        "ticket_id": "ticket_id", "customer_id": "requester_id", "created_at": "created_at", "subject": "subject",
        "body": "description", "reply": "reply", "category": "label",
    }  # fmt: skip
    evidence = "\n".join(proposal.origin.evidence)
    assert "in 90 of 90 tickets author_id of the first message is requester_id" in evidence
    assert "not read: rows of desk.ticket_comment with public FALSE" in evidence
    found = read_by_a_run(proposal, tmp_path)
    assert {row["reply"] for row in found.values()} == {f"Parcel {n} is on its way." for n in range(90)}


def test_ids_that_are_texts_are_joined_by_their_values_alone(tmp_path: Path) -> None:
    """As dlt loads a list inside of tickets."""
    path = tmp_path / "dlt.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            """
            CREATE TABLE tickets AS SELECT n AS id, 'Where is parcel ' || n || ' of ' || md5('w' || n) || '?' AS body,
              'x' || substr(md5('d' || n), 1, 13) AS _dlt_id, TIMESTAMP '2026-01-01' + n * INTERVAL 1 HOUR AS created_at
              FROM range(60) t(n);
            CREATE TABLE tickets__conversations AS SELECT k = 2 AS private, k = 1 AS incoming,
              'Message ' || n || ' ' || k AS body_text, 'x' || substr(md5('c' || n || k), 1, 13) AS _dlt_id,
              TIMESTAMP '2026-01-01' + n * INTERVAL 1 HOUR + k * INTERVAL 1 MINUTE AS created_at,
              'x' || substr(md5('d' || n), 1, 13) AS _dlt_parent_id FROM range(60) t(n), range(1, 4) s(k);
            """
        )
    found = read_by_a_run(proposed(path), tmp_path)
    assert {row["reply"] for row in found.values()} == {f"Message {n} 3" for n in range(60)}


def test_internal_notes_are_left_out_wherever_they_are_and_if_that_is_uncertain_nothing_is_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "_SAMPLE_ROWS", 30)
    rows = desk_rows(80)
    rows["messages"] = [row for row in rows["messages"] if row[1] > 60 or not row[3]]  # none among the first rows
    found = read_by_a_run(proposed(write_sqlite(tmp_path / "desk.db", rows)), tmp_path)
    assert {ticket: (row["body"], row["reply"]) for ticket, row in found.items()} == first_texts(rows)
    rows["messages"] = [(*row[:3], "secret" if row[3] else "open", *row[4:]) for row in rows["messages"]]
    with pytest.raises(ConfigError, match="TG0167"):
        proposed(write_sqlite(tmp_path / "other.db", rows))
