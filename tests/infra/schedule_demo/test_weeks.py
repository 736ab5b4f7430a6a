"""Three weeks of `make demo-schedule` on the tiny model: killed and resumed, skipped, blocked; and shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.schedule_demo.weeks import make_weeks

if TYPE_CHECKING:
    pass


def test_the_story_brings_late_tickets_and_a_broken_export_is_whole_again_later() -> None:
    weeks = make_weeks(("steady", "quiet", "poisoned", "steady", "drift"), n_tickets=300, short=True)
    n = [len(weeks.export(week)) for week in range(1, 6)]
    assert n[1] - n[0] < 10 < n[2] - n[1]
    first = weeks.export(1)[0]["ticket_id"]

    def reply(week: int) -> str:
        return next(row["reply"] for row in weeks.export(week) if row["ticket_id"] == first)

    assert reply(1) == reply(4) == f"[{reply(3)}]"
    launched = [row for row in weeks.export(5) if row["product"] == "Lumen Panel"]
    assert launched
    assert {row["reply"] for row in launched} == {"[technical]"}
