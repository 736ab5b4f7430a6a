"""A week of wrong labels: the verdict names the file, and the good tickets around it still lead to a run."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.ledger.ledger import Ledger
from schemas.source import GeneratedSource
from tasks.sources.helpdesk import generate_tickets
from tests.support.workplace import Workplace

Row = dict[str, Any]
HOLD = {"min_items": 500}
"""No candidate has so many items: each is held, whatever it answers."""


@pytest.fixture(scope="module")
def tickets() -> list[Row]:
    """Answered tickets with their categories, in the order of the generated help desk."""
    source = GeneratedSource(kind="generated", n_tickets=900, n_customers=300, seed=5)
    found = []
    for line in generate_tickets(source):
        try:
            row = json.loads(line)
        except ValueError:
            continue  # a damaged line
        if isinstance(row, dict) and row.get("reply") and row.get("category") and row.get("created_at"):
            found.append(row)
    return found


def swapped(rows: Iterable[Row]) -> list[Row]:
    """The same tickets, each with the category that follows its own."""
    listed = list(rows)
    names = sorted({row["category"] for row in listed})
    following = dict(zip(names, names[1:] + names[:1], strict=True))
    return [row | {"category": following[row["category"]]} for row in listed]


class Desk:
    """A pipeline over weekly files, and ticks under a fake clock."""

    def __init__(self, workplace: Workplace) -> None:
        self.workplace = workplace
        self.gates: Row = {}
        self.rules: list[Row] = []
        (workplace.folder / "weeks").mkdir()

    def export(self, name: str, rows: Iterable[Row]) -> None:
        path = self.workplace.folder / "weeks" / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def declare(self) -> None:
        def change(document: Row) -> None:
            small = document["pipelines"]["small"]
            small["source"] = {"kind": "files", "paths": ["weeks/*.jsonl"]}
            small["schema"] = {"fail_above": 0.9}
            small["split"] = {"test_fraction": 0.25, "validation_fraction": 0.05, "by_time": False}
            small["train"]["max_steps"] = 2
            small["evaluate"]["arms"] = ["zero_shot"]
            small["schedule"] = {"cron": "@hourly", "retrain": {"min_new": 40}}
            small["curate"]["steps"] += self.rules
            small["gates"] |= self.gates

        self.workplace.declare(change)

    def tick(self, now: str) -> tuple[str, str, str]:
        """Return the tick's code, the run's verdict and its reason."""
        self.declare()
        done = self.workplace.run("ops", "tick", "small", TUNEGATE_NOW=f"2026-07-{now}:00:00+00:00")
        ledger = Ledger(self.workplace.home)
        tick = ledger.ticks("small")[-1]
        run = ledger.run(tick.run_id)
        assert run.status in ("DONE", "SKIPPED"), done.stderr
        return tick.decision.code, run.verdict or run.status, run.reason if run.verdict else tick.decision.reason


def test_a_wrong_file_is_named_and_the_good_tickets_around_it_lead_to_a_run(
    empty_workplace: Workplace, tickets: list[Row]
) -> None:
    desk = Desk(empty_workplace)
    desk.export("week1.jsonl", tickets[:220])
    assert desk.tick("06T05")[:2] == ("first", "PROMOTE")
    unknown = empty_workplace.run("data", "suspects", "small")
    assert unknown.returncode == 2
    assert "TG0159" in unknown.stderr

    # A week of good tickets: nothing is named.
    desk.gates = HOLD
    desk.export("week2.jsonl", tickets[220:290])
    code, verdict, reason = desk.tick("13T05")
    assert (code, verdict) == ("enough", "HOLD")
    assert "disagree" not in reason
    assert desk.tick("13T06")[:2] == ("unchanged", "SKIPPED")

    # A wrong export.
    desk.export("week3.jsonl", swapped(tickets[300:430]))
    code, verdict, reason = desk.tick("20T05")
    assert (code, verdict) == ("enough", "HOLD")
    assert reason.startswith("The labels of weeks/week3.jsonl disagree with the others (")
    assert reason.index("`tunegate data suspects` lists them") < reason.index("more are needed"), reason
    suspects = empty_workplace.json("data", "suspects", "small", "--source", "weeks/week3.jsonl")
    assert [group["name"] for group in suspects["groups"] if group["disagrees"] and group["kind"] == "file"] == [
        "weeks/week3.jsonl"
    ]
    assert {row["source"] for row in suspects["rows"]} == {"weeks/week3.jsonl"}
    assert suspects["rows"][0].keys().isdisjoint({"subject", "body", "reply", "customer_id"})
    shown = empty_workplace.json("report", "--last", "small")["diagnosis"]
    assert [past["is_own"] for past in shown["past"]] == [True, False]
    assert all(past["n_common"] + past["n_fresh"] <= 12 for past in shown["past"])

    # Hour after hour a few tickets come: too few to train again.
    desk.export("week4.jsonl", tickets[440:445])
    code, _, reason = desk.tick("20T06")
    assert code == "tried"
    assert "10 are needed" in reason

    # The file is left out as `data suspects` says: what is good waits no longer.
    [way] = [each for each in suspects["leave_out"] if "source" in each]
    desk.rules = YAML(typ="safe").load(way)
    code, verdict, reason = desk.tick("20T07")
    assert (code, verdict) == ("enough", "HOLD")
    assert "disagree" not in reason
    decision = Ledger(empty_workplace.home).ticks("small")[-1].decision
    assert decision.arrivals is not None
    assert decision.arrivals.n_new >= 40
    assert decision.arrivals.n_changed is not None
    assert decision.arrivals.n_changed > 100  # the tickets that are gone
    assert desk.tick("20T08")[:2] == ("unchanged", "SKIPPED")
