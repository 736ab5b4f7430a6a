"""A step's SQL: what is let through, what is refused, and that the checked text means what was written."""

from dataclasses import replace

import pytest

from schemas.errors import ConfigError, SecurityError
from schemas.tables import TICKETS, Column
from tasks.curate.sql.select_sql import check_select
from tasks.storage.warehouse import connect, quote_identifier

ALLOWED = (
    "select * from tickets where length(body) > 8",
    "SELECT * FROM Tickets;",
    "select * from tickets; -- done",
    "from tickets where rating > 2",
    "select * replace (trim(body) || '!' as body) from tickets",
    "with a as (select * from tickets where body like 'word%') select * from a where rating >= 1",
    "with tickets as (select * from tickets where rating < 3) select * from tickets",
    "select * from tickets qualify row_number() over (partition by customer_id order by created_at desc) <= 2",
    "select t.* from tickets t join (select category, count(*) n from tickets group by all) c using (category) "
    "where n > 3",
    "select * from tickets where category in (select category from tickets group by 1 having count(*) > 5)",
    "select t.* replace (coalesce(m.new, t.category) as category) from tickets t "
    "left join (values ('billing', 'money'), ('spam', 'noise')) as m(old, new) on m.old = t.category",
    "select * from tickets order by created_at, ticket_id limit 10",
    "select * from tickets where rating = 1 union all select * from tickets where rating = 2",
    "select * replace (array_to_string(list_filter(string_split(body, ' '), lambda w: length(w) > 2), ' ') as body) "
    "from tickets",
    "select * from tickets a where exists (select 1 from tickets b where b.thread_id = a.thread_id "
    "and b.ticket_id <> a.ticket_id)",
    "select * from tickets where created_at > timestamp '2026-06-01' - interval 3 days",
    "select * from tickets where rating > (select avg(rating) from tickets)",
    "select distinct on (category) * from tickets order by category, ticket_id",
    "select a.* from tickets a anti join (select ticket_id from tickets where rating = 2) b using (ticket_id)",
    "select * from tickets qualify sum(rating) over (order by ticket_id rows between 3 preceding and current row) > 4",
    "select * replace (cast(coalesce(rating, 0) as double) as rating) from tickets",
)


@pytest.mark.parametrize("sql", ALLOWED)
def test_the_checked_text_returns_what_the_written_one_does(sql: str) -> None:
    columns = ", ".join(f"{quote_identifier(column.name)} {column.sql_type}" for column in TICKETS)
    checked = check_select(sql)
    with connect(threads=1) as connection:
        connection.execute(f"create table tickets ({columns})")
        connection.execute(
            """insert into tickets by name select
                'a_' || i as ticket_id, 'c' || i % 5 as customer_id, 'h' || i % 20 as thread_id,
                timestamp '2026-05-20' + interval (i) day as created_at, repeat('word it''s ', i::int % 4) as body,
                case i % 3 when 0 then 'billing' when 1 then 'spam' end as category, i % 4 as rating,
                'test' as source, i as source_line
            from range(40) s(i)"""
        )
        written = connection.execute(sql.partition(";")[0]).fetchall()
        assert sorted(connection.execute(checked).fetchall(), key=repr) == sorted(written, key=repr)


@pytest.mark.parametrize(
    "sql",
    [
        "", "-- nothing", "insert into tickets select * from tickets", "select * from tickets; drop table tickets",
        "select * from tickets; select * from tickets", "copy tickets to 'x'", "pragma version", "set threads = 1",
        "attach 'x.duckdb'", "create macro f() as 1", "create table x as select * from tickets", "values (1)",
        "explain select * from tickets", "describe tickets", "install httpfs", "call pragma_version()",
        "pivot tickets on category using count(*)",
    ],
)  # fmt: skip
def test_what_is_no_single_select_is_refused(sql: str) -> None:
    with pytest.raises(SecurityError, match="TG0811"):
        check_select(sql, where="here")


