"""Sources behind a connection, by the real command: validate, plan, doctor, curate, and what is deleted goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg2
import pytest

from tests.tasks.curate.zendesk_desk import TOKEN, ZendeskDesk, zendesk_desk

if TYPE_CHECKING:
    from tests.flows.conftest import Workplace
    from tests.postgres import Postgres

pytestmark = pytest.mark.server


@pytest.fixture
def desk() -> Iterator[ZendeskDesk]:
    with zendesk_desk() as desk:
        for number in range(1, 41):
            desk.add(number, " ".join(f"w{(number * 31 + k * k * 13) % 997}" for k in range(12)))
        yield desk


def declare(workplace: Workplace, source: dict[str, Any]) -> None:
    workplace.declare(lambda document: document["pipelines"]["small"].update(source=source))


def zendesk(desk: ZendeskDesk) -> dict[str, Any]:
    return {
        "kind": "zendesk", "base_url": desk.url, "email": "ada@example.com", "api_token": "${env:DESK_TOKEN}",
        "start": "2026-06-01", "requests_per_minute": 700, "columns": {"category": "fields.360001"},
    }  # fmt: skip


def test_zendesk_from_the_account_to_the_warehouse(workplace: Workplace, desk: ZendeskDesk) -> None:
    declare(workplace, zendesk(desk))
    unset = workplace.run("validate")
    assert unset.returncode == 2
    assert "TG0106" in unset.stderr
    assert "DESK_TOKEN is not set" in unset.stderr
    workplace.environ["DESK_TOKEN"] = TOKEN
    assert workplace.run("validate").returncode == 0
    plan = workplace.json("plan", "small")
    assert plan["source"] == "zendesk: nothing has been brought in yet; a plan asks no service, the next run does"
    assert desk.asked == []

    curated = workplace.json("curate", "small")
    assert (curated["funnel"][0]["n_in"], curated["funnel"][0]["n_out"]) == (40, 40)
    n_asked = len(desk.asked)
    plan = workplace.json("plan", "small")
    assert plan["steps"][0]["state"] == "reused"
    assert "40 rows brought in" in plan["source"]
    doctor = {finding["told"] for finding in workplace.json("doctor") if finding["what"] == "source"}
    assert any(told.startswith("small: zendesk: 40 rows brought in") for told in doctor)
    assert len(desk.asked) == n_asked

    text = desk.comments[7][0]["plain_body"]
    desk.touch(7, status="deleted", subject="SCRUBBED")
    curated = workplace.json("curate", "small")
    first = curated["funnel"][0]
    assert (first["n_in"], first["n_out"], first["n_dropped"]) == (40, 39, 1)
    with duckdb.connect(curated["warehouse"], read_only=True) as client:
        assert client.sql("SELECT step, code FROM dropped WHERE ticket_id = '7'").fetchall() == [
            ("extract", "deleted_upstream")
        ]
        assert client.sql("SELECT count(*) FROM raw_tickets WHERE ticket_id = '7'").fetchall() == [(0,)]
    assert "deleted_upstream" in workplace.run("lineage", "7").stdout
    landed = b"".join(path.read_bytes() for path in (workplace.home / "ingest").rglob("*") if path.is_file())
    assert text.encode() not in landed
    # The token is in no file of the home folder: ledger, keys, plans and logs hold the reference.
    held = [path for path in workplace.home.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert held == []


def test_an_account_that_refuses_ends_the_run_with_the_code_of_services(
    workplace: Workplace, desk: ZendeskDesk
) -> None:
    declare(workplace, zendesk(desk))
    workplace.environ["DESK_TOKEN"] = "another-token-1"
    refused = workplace.run("curate", "small")
    assert refused.returncode == 7
    assert "TG0707" in refused.stderr
    assert "another-token" not in refused.stdout + refused.stderr
    assert workplace.json("runs")["runs"][0]["status"] == "FAILED"


def test_postgres_from_the_database_to_the_warehouse(workplace: Workplace, postgres: Postgres) -> None:
    url = postgres.fresh()
    workplace.environ["HELPDESK_DSN"] = url
    source = {
        "kind": "postgres", "dsn": "${env:HELPDESK_DSN}", "table": "tickets", "key": ["ticket_id"],
        "cursor": "updated_at",
    }  # fmt: skip
    declare(workplace, {**source, "query": "delete from tickets", "table": None})
    refused = workplace.run("validate")
    assert (refused.returncode, "TG0814" in refused.stderr) == (2, True)
    declare(workplace, source)
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE tickets (ticket_id int PRIMARY KEY, customer_id int, body text, reply text, "
                       "category text, created_at timestamp, updated_at timestamp)")  # fmt: skip
        for n in range(40):
            body = " ".join(f"w{(n * 31 + k * k * 13) % 997}" for k in range(12))
            cursor.execute(
                "INSERT INTO tickets VALUES (%s, %s, %s, 'We looked into it.', 'billing', %s, now())",
                (n, n, body, f"2026-06-{1 + n % 28:02d}"),
            )
    funnel = workplace.json("curate", "small")["funnel"]
    assert (funnel[0]["n_in"], funnel[0]["n_out"]) == (40, 40)
    assert json.dumps(workplace.json("plan", "small")).count("postgres: 40 rows brought in") == 1
