"""`tunegate data curate` and the commands that data teams run afterwards."""

import json
import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
from ruamel.yaml import YAML

from tests.support.workplace import Workplace

Tickets = list[dict[str, Any]]


def words(start: int) -> str:
    return " ".join(f"w{(start + k * k * 13) % 997}" for k in range(12))


def week(number: int, *, n_tickets: int = 120, n_customers: int = 40) -> Tickets:
    """Tickets of one week: every third customer writes each week, and texts share only their form."""
    return [
        {
            "ticket_id": f"w{number}-{index:03d}",
            "customer_id": f"c{(index * 7 + number) % n_customers}",
            "created_at": f"2026-06-{1 + 7 * (number - 1) + index % 7:02d}T{index % 24:02d}:00:00Z",
            "body": f"{number} {index} " + words(index * 31 + number * 57),
            "reply": f"We looked into case {index} and it is settled now.",
            "category": ("billing", "delivery")[index % 2],
        }
        for index in range(n_tickets)
    ]  # fmt: skip


def write_tickets(workplace: Workplace, tickets: Tickets) -> None:
    text = "".join(json.dumps(ticket) + "\n" for ticket in tickets)
    (workplace.folder / "tickets.jsonl").write_text(text)


def from_file(**curate: Any) -> Callable[[dict[str, Any]], None]:
    """The small pipeline on tickets.jsonl."""

    def change(document: dict[str, Any]) -> None:
        pipeline = document["pipelines"]["small"]
        pipeline["source"] = {"kind": "files", "paths": ["tickets.jsonl"]}
        pipeline["curate"] |= curate

    return change


def splits_of(workplace: Workplace) -> dict[str, str]:
    """Ticket id -> train, validation or test, from the published warehouse."""
    result = workplace.json("data", "quarantine", "small", "--limit", "9999", "--sql", "SELECT * FROM splits")
    return {row["ticket_id"]: row["split"] for row in result["rows"]}


def test_lineage_explains_why_a_ticket_is_not_in_the_training_set(workplace: Workplace) -> None:
    workplace.json("data", "curate", "small")
    merged = workplace.json(
        "data", "quarantine", "small", "--sql",
        "SELECT ticket_id, step, code FROM not_curated WHERE step = 'dedup' AND code = 'exact_duplicate' LIMIT 1",
    )["rows"][0]  # fmt: skip
    rows = workplace.run("data", "lineage", merged["ticket_id"])
    assert "merged by dedup as exact_duplicate" in rows.stdout
    assert "the other ticket is" in rows.stdout
    fate = workplace.json("data", "lineage", merged["ticket_id"])["pipelines"]["small"]["fates"][0]
    assert (fate["split"], fate["outcome"]) == (None, "merged")
    unknown = workplace.run("data", "lineage", "nobody")
    assert unknown.returncode == 3
    assert "TG0265" in unknown.stderr


def test_the_funnel_before_curating_hints_at_the_command(workplace: Workplace) -> None:
    done = workplace.run("data", "funnel", "small")
    assert done.returncode == 2
    assert "hint: tunegate data curate small" in done.stderr


def test_samples_show_curated_text_unless_raw_is_requested(workplace: Workplace) -> None:
    workplace.json("data", "curate", "small")
    rows = workplace.json("data", "sample", "small", "-n", "50", "--where", "body like '%[EMAIL_%'")["rows"]
    assert rows
    assert all("@" not in row["body"] for row in rows)
    assert workplace.json("data", "sample", "small", "--raw", "--where", "body like '%@%'")["rows"]


def test_a_growing_source_keeps_tickets_on_their_side_of_the_split(workplace: Workplace) -> None:
    workplace.declare(from_file())
    seen: dict[str, str] = {}
    for number in (1, 2, 3):
        write_tickets(workplace, [ticket for each in range(1, number + 1) for ticket in week(each)])
        workplace.json("data", "curate", "small")
        now = splits_of(workplace)
        assert now.keys() - seen.keys()
        for ticket, split in seen.items():
            side = "test" if split == "test" else "train"
            assert ticket not in now or ("test" if now[ticket] == "test" else "train") == side, ticket
        seen |= now