@pytest.mark.parametrize(
    "sql",
    [
        "select * from 'a.csv'", "from 'x.parquet'", "select * from read_csv('a.csv')", "from read_text('/etc/passwd')",
        "select * from glob('*')", "select * from information_schema.tables", "select * from duckdb_settings()",
        "select * from sqlite_master", "select * from duckdb_secrets", "select * from main.tickets",
        "select * from memory.main.tickets", "select t.* from tickets t, range(3)",
        "select t.* from tickets t, unnest([1, 2]) u", "select * from query('select 1')",
        "select * from query_table('tickets')", "with recursive a as (select * from tickets union all from a) from a",
        "select * from tickets where (select count(*) from read_csv('x')) > 1",
        "select * from tickets where body in (select content from 'x.csv')",
        "select * replace ((select content from read_text('x')) as body) from tickets",
        "select * replace (getenv('HOME') as body) from tickets", "select * from tickets where random() > 0.5",
        "select * from tickets order by random() limit 3", "select * from tickets using sample 10",
        "select * from tickets tablesample 10%", "select * from tickets where created_at < now()",
        "select * from tickets where created_at < today()",
        "select * from tickets where created_at < current_timestamp",
        "select * from tickets where created_at < current_date", "select * from tickets where body = current_user",
        "select * from tickets where created_at < localtimestamp",
        "select * from tickets where created_at < get_current_timestamp()",
        "select * replace (uuid() as body) from tickets", "select * replace (gen_random_uuid() as body) from tickets",
        "select * from tickets where nextval('s') > 1", "select * replace (current_setting('x') as body) from tickets",
        "select * from tickets where body = getvariable('x')", "select * from tickets where body = main.lower('x')",
        "select * from tickets where body = $1", "select * from tickets where body = ?",
        "select columns('.*') from tickets", "select * into x from tickets", "select * from tickets for update",
        "select * from (pivot tickets on category using count(*))", "select * from tickets where hash(body) > 1",
        "select * from tickets where body collate nocase = 'x'", "select * from tickets where my_macro(body)",
        "select * from tickets where txid_current() > 1", "select * from tickets where pg_typeof(body) = 'x'",
    ],
)  # fmt: skip
def test_what_reaches_for_something_else_is_refused(sql: str) -> None:
    with pytest.raises(SecurityError, match="TG0811") as error:
        check_select(sql, where="curate.sql.mine: mine.sql")
    assert error.value.where == "curate.sql.mine: mine.sql"


@pytest.mark.parametrize("sql", ["select from", "select * from tickets where (", "selec * from tickets"])
def test_what_does_not_parse_is_refused(sql: str) -> None:
    with pytest.raises((ConfigError, SecurityError), match=r"TG0125|TG0811"):
        check_select(sql)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select 1", "ticket_id is missing"),
        ("select * exclude (body) from tickets", "body is missing"),
        ("select *, 1 as extra from tickets", "extra is not a ticket column"),
        ("select * replace (1 as body) from tickets", "body is INTEGER, must be VARCHAR"),
        ("select * from tickets a join tickets b on a.ticket_id = b.ticket_id", "body appears twice"),
        ("select * from tickets where bodi = 'x'", 'Referenced column "bodi" not found'),
        ("with a as (select 1) select * from tickets where body in (select * from b)", "b"),
    ],
)
def test_columns_that_are_not_those_of_a_ticket_are_refused(sql: str, message: str) -> None:
    with pytest.raises((ConfigError, SecurityError), match=message):
        check_select(sql)


def test_deep_nesting_is_an_error_and_no_crash() -> None:
    with pytest.raises((ConfigError, SecurityError)):
        check_select(f"select * from tickets where {'(' * 20_000}true{')' * 20_000}")


def test_what_sqlglot_cannot_write_is_an_error_with_its_place() -> None:
    with pytest.raises(ConfigError, match="TG0125") as caught:
        check_select("select * from tickets where json_extract(body, '$..*') is null", where="steps.sql")
    assert caught.value.where == "steps.sql"


def test_a_select_is_bound_again_for_other_tables() -> None:
    select = "select t.* replace (n.new as category) from tickets t join names n on n.old = t.category"
    names = [Column(name, "VARCHAR", True, "none", "") for name in ("old", "new")]
    checked = check_select(select, tables={"names": tuple(names)})
    assert check_select(select, tables={"names": tuple(names)}) == checked
    for place in ("first", "second"):
        with pytest.raises(ConfigError, match="category is DATE, must be VARCHAR") as refused:
            check_select(select, where=place, tables={"names": (names[0], replace(names[1], sql_type="DATE"))})
        assert refused.value.where == place
