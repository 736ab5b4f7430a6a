"""Three Mondays under a fake clock on a very small model: killed and resumed, skipped, blocked, and displayed."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.ledger.ledger import Ledger
from schemas.source import GeneratedSource
from tasks.sources.helpdesk import generate_tickets
from tests.support.warm import FRESH_WORKER
from tests.support.workplace import ForkedWorkplace

START = datetime(2026, 6, 1, tzinfo=UTC)
WEEKS = 4
Row = dict[str, Any]


def written_by_week() -> list[list[Row]]:
    """Tickets by the week in which they were written; a reply is its routing line alone, which a tiny model learns."""
    weeks: list[list[Row]] = [[] for _ in range(WEEKS)]
    for line in generate_tickets(GeneratedSource(kind="generated", n_tickets=440, n_weeks=WEEKS, start=f"{START:%F}")):
        try:
            row = json.loads(line)
            week = (datetime.fromisoformat(row["created_at"]) - START).days // 7
        except (ValueError, KeyError, TypeError):
            continue  # a damaged line; the exports of this test have none
        if row["reply"] and row["category"]:
            row["reply"] = f"[{row['category']}]"
        weeks[min(week, WEEKS - 1)].append(row)
    return weeks


def exports() -> Iterator[list[Row]]:
    """The desk's export on each Monday: all of the week, few of it, and one in which every reply lost its form."""
    first, second, third, _ = written_by_week()
    yield first
    yield first + second[: len(second) // 10]
    yield [row | {"reply": row["reply"] and re.sub(r"[][]", "", row["reply"])} for row in first + second + third]


def declare(document: Row, model: str) -> None:
    small = document["pipelines"]["small"]
    small |= {
        "source": {"kind": "files", "paths": ["tickets.jsonl"]},
        "split": {"by_time": False, "test_fraction": 0.3, "validation_fraction": 0.02},
        "curate": {
            "steps": [
                {"uses": "redact", "order_numbers": [r"NB-\d{5}"]},
                {"uses": "rule", "name": "has_routing", "keep": "category is not null and reply is not null"},
                {"uses": "dedup"},
            ]
        },
        "train": {
            "method": "full", "base_model": f"file:{model}", "dtype": "float32", "learning_rate": 4e-3,
            "batch_size": 16, "allow_unusual_learning_rate": True, "max_length": 96, "overflow": "truncate_left",
            "max_steps": 60, "epochs": 20, "save_every": 60, "validate_every": 1000, "threads": 1, "seed": 1,
            "prompt": {"user": "{subject}", "answer": "{reply}"},
        },
        "evaluate": {
            "max_items": 40, "max_new_tokens": 16, "arms": ["zero_shot"], "threads": 1, "batch_size": 40,
            "fields": r"\[(?P<category>[a-z-]+)\]",
        },
        "gates": {
            "confidence": 0.8, "min_items": 20, "forgetting": None, "round_trip": None,  # what 40 items can show
            "rules": [
                {"metric": "exact", "change_threshold": {"against": "champion", "mode": "refresh", "margin": 0.05}},
                {"metric": "format", "value_threshold": 0.5},
            ],
        },
        "feedback": {"learn": True, "min_acceptance": 0.2, "min_suggestions": 5},
        "schedule": {
            "cron": "0 5 * * 1",
            "retrain": {"min_new": 60, "min_held_out": 20, "cooldown_days": 6},
        },
    }  # fmt: skip
    document["pipelines"] = {"small": small}


@pytest.mark.campaign
@pytest.mark.server
def test_three_weeks_are_killed_skipped_and_blocked(empty_workplace: ForkedWorkplace) -> None:
    folder = empty_workplace.folder
    empty_workplace.environ[FRESH_WORKER] = "1"  # a fork has no threads for the gradients
    empty_workplace.declare(lambda document: declare(document, empty_workplace.environ["TINY_MODEL"]))
    mondays = iter(START + timedelta(weeks=week, hours=5) for week in range(1, WEEKS))

    def tick(rows: list[Row] | None, now: datetime, **environ: str) -> int:
        if rows is not None:
            (folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        done = empty_workplace.run("ops", "tick", "small", TUNEGATE_NOW=now.isoformat(), **environ)
        (folder / "last.log").write_text(done.stdout + done.stderr)
        return done.returncode

    whole, few, broken = exports()
    first, second, third = mondays
    ledger = Ledger(empty_workplace.home)
    assert tick(whole, first, TUNEGATE_FAILPOINT="ledger.mark") == -9, (folder / "last.log").read_text()
    assert tick(None, first) == 0, (folder / "last.log").read_text()
    champion = ledger.champion("small")
    assert champion is not None
    send_feedback(empty_workplace, whole[:12], version=champion.version, at=first)
    tick(few, second)
    tick(broken, third)

    assert [row.verdict for row in reversed(ledger.runs())] == [None, "PROMOTE", None, "BLOCK"]
    assert [event.action for event in ledger.history("small")] == ["promote"]  # once, although the run was killed
    killed, resumed, quiet, poisoned = ledger.ticks("small")
    assert [one.decision.code for one in (killed, resumed, quiet, poisoned)] == ["first", "first", "few", "enough"]
    assert killed.decision.arrivals == resumed.decision.arrivals
    assert {step.state for step in ledger.steps(resumed.run_id)} == {"reused"}  # nothing ran twice
    assert ledger.run(resumed.run_id).reason.endswith("was interrupted after its promotion; its verdict holds")
    # The mark moved with the two verdicts, but not with the kill or the skip.
    marked = [row.run_id for row in reversed(ledger.runs()) if ledger.mark_of(row.run_id)]
    assert marked == [resumed.run_id, poisoned.run_id]
    assert quiet.decision.reason.endswith(f"expected to run on {quiet.decision.expected}")
    assert poisoned.decision.arrivals is not None
    assert poisoned.decision.arrivals.n_edited > 50  # the broken export rewrote known tickets

    ticks = empty_workplace.json("model", "history", "small")["ticks"]
    assert [one["code"] for one in ticks] == ["first", "first", "few", "enough"]
    shown = empty_workplace.json("show", poisoned.run_id)
    assert shown["snapshot"]["snapshot_id"] == poisoned.decision.arrivals.snapshot_id
    # Feedback on the champion's suggestions reached the gate.
    [live] = [finding for finding in shown["findings"] if finding["part"] == "live"]
    assert (live["rule"], live["decides"]) == (f"live acceptance of v{champion.version}", False)
    assert live["n_items"] > 0


def send_feedback(workplace: ForkedWorkplace, rows: list[Row], *, version: str, at: datetime) -> None:
    """Agents edit some of the champion's suggestions and reject the others."""
    outcomes = ({"outcome": "edited", "reply": "[billing]"}, {"outcome": "rejected"})
    lines = [
        {"ticket_id": row["ticket_id"], "version": version, "at": at.isoformat()} | outcomes[place % 2]
        for place, row in enumerate(rows)
    ]
    path = workplace.folder / "agents.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = workplace.run("model", "feedback", "small", str(path), TUNEGATE_NOW=at.isoformat())
    assert done.returncode == 0, done.stderr
