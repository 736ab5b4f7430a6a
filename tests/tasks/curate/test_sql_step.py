"""One SELECT over the tickets: rows left out are dropped, changed texts stay changed, no row is made."""

import random
from datetime import datetime
from typing import Any

import pytest

from schemas.curation_steps import SqlStep
from schemas.errors import ConfigError, SecurityError, TunegateError
from tasks.curate.sql_step import select_tickets

STEP = SqlStep(uses="sql", name="latest", file="sql/latest.sql")
ROWS = [
    {
        "ticket_id": f"t{number:02}", "source": "test", "source_line": number, "customer_id": f"c{number % 3}",
        "created_at": datetime(2026, 5, 1 + number), "body": f"  text {number} ", "rating": float(number % 4),
    }
    for number in range(12)
]  # fmt: skip


def test_rows_left_out_are_dropped_under_the_steps_name(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    sql = "select * from tickets qualify row_number() over (partition by customer_id order by created_at desc) <= 2"
    result = select_tickets(tickets=make_tickets(ROWS), step=STEP, select=sql, out=new_folder())
    assert list(rows_of(result.tickets)) == ["t06", "t07", "t08", "t09", "t10", "t11"]
    removed = rows_of(result.removed)
    assert {(row["outcome"], row["code"]) for row in removed.values()} == {("dropped", "latest")}
    assert removed["t03"]["reason"] == "the step's SELECT leaves it out"
    assert (removed["t03"]["source"], removed["t03"]["source_line"]) == ("test", 3)
    assert result.notes == {"dropped_latest": 6, "changed_rows": 0}
    assert (result.rows.n_in, result.rows.n_out, result.rows.n_dropped) == (12, 6, 6)


def test_changed_texts_are_kept_and_counted(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    sql = "select * replace (case when rating > 0 then trim(body) else body end as body) from tickets where rating < 3"
    result = select_tickets(tickets=make_tickets(ROWS), step=STEP, select=sql, out=new_folder())
    assert rows_of(result.tickets)["t01"]["body"] == "text 1"
    assert rows_of(result.tickets)["t04"]["body"] == "  text 4 "
    assert result.notes == {"dropped_latest": 3, "changed_rows": 6}


def test_a_select_of_all_rows_changes_no_byte(make_tickets: Any, new_folder: Any) -> None:
    tickets = make_tickets(ROWS)
    sql = "select * from tickets order by rating desc"
    result = select_tickets(tickets=tickets, step=STEP, select=sql, out=new_folder())
    assert result.tickets.read_bytes() == tickets.tickets.read_bytes()


@pytest.mark.parametrize(
    "sql",
    [
        "select * from tickets limit 5",
        "select * from tickets qualify row_number() over (partition by customer_id) = 1",
        "select * replace (first(body) over (partition by customer_id) as body) from tickets",
        "select * from tickets where body in (select any_value(body) from tickets group by customer_id)",
    ],
)
def test_what_sql_leaves_open_comes_out_the_same_in_any_order_of_rows(
    make_tickets: Any, new_folder: Any, sql: str
) -> None:
    rows = list(ROWS)
    first = select_tickets(tickets=make_tickets(rows), step=STEP, select=sql, out=new_folder())
    random.Random(1).shuffle(rows)
    second = select_tickets(tickets=make_tickets(rows), step=STEP, select=sql, out=new_folder())
    assert first.tickets.read_bytes() == second.tickets.read_bytes()
    assert first.removed.read_bytes() == second.removed.read_bytes()


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select * from tickets union all select * from tickets", "12 rows with a repeated ticket_id"),
        ("select * replace (ticket_id || 'x' as ticket_id) from tickets", "12 rows with an unknown ticket_id"),
        ("select * replace (null::varchar as ticket_id) from tickets", "12 rows without ticket_id"),
        ("select * replace (null::bigint as source_line) from tickets", "12 rows without ticket_id, source or"),
    ],
)
def test_a_select_that_makes_rows_is_refused(make_tickets: Any, new_folder: Any, sql: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"TG0125.*{message}") as error:
        select_tickets(tickets=make_tickets(ROWS), step=STEP, select=sql, out=new_folder())
    assert error.value.where == "curate.sql.latest: sql/latest.sql"


def test_a_select_that_fails_on_a_row_tells_no_text_of_it(make_tickets: Any, new_folder: Any) -> None:
    rows = [{"ticket_id": "a", "body": "my secret text"}]
    sql = "select * from tickets where cast(body as integer) > 1"
    with pytest.raises(ConfigError, match="TG0124") as error:
        select_tickets(tickets=make_tickets(rows), step=STEP, select=sql, out=new_folder())
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("sql", "code"),
    [("select * from 'x.csv'", "TG0811"), ("drop table tickets", "TG0811"), ("select 1 from tickets", "TG0125")],
)
def test_a_faulty_select_is_refused_before_any_row_is_read(
    make_tickets: Any, new_folder: Any, sql: str, code: str
) -> None:
    with pytest.raises(TunegateError) as error:
        select_tickets(tickets=make_tickets(ROWS), step=STEP, select=sql, out=new_folder())
    assert error.value.code == code
    assert isinstance(error.value, SecurityError | ConfigError)
