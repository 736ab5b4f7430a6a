"""A real Postgres: tables joined by their keys, with a key and a cursor by which a run finds what changes later."""

from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from schemas.errors import ConfigError, ServiceError
from schemas.load import load_file
from tasks.start.origin import TableChoice
from tasks.start.pipeline_yaml import write_pipeline
from tasks.start.propose import Proposal, propose_pipeline
from tests.support.desk_tables import desk_rows, first_texts, write_postgres
from tests.support.postgres import Postgres
from tests.support.synced import sync, tickets
from tests.tasks.start.test_origin import ROLES, columns

pytestmark = pytest.mark.server

VARIABLE = "HELPDESK_DSN"


def proposed(folder: Path, **choice: str) -> Proposal:
    return propose_pipeline(Path(f"env:{VARIABLE}"), name=None, root=folder, choice=TableChoice(**choice))


def test_tables_of_a_desk_are_joined_and_a_later_reply_is_found(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, rows = postgres.fresh(), desk_rows(80)
    later = [row for row in rows["messages"] if row[1] == 7 and row[2] == "agent" and "part 7" in row[4]]
    write_postgres(url, {**rows, "messages": [row for row in rows["messages"] if row[1] != 7 or row[2] == "customer"]})
    monkeypatch.setenv(VARIABLE, url)
    proposal = proposed(tmp_path)
    assert columns(proposal) == ROLES
    assert (proposal.name, proposal.profile.n_rows) == ("tickets", 80)
    assert (proposal.origin.settings["key"], proposal.origin.settings["cursor"]) == (["ticket_id"], "changed_at")
    text = write_pipeline(proposal)
    assert "dsn: ${env:HELPDESK_DSN}" in text
    assert url not in text
    (tmp_path / "pipelines.yaml").write_text(text)
    source = load_file(tmp_path / "pipelines.yaml").get("tickets").source
    expected = first_texts(rows)
    found = tickets(sync(source, tmp_path))
    assert found["7"]["reply"] is None
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        for row in later:
            if row[2] == "agent":
                cursor.execute("INSERT INTO messages VALUES (%s, %s, %s, %s, %s, %s)", (*row[:-1], "2026-12-01"))
    found = tickets(sync(source, tmp_path))
    assert {ticket: (row["body"], row["reply"]) for ticket, row in found.items()} == expected


def test_a_table_or_query_is_followed_by_its_key_and_its_last_change(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.fresh()
    monkeypatch.setenv(VARIABLE, url)
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE SCHEMA desk; CREATE TABLE nothing (id int); "
            "CREATE TABLE desk.cases AS SELECT n AS case_id, n AS id, 'Where is parcel ' || n AS body, "
            "'It comes, ' || n AS reply, now() - n * interval '1 day' AS created, now() AS modified_at "
            "FROM generate_series(1, 60) n; ALTER TABLE desk.cases ADD PRIMARY KEY (case_id)"
        )
    proposal = proposed(tmp_path)
    wanted = {"table": "desk.cases", "key": ["case_id"], "cursor": "modified_at"}
    assert {name: proposal.origin.settings.get(name) for name in wanted} == wanted
    query = "SELECT id AS ticket_id, body, reply FROM desk.cases WHERE body LIKE 'Where is%' AND id <= 50;"
    chosen = proposed(tmp_path, query=query)
    assert (chosen.origin.settings["key"], chosen.origin.settings["cursor"]) == (["ticket_id"], "ticket_id")
    assert chosen.profile.n_rows == 50
    with pytest.raises(ConfigError, match=r"TG0167.*no unique id.*columns are: body, reply, created"):
        proposed(tmp_path, query="SELECT body, reply, created FROM desk.cases")
    monkeypatch.setenv(VARIABLE, "postgresql://desk:hunter2@127.0.0.1:1/nowhere")
    with pytest.raises(ServiceError, match="TG0709") as caught:
        proposed(tmp_path)
    assert "hunter2" not in str(caught.value)