def test_curating_the_same_tickets_reuses_the_split(workplace: Workplace) -> None:
    workplace.declare(from_file())
    write_tickets(workplace, week(1) + week(2))
    workplace.json("data", "curate", "small")
    planned = {row["step"]: row["state"] for row in workplace.json("plan", "small")["steps"]}
    assert planned["split"] == planned["decontaminate"] == planned["warehouse"] == "reused"


def test_raw_texts_are_deleted_after_their_days(empty_workplace: Workplace) -> None:
    empty_workplace.declare(from_file(keep_raw_days=0))
    tickets = week(1) + week(2)
    tickets[5]["body"] += " call me at someone@example.org"
    write_tickets(empty_workplace, tickets)
    curated = empty_workplace.json("data", "curate", "small")
    holders = [
        path for path in empty_workplace.home.rglob("*") if path.is_file() and b"someone@example" in path.read_bytes()
    ]
    assert holders == []
    assert list((empty_workplace.home / "store" / "extract").iterdir()) == []
    with duckdb.connect(curated["warehouse"], read_only=True) as client:
        assert client.sql("SELECT count(*), count(body) FROM raw_tickets").fetchall() == [(240, 0)]
    assert empty_workplace.json("data", "curate", "small")["funnel"] == curated["funnel"]


def test_deleting_raw_texts_keeps_the_champion_and_its_base(empty_workplace: Workplace) -> None:
    def change(document: dict[str, Any]) -> None:
        from_file(keep_raw_days=0)(document)
        # With perplexity first, the base model is fetched before `redact`.
        document["pipelines"]["small"]["curate"]["steps"].insert(0, {"uses": "quality", "perplexity": True})

    empty_workplace.declare(change)
    write_tickets(empty_workplace, week(1) + week(2) + week(3))
    assert empty_workplace.json("run", "small")["verdict"] == "PROMOTE"
    empty_workplace.json("data", "curate", "small")
    for step in ("extract", "validate", "quality", "warehouse"):
        assert list((empty_workplace.home / "store" / step).iterdir()) == [], step
    for step in ("base_model", "redact", "split", "train", "bundle"):
        assert list((empty_workplace.home / "store" / step).iterdir()) != [], step
    assert empty_workplace.run("ops", "doctor", PREFECT_API_URL="").returncode == 0


def test_keep_raw_days_needs_redaction(workplace: Workplace) -> None:
    workplace.declare(from_file(keep_raw_days=7, steps=[{"uses": "dedup"}]))
    done = workplace.run("validate")
    assert done.returncode == 2
    assert "`keep_raw_days` needs a step `redact`" in done.stderr


def test_a_failed_check_ends_the_run_before_training_and_is_in_the_warehouse(empty_workplace: Workplace) -> None:
    checks = [
        {"uses": "nulls", "column": "category", "table": "curated"},
        {"uses": "freshness", "max_age_hours": 24, "severity": "warn"},
        {"uses": "volume", "min_rows": 10_000},
    ]
    now = "2026-06-30T00:00:00Z"

    def declare(number: int) -> None:
        def change(document: dict[str, Any]) -> None:
            from_file()(document)
            document["pipelines"]["small"]["checks"] = checks[:number]

        empty_workplace.declare(change)

    declare(3)
    write_tickets(empty_workplace, week(1) + week(2))
    done = empty_workplace.run("run", "small", TUNEGATE_NOW=now)
    assert done.returncode == 3
    counts = "1 of 3 checks failed, 1 warned, 1 passed"
    assert f"error[TG0222]: {counts}: volume: 240 rows; at least 10,000 are required" in done.stderr
    line = "1 of 3 checks failed, 1 passed, 1 to be judged by the clock"
    assert line in done.stderr  # of the step: the clock is not part of its result
    assert "check freshness_created_at: the newest ticket is " in done.stderr
    for command in (("data", "preview", "small"), ("study", "ablate", "small")):
        refused = empty_workplace.run(*command, TUNEGATE_NOW=now)
        assert refused.returncode == 3
        assert f"{counts}: volume" in refused.stderr
    asked = empty_workplace.json(
        "data", "quarantine", "small", "--sql", "SELECT name, status FROM checks ORDER BY name"
    )
    assert {row["name"]: row["status"] for row in asked["rows"]} == {
        "freshness_created_at": "failed", "nulls_category": "passed", "volume": "failed"
    }  # fmt: skip
    declare(2)
    assert empty_workplace.run("data", "curate", "small", TUNEGATE_NOW=now).returncode == 0
    asked = empty_workplace.json(
        "data", "quarantine", "small", "--sql", "SELECT run_id, status, config_digest FROM runs ORDER BY status"
    )["rows"]
    assert [row["status"] for row in asked] == ["FAILED", "RUNNING"]
    assert asked[0]["config_digest"] != asked[1]["config_digest"]
    (state,) = empty_workplace.json("data", "quarantine", "small", "--sql", "SELECT * FROM trends")["rows"]
    assert (state["n_read"], state["read_change"]) == (240, None)


