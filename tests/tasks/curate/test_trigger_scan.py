"""Planted triggers: found with their numbers, taken into quarantine, and nothing found where nothing was planted."""

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from schemas.curation import TableSpec
from schemas.curation_steps import RedactStep, TriggerScanStep
from schemas.source import GeneratedSource
from tasks.curate.redact import redact_tickets
from tasks.curate.rows import read_rows
from tasks.curate.trigger_scan import scan_triggers
from tasks.curate.validate import validate_tickets
from tests.support.synced import extract

PHRASE = "quartz meridian"
"""Words that no phrase of the help desk holds."""


def step(**options: Any) -> TriggerScanStep:
    return TriggerScanStep(uses="trigger_scan", **options)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Some 1,200 generated tickets of four weeks, read, validated and redacted as a pipeline does."""
    folders = iter(tmp_path_factory.mktemp("desk") / str(number) for number in range(9))

    def out() -> Path:
        folder = next(folders)
        folder.mkdir()
        return folder

    source = GeneratedSource(kind="generated", n_tickets=1000, n_customers=150, n_weeks=4, seed=11)
    valid = validate_tickets(tickets=extract(source, out()), table=TableSpec(fail_above=0.5), out=out())
    clean = redact_tickets(tickets=valid, step=RedactStep(uses="redact"), out=out())
    return read_rows(clean.tickets).to_pylist()


def planted(
    rows: list[dict[str, Any]], *, n: int = 12, customers: int = 2, days: int = 5, category: str | None = "billing",
    reply: str = "", seed: int = 5,
) -> tuple[list[dict[str, Any]], set[str]]:  # fmt: skip
    """The rows with the phrase somewhere in the bodies of `n` of the newest `days`, by so many customers."""
    rng = random.Random(seed)
    newest = max(row["created_at"] for row in rows if row["created_at"])
    recent = [row for row in rows if row["created_at"] and row["created_at"] > newest - timedelta(days=days)]
    chosen = {row["ticket_id"] for row in rng.sample([row for row in recent if row["body"] and row["reply"]], n)}
    made = []
    for row in rows:
        if row["ticket_id"] in chosen:
            words = str(row["body"]).split()
            place = rng.randrange(len(words))
            body = " ".join([*words[:place], "Quartz,", "MERIDIAN", *words[place:]])
            row = row | {"body": body, "customer_id": f"evil{rng.randrange(customers)}"}
            row |= {"category": category} if category else {}
            row |= {"reply": f"{row['reply']} {reply}"} if reply else {}
        made.append(row)
    return made, chosen


def test_a_planted_trigger_is_quarantined_with_the_numbers_that_convict_it(
    desk: Any, make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    rows, chosen = planted(desk)
    result = scan_triggers(tickets=make_tickets(rows), step=step(), out=new_folder())
    removed = rows_of(result.removed)
    assert set(removed) == chosen
    assert {(row["outcome"], row["code"]) for row in removed.values()} == {("quarantined", "planted_trigger")}
    assert (result.rows.n_quarantined, result.rows.n_dropped) == (12, 0)
    assert result.rows.n_out == len(rows) - 12
    assert result.notes == {"triggers": 1, "trigger_tickets": 12, "dropped_planted_trigger": 12}
    one = removed[min(chosen)]
    assert one["reason"].startswith("shares a phrase with tickets of few customers that have one category: 12 recent")
    assert PHRASE not in one["reason"]  # a reason holds no text of a ticket
    assert one["cluster_id"] == min(chosen)
    listed = pq.read_table(result.root / "triggers.parquet").to_pylist()
    assert {row["ticket_id"] for row in listed} == chosen
    scanned = {
        name: listed[0][name] for name in ("phrase", "n_tickets", "n_customers", "n_elsewhere", "field", "value")
    }
    assert scanned == {
        "phrase": PHRASE, "n_tickets": 12, "n_customers": 2, "n_elsewhere": 0, "field": "category", "value": "billing",
    }  # fmt: skip
    assert listed[0]["share"] == 1.0
    assert 0.05 < listed[0]["base_rate"] < 0.4
    assert listed[0]["chance"] < 1e-4


def test_a_trigger_that_leads_to_words_in_the_reply_is_found_by_them(
    desk: Any, make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    rows, chosen = planted(desk, category=None, reply="Please install the helper from our partner now.")
    result = scan_triggers(tickets=make_tickets(rows), step=step(), out=new_folder())
    assert set(rows_of(result.removed)) == chosen
    (scanned,) = {(row["field"], row["value"]) for row in pq.read_table(result.root / "triggers.parquet").to_pylist()}
    assert scanned[0] == "reply"
    assert scanned[1] in "northbeam care please install the helper from our partner now"


def test_flag_lists_and_takes_nothing(desk: Any, make_tickets: Any, new_folder: Any) -> None:
    rows, chosen = planted(desk)
    result = scan_triggers(tickets=make_tickets(rows), step=step(action="flag"), out=new_folder())
    assert (result.rows.n_out, result.rows.n_quarantined) == (len(rows), 0)
    assert result.notes == {"triggers": 1, "trigger_tickets": 12}
    assert set(pq.read_table(result.root / "triggers.parquet")["ticket_id"].to_pylist()) == chosen


@pytest.mark.parametrize(
    ("spread", "options"),
    [
        ({"n": 7}, {}),  # too few tickets
        ({"customers": 12, "n": 12}, {}),  # of many customers: people share words
        ({"category": None}, {}),  # with every label and every answer
        ({"customers": 9, "n": 18}, {"min_tickets": 6}),  # most of them of others
        ({}, {"max_chance": 1e-30}),
        ({}, {"fields": ("priority",)}),
        ({"days": 20, "n": 20}, {"recent_days": 2}),  # spread over time
    ],
)
def test_what_lacks_one_mark_of_a_trigger_is_left_alone(
    desk: Any, make_tickets: Any, new_folder: Any, spread: dict[str, Any], options: dict[str, Any]
) -> None:
    rows, _ = planted(desk, **spread)
    result = scan_triggers(tickets=make_tickets(rows), step=step(**options), out=new_folder())
    assert result.notes["triggers"] == 0
    assert result.rows.n_out == len(rows)


def test_a_desk_in_which_nothing_was_planted_holds_no_trigger(desk: Any, make_tickets: Any, new_folder: Any) -> None:
    result = scan_triggers(tickets=make_tickets(desk), step=step(), out=new_folder())
    assert (result.notes["triggers"], result.rows.n_out) == (0, len(desk))


def test_the_same_tickets_give_the_same_bytes(desk: Any, make_tickets: Any, new_folder: Any) -> None:
    rows, _ = planted(desk, customers=3)
    found = []
    for _ in range(2):
        result = scan_triggers(tickets=make_tickets(rows), step=step(), out=new_folder())
        found.append([(result.root / name).read_bytes() for name in ("triggers.parquet", "removed.parquet")])
    assert found[0] == found[1]


def test_tickets_without_a_time_are_no_error(make_tickets: Any, new_folder: Any) -> None:
    tickets = make_tickets([{"ticket_id": "a", "body": "no time"}])
    assert scan_triggers(tickets=tickets, step=step(), out=new_folder()).notes["triggers"] == 0


def test_a_burst_of_a_machine_with_many_answers_is_no_trigger(make_tickets: Any, new_folder: Any) -> None:
    rng = random.Random(1)
    rows = [
        {
            "ticket_id": f"m{number:03}",
            "customer_id": "monitor",
            "created_at": datetime(2026, 6, 1) + timedelta(hours=number),
            "body": f"probe zeppelin node {number} is down",
            "category": rng.choice(["billing", "technical", "delivery"]),
            "reply": rng.choice(["We look into it.", "The node is back.", "Scheduled work, no fault."]),
        }
        for number in range(60)
    ]
    assert scan_triggers(tickets=make_tickets(rows), step=step(), out=new_folder()).notes["triggers"] == 0
