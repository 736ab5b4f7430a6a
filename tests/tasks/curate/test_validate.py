"""Validation: who is valid, who is quarantined and why, and one row per ticket_id."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import RowCounts, TicketTable
from schemas.curation import TableSpec
from schemas.errors import DataError
from tasks.curate.rows import read_rows, ticket_table, write_removed, write_tickets
from tasks.curate.validate import validate_tickets
from tests.tasks.curate.test_extract import removed

Rows = list[dict[str, Any]]
LENIENT = {"fail_above": 1.0, "warn_above": 1.0}


def stage(root: Path, rows: Rows, *, bad: Rows | None = None) -> TicketTable:
    """The result of an extraction: rows get their place, bad ones come as removed rows."""
    folder = root / "extract"
    folder.mkdir()
    placed = [{"source": "t.jsonl", "source_line": place, **row} for place, row in enumerate(rows, start=1)]
    write_tickets(ticket_table(placed), folder)
    n_bad = write_removed(bad or [], folder)
    counts = RowCounts(n_in=len(rows) + n_bad, n_out=len(rows), n_quarantined=n_bad)
    return TicketTable(root=folder, rows=counts)


def validate(root: Path, rows: Rows, *, bad: Rows | None = None, **options: Any) -> TicketTable:
    tickets = stage(root, rows, bad=bad)
    out = root / "out"
    out.mkdir()
    return validate_tickets(tickets=tickets, table=TableSpec.model_validate({**LENIENT, **options}), out=out)


def kept(table: TicketTable) -> dict[str, dict[str, Any]]:
    return {row["ticket_id"]: row for row in read_rows(table.tickets).to_pylist()}


def test_each_fault_has_its_code_and_field(tmp_path: Path) -> None:
    table = validate(
        tmp_path,
        [
            {"ticket_id": "fine", "body": "text", "category": "billing", "priority": "low"},
            {"ticket_id": "null", "body": None},
            {"ticket_id": "long", "body": "x" * 21},
            {"ticket_id": "category", "body": "text", "category": "biling"},
            {"ticket_id": "priority", "body": "text", "priority": "urgent"},
            {"ticket_id": "early", "body": "text", "created_at": datetime(1970, 1, 1)},
            {"ticket_id": "late", "body": "text", "updated_at": datetime(2106, 2, 7)},
            {"ticket_id": "nothing said", "body": "text"},
        ],
        max_chars=20,
        categories=("billing",),
        priorities=("low", "high"),
    )
    assert kept(table).keys() == {"fine", "nothing said"}
    assert {row["ticket_id"]: (row["code"], row["field"], row["source_line"]) for row in removed(table)} == {
        "null": ("TG0210", "body", 2),
        "long": ("TG0211", "body", 3),
        "category": ("TG0212", "category", 4),
        "priority": ("TG0212", "priority", 5),
        "early": ("TG0214", "created_at", 6),
        "late": ("TG0214", "updated_at", 7),
    }
    assert table.rows == RowCounts(n_in=8, n_out=2, n_quarantined=6)
    assert table.notes["TG0214"] == 2


def test_a_row_with_several_faults_is_quarantined_once_for_the_first_column(tmp_path: Path) -> None:
    row = {"ticket_id": "a", "body": None, "subject": "x" * 50, "created_at": datetime(1970, 1, 1)}
    table = validate(tmp_path, [row, {"ticket_id": "b", "body": "text"}], max_chars=20)
    assert [(row["code"], row["field"]) for row in removed(table)] == [("TG0214", "created_at")]


def test_reasons_do_not_repeat_the_value(tmp_path: Path) -> None:
    rows = [{"ticket_id": "a", "body": "Zanzibar" * 10, "category": "Zanzibar"}, {"ticket_id": "b", "body": "text"}]
    table = validate(tmp_path, rows, max_chars=20, categories=("billing",))
    assert "Zanzibar" not in str(removed(table))


def test_the_limit_of_length_holds_for_each_message(tmp_path: Path) -> None:
    turn = '{{"role":"user","content":"{}"}}'
    many = "[" + ",".join(turn.format("x" * 15) for _ in range(10)) + "]"
    long = "[" + turn.format("x" * 25) + "]"
    rows = [{"ticket_id": "many", "body": "b", "messages": many}, {"ticket_id": "long", "body": "b", "messages": long}]
    table = validate(tmp_path, rows, max_chars=20)
    assert kept(table).keys() == {"many"}
    assert [(row["ticket_id"], row["code"], row["field"]) for row in removed(table)] == [("long", "TG0211", "messages")]


def test_text_is_brought_to_one_form_and_counted(tmp_path: Path) -> None:
    messages = '[{"role":"user","content":"a\\u0000b"}]'
    rows = [
        {"ticket_id": "a\0", "body": "Cafe\u0301\r\nopen\rnow\x07\ttab", "messages": messages},
        {"ticket_id": "b", "body": "👩‍👩‍👧 שלום ‏end"},
        {"ticket_id": "c", "body": "\0\0"},
    ]  # fmt: skip
    table = validate(tmp_path, rows)
    assert kept(table)["a"]["body"] == "Café\nopen\nnow\ttab"
    assert kept(table)["a"]["messages"] == '[{"role":"user","content":"a b"}]'
    assert kept(table)["b"]["body"] == "👩‍👩‍👧 שלום ‏end"
    assert [(row["ticket_id"], row["code"]) for row in removed(table)] == [("c", "TG0210")]
    assert table.notes["normalised_texts"] == 4


def test_equal_rows_of_one_id_merge_into_the_first(tmp_path: Path) -> None:
    rows = [{"ticket_id": "a", "body": "same"}, {"ticket_id": "b", "body": "other"}, {"ticket_id": "a", "body": "same"}]
    table = validate(tmp_path, rows)
    assert kept(table)["a"]["source_line"] == 1
    (gone,) = removed(table)
    assert (gone["outcome"], gone["code"], gone["kept_id"], gone["source_line"]) == ("merged", "identical_id", "a", 3)
    assert table.rows == RowCounts(n_in=3, n_out=2, n_merged=1)


@pytest.mark.parametrize(
    ("times", "newest"), [((1, 3, 2), "v1"), ((None, None, None), "v2"), ((None, 1, None), "v1"), ((2, 2, 1), "v1")]
)
def test_the_newest_of_differing_rows_stays(tmp_path: Path, times: tuple[int | None, ...], newest: str) -> None:
    rows = [
        {"ticket_id": "a", "body": f"v{place}", "updated_at": datetime(2026, 1, day) if day else None}
        for place, day in enumerate(times)
    ]
    table = validate(tmp_path, rows)
    assert kept(table)["a"]["body"] == newest
    assert table.rows == RowCounts(n_in=3, n_out=1, n_dropped=2)
    assert {row["code"] for row in removed(table)} == {"older_version"}


def test_differing_rows_can_be_quarantined_all(tmp_path: Path) -> None:
    rows = [{"ticket_id": "a", "body": body} for body in ("one", "two", "two")] + [{"ticket_id": "b", "body": "text"}]
    table = validate(tmp_path, rows, on_conflicting_id="quarantine")
    assert kept(table).keys() == {"b"}
    assert table.rows == RowCounts(n_in=4, n_out=1, n_quarantined=2, n_merged=1)
    assert table.notes["TG0215"] == 2


def test_an_invalid_row_does_not_win_over_a_valid_one_of_its_id(tmp_path: Path) -> None:
    rows = [
        {"ticket_id": "a", "body": "text", "updated_at": datetime(2026, 1, 1)},
        {"ticket_id": "a", "body": None, "updated_at": datetime(2026, 1, 2)},
    ]
    assert kept(validate(tmp_path, rows))["a"]["body"] == "text"


def test_an_update_before_creation_is_counted_and_kept(tmp_path: Path) -> None:
    row = {"ticket_id": "a", "body": "b", "created_at": datetime(2026, 1, 2), "updated_at": datetime(2026, 1, 1)}
    assert validate(tmp_path, [row]).notes == {"updated_before_created": 1}


BAD: Rows = [
    {"outcome": "quarantined", "code": "TG0240", "reason": "Not JSON.", "source": "t.jsonl", "source_line": 100 + line}
    for line in range(3)
]


def test_over_the_limit_the_run_ends_and_names_the_commonest_faults(tmp_path: Path) -> None:
    rows: Rows = [{"ticket_id": f"{place}", "body": "text" if place else None} for place in range(17)]
    with pytest.raises(DataError) as caught:
        validate(tmp_path, rows, bad=BAD, fail_above=0.19)
    message = str(caught.value)
    assert caught.value.code == "TG0220"
    assert "4 of 20 rows read are quarantined (20.0%), over fail_above 19.0%" in message
    assert message.index("TG0240 3 times, first at t.jsonl:100") < message.index("TG0210 1 times, first at t.jsonl:1")


def test_at_the_limit_the_run_goes_on_and_warns(tmp_path: Path) -> None:
    rows: Rows = [{"ticket_id": f"{place}", "body": "text" if place else None} for place in range(17)]
    table = validate(tmp_path, rows, bad=BAD, fail_above=0.2, warn_above=0.19)
    assert table.notes["warn_quarantined"] == 1


def test_without_a_valid_ticket_the_run_ends_and_says_what_emptied_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"TG0221.*no valid ticket is left of 2 rows read: TG0210 2 times"):
        validate(tmp_path, [{"ticket_id": "a"}, {"ticket_id": "b"}])
