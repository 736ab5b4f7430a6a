"""The weeks of `make demo-schedule`, and their chart in the docs."""

from pathlib import Path

from infra.schedule_demo.chart import COLUMNS, chart, record
from infra.schedule_demo.weeks import make_weeks


def test_late_tickets_arrive_and_a_broken_export_is_whole_again_later() -> None:
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


def test_the_chart_in_the_docs_shows_the_recorded_table(project: Path) -> None:
    page = (project / "benchmarks" / "results" / "schedule.md").read_text(encoding="utf-8")
    rows: list[list[object]] = []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0].isdigit():
            shares = [float(cell) if cell else None for cell in cells[len(COLUMNS) :]]
            rows.append([*cells[: len(COLUMNS)], *shares])
    assert len(rows) == 8
    assert (project / "docs" / "plots" / "weeks.svg").read_text(encoding="utf-8") == chart(rows)
    written = record(rows, machine={"processor": "one"}, command="make demo-schedule")
    assert [line for line in page.splitlines() if line.startswith("| ")] == [
        line for line in written.splitlines() if line.startswith("| ")
    ]