def test_tickets_without_a_reply_are_refused_by_curation_as_by_validate(empty_workplace: Workplace) -> None:
    empty_workplace.declare(from_file(steps=[{"uses": "redact"}]))
    write_tickets(empty_workplace, [{**ticket, "reply": None} for ticket in week(1)])
    for command in (("validate", "--data"), ("data", "curate", "small")):
        done = empty_workplace.run(*command)
        assert done.returncode == 3, command
        assert "error[TG0204]: no ticket of the source has `reply`, which train.prompt.answer needs" in done.stderr
        assert "source.columns: {reply: THEIR_NAME}" in done.stderr
    assert empty_workplace.json("data", "funnel", "small")["funnel"]  # published, so that one can see why


def test_tickets_without_times_are_warned_of_and_refused_after_a_split_by_time(empty_workplace: Workplace) -> None:
    empty_workplace.declare(from_file(steps=[{"uses": "redact"}]))
    undated = [{**ticket, "created_at": None} for ticket in week(1)]
    write_tickets(empty_workplace, undated)
    for command in (("validate", "--data"), ("plan", "small"), ("data", "curate", "small")):
        done = empty_workplace.run(*command)
        assert "no ticket has `created_at`: the split is by customer or thread alone" in done.stderr, command
    assert done.returncode == 0
    assert "which evaluate.slices needs" in done.stderr  # no ticket has a product: nothing ends for that
    write_tickets(empty_workplace, week(1))
    done = empty_workplace.run("data", "curate", "small")
    assert (done.returncode, "created_at" in done.stderr) == (0, False)
    write_tickets(empty_workplace, undated)
    done = empty_workplace.run("data", "curate", "small")
    assert done.returncode == 3
    assert "error[TG0204]: no ticket has `created_at` any more, and the last split was by time" in done.stderr

    def misspelt(document: dict[str, Any]) -> None:
        from_file()(document)
        document["pipelines"]["small"]["evalute"] = {}

    empty_workplace.declare(misspelt)
    done = empty_workplace.run("validate", "--data")  # reads what can be read of a pipeline with a fault
    assert (done.returncode, "unknown key `pipelines.small.evalute`" in done.stderr) == (2, True), done.stderr


MAIL = "ann.smith@example.org"


@pytest.mark.parametrize(
    ("steps", "blank", "error", "reason", "funnel"),
    [
        ([{"uses": "redact"}], "body", "TG0220", "by validate, TG0", ["extract", "validate"]),
        ([{"uses": "redact"}, {"uses": "rule", "name": "has_reply", "keep": "reply is not null"}], "reply", "TG0221",
         "119 dropped by rules, has_reply", ["extract", "validate", "redact", "rules", "contract"]),
    ],
)  # fmt: skip
def test_a_curation_that_fails_shows_why_and_what_it_left(
    steps: list[Any], blank: str, error: str, reason: str, funnel: list[str], empty_workplace: Workplace
) -> None:
    """Too many rows without a body, or too few with a reply; each mentions a person."""
    tickets = [{**ticket, "body": f"{ticket['body']} {MAIL}"} for ticket in week(1)]
    for ticket in tickets[:-1]:
        ticket[blank] = ""
    write_tickets(empty_workplace, tickets)
    empty_workplace.declare(from_file(steps=steps))
    done = empty_workplace.run("data", "curate", "small")
    assert (done.returncode, f"error[{error}]" in done.stderr) == (3, True)
    assert reason in done.stderr
    assert "@" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("look at them: tunegate ")]
    command = shlex.split(line.removeprefix("look at them: tunegate ").partition(";")[0])
    looked = empty_workplace.json(*command, "--limit", "500")["rows"]
    assert {row["code"] for row in looked} >= ({"has_reply"} if blank == "reply" else {"TG0210"})
    found = empty_workplace.json("data", "funnel", "small", "--reasons")
    assert [row["step"] for row in found["funnel"]] == funnel
    assert (found["failed"]["error"][:6], found["card"]) == (error, None)
    listed = empty_workplace.json("data", "quarantine", "small", "--sql", "SELECT * FROM removed")["rows"]
    assert len(listed) == 50
    sample = empty_workplace.json("data", "sample", "small", "-n", "200")["rows"]
    assert sample
    assert MAIL not in json.dumps(sample, default=str)
    write_tickets(empty_workplace, week(1) + week(2))
    assert empty_workplace.run("data", "curate", "small").returncode == 0
    assert "failed" not in empty_workplace.json("data", "funnel", "small")


