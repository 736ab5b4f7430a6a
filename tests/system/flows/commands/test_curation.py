"""`tunegate curate` and what data teams ask afterwards, by the real command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.workplace import ForkedWorkplace

pytestmark = pytest.mark.server

Tickets = list[dict[str, Any]]


def words(start: int) -> str:
    return " ".join(f"w{(start + k * k * 13) % 997}" for k in range(12))


def week(number: int, *, n_tickets: int = 120, n_customers: int = 40) -> Tickets:
    """Tickets of one week: every third customer writes each week, texts share nothing but their form."""
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


def write_tickets(workplace: ForkedWorkplace, tickets: Tickets) -> None:
    text = "".join(json.dumps(ticket) + "\n" for ticket in tickets)
    (workplace.folder / "tickets.jsonl").write_text(text)


def from_file(**curate: Any) -> Callable[[dict[str, Any]], None]:
    """The small pipeline on tickets.jsonl."""

    def change(document: dict[str, Any]) -> None:
        pipeline = document["pipelines"]["small"]
        pipeline["source"] = {"kind": "files", "paths": ["tickets.jsonl"]}
        pipeline["curate"] |= curate

    return change


def test_a_kill_while_publishing_leaves_the_database_before_and_is_made_good(workplace: ForkedWorkplace) -> None:
    workplace.declare(from_file())
    write_tickets(workplace, week(1) + week(2))
    database = Path(workplace.json("curate", "small")["warehouse"])
    before = database.read_bytes()
    write_tickets(workplace, week(1) + week(2) + week(3))
    killed = workplace.run("curate", "small", TUNEGATE_FAILPOINT="snapshot.copied")
    assert killed.returncode < 0, killed.stderr
    assert database.read_bytes() == before
    after = workplace.json("curate", "small")
    assert after["funnel"][0]["n_in"] == 360
    assert list(database.parent.rglob(".*.tmp")) == []