def test_the_dictionary_names_every_table_for_people_and_for_dbt(empty_workplace: Workplace) -> None:
    page = empty_workplace.run("data", "dictionary").stdout
    assert "| `body` | VARCHAR | yes | personal | The customer's text |" in page
    assert empty_workplace.run("data", "dictionary", "--dbt", "--out", "models/sources.yml").returncode == 0
    again = empty_workplace.run("data", "dictionary", "--out", "models/sources.yml")
    assert (again.returncode, "TG0189" in again.stderr) == (2, True)
    (source,) = YAML(typ="safe").load(empty_workplace.folder / "models" / "sources.yml")["sources"]
    tables = {table["name"]: {column["name"]: column for column in table["columns"]} for table in source["tables"]}
    assert tables["curated"]["ticket_id"]["data_tests"] == ["not_null", "unique"]
    assert {"relationships": {"to": "source('tunegate', 'curated')", "field": "ticket_id"}} in (
        tables["splits"]["ticket_id"]["data_tests"]
    )
    assert tables["trends"]["read_change"]["meta"] == {"pii": "none"}


def test_a_comparison_with_null_is_shown_by_validate_and_plan(empty_workplace: Workplace) -> None:
    step = {"uses": "rule", "name": "labelled", "keep": "category != null or true"}
    empty_workplace.declare(from_file(steps=[step]))
    write_tickets(empty_workplace, week(1))
    (advice, *others) = empty_workplace.json("validate")["warnings"]
    assert all(other.startswith("gates.") for other in others)  # of `strict`: 12 items are few
    assert advice.startswith("curate.rule.labelled: `category <> NULL` is never true")
    assert empty_workplace.json("plan", "small")["warnings"][0] == advice


@pytest.mark.campaign
def test_tickets_grow_stale_also_in_a_run_that_is_skipped_as_unchanged(workplace: Workplace) -> None:
    def change(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["checks"] = [{"uses": "freshness", "max_age_hours": 48}]

    workplace.declare(change)
    newest = "SELECT max(created_at) AS newest FROM raw_tickets"
    workplace.run("data", "curate", "small")  # stale by the machine's clock, and published nevertheless
    (row,) = workplace.json("data", "quarantine", "small", "--sql", newest)["rows"]
    moment = datetime.fromisoformat(row["newest"]).replace(tzinfo=UTC)
    fresh, stale = ((moment + timedelta(hours=hours)).isoformat() for hours in (1, 49))
    assert workplace.run("run", "small", TUNEGATE_NOW=fresh).returncode == 0
    skipped = workplace.run("run", "small", TUNEGATE_NOW=fresh)
    assert "nothing changed since run" in skipped.stderr + skipped.stdout
    done = workplace.run("run", "small", TUNEGATE_NOW=stale)
    assert done.returncode == 3
    assert "freshness_created_at: the newest ticket is 49.0 hours old; at most 48 are allowed" in done.stderr


def test_rows_that_the_reader_refused_are_not_shown_as_blank_lines(empty_workplace: Workplace) -> None:
    write_tickets(empty_workplace, week(1))
    with (empty_workplace.folder / "tickets.jsonl").open("a") as stream:
        stream.write("{broken\n" * 400)
    empty_workplace.declare(from_file())
    lines = empty_workplace.run("data", "curate", "small").stderr.splitlines()
    place = next(n for n, line in enumerate(lines) if "quarantined by extract, TG0240" in line)
    assert lines[place + 1].strip() == "the reader refused these rows, and no text of them is kept"
    assert lines[place + 2].startswith("look at them: ")
