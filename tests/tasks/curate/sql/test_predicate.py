"""Rules' SQL: what is let through and what is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.errors import ConfigError, SecurityError
from schemas.tables import Column
from tasks.curate.sql import functions
from tasks.curate.sql.functions import ALL_FUNCTIONS, ROW_FUNCTIONS
from tasks.curate.sql.predicate import advise_on_predicate, check_predicate
from tasks.curate.sql.select_sql import advise_on_select, check_select
from tasks.storage.warehouse import connect, quote_text

ALLOWED = (
    "length(reply) between 40 and 2000",
    "reply is not null and category in ('billing', 'returns')",
    "not (body ilike '%unsubscribe%' or regexp_matches(body, '(?i)out of office'))",
    "created_at >= timestamp '2026-01-01' and date_trunc('week', created_at) < '2027-01-01'",
    "case when priority = 'high' then length(body) > 10 else length(body) > 30 end",
    "coalesce(length(body), 0) // 2 > 3 and length(body) % 2 = 0",
    "try_cast(source_line as integer) > 3",
    "len(string_split(body, ' ')) > 3 -- words",
    "starts_with(body, 'it''s') or contains(body, $$it's$$)",
    "body ~ '^[a-z ]+$'",
    "json_extract_string(messages, '$[0].role') = 'user' or messages is null",
    "extract(year from created_at) = 2026",
    "body is distinct from reply",
    "category <> 'spam' or category is null",
    "length(body) / 2 > 3.5",
    "body like 'a$_%' escape '$'",
    "true",
)


@pytest.mark.parametrize("sql", ALLOWED)
def test_the_checked_text_decides_as_the_written_one(sql: str) -> None:
    checked = check_predicate(sql)
    with connect(threads=1) as connection:
        connection.execute(
            """create table t as select
                'a_' || i as ticket_id, timestamp '2026-01-01' + interval (i) month as created_at, 'high' as priority,
                repeat('it''s word ', i::int) as body, i as source_line,
                case when i % 3 = 0 then null else repeat('x', i::int * 20) end as reply,
                case i % 3 when 0 then 'billing' when 1 then 'spam' end as category,
                case when i % 2 = 0 then '[{"role":"user"}]' end as messages
            from range(40) s(i)"""
        )
        ids = "select ticket_id from t where ({}\n) order by all"
        assert connection.sql(ids.format(sql)).fetchall() == connection.sql(ids.format(checked)).fetchall()


@pytest.mark.parametrize(
    "sql",
    [
        "true) from tickets where (true",
        "true), (false",
        "body in (select body from tickets)",
        "exists(select 1)",
        "(select true)",
        "read_text('/etc/passwd') is not null",
        "getenv('HOME') = 'x'",
        "current_setting('threads') = 1",
        "random() < 0.5",
        "now() > created_at",
        "current_date > created_at",
        "sum(1) over () > 3",
        "count(*) > 1",
        "body = ?",
        "body = $1",
        "columns(*) is not null",
        "pg_catalog.length(body) > 1",
        "unnest([true])",
        "nextval('s') > 1",
        "uuid() is null",
        "query('select 1') is null",
    ],
)
def test_what_reaches_beyond_its_row_is_refused(sql: str) -> None:
    with pytest.raises(SecurityError, match="TG0811"):
        check_predicate(sql)


@pytest.mark.parametrize("sql", ["true; drop table tickets", "length(reply", "", "from tickets", "-- nothing"])
def test_what_is_no_expression_is_a_configuration_error(sql: str) -> None:
    with pytest.raises((ConfigError, SecurityError), match=r"TG0120|TG0811"):
        check_predicate(sql)


@pytest.mark.parametrize("sql", ["json_extract(body, '$..*') is null", "body -> '$..*' is null"])
def test_what_sqlglot_cannot_write_is_an_error_with_its_place(sql: str) -> None:
    where = "pipelines.yaml: curate.filter.has_order"
    with pytest.raises(ConfigError, match="TG0120") as caught:
        check_predicate(sql, where=where)
    assert caught.value.where == where


def test_an_unknown_column_names_the_near_one() -> None:
    with pytest.raises(ConfigError, match="unknown column replay") as caught:
        check_predicate("length(replay) > 3")
    assert caught.value.hint is not None
    assert "did you mean reply?" in caught.value.hint


CALLS: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_name("function_calls.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def two_tickets() -> Any:
    """A connection with two tickets that every call of a function can take."""
    with connect(threads=1) as connection:
        connection.execute(
            """create table tickets as
            select col0 as body, col1 as category, col2::double as rating, col3 as reply,
                col4 as reference, col5 as messages, col6::bigint as source_line,
                timestamp '2026-05-01 10:11:12' + interval (col6) day as created_at,
                timestamp '2026-06-03 11:00:00' as updated_at
            from (values
                ('my lamp', 'billing', 1, null, '12', '[{"role":"user"}]', 1),
                ('lamp broken', 'returns', 4, 'yes', 'x', '[]', 2))"""
        )
        yield connection


def test_every_allowed_function_can_be_called_in_a_rule_and_keeps_its_value(two_tickets: Any) -> None:
    assert CALLS["rows"].keys() == ROW_FUNCTIONS
    first = "where source_line = 1"
    conditions = {}
    for name, call in CALLS["rows"].items():
        ((value,),) = two_tickets.execute(f"select ({call})::varchar from tickets {first}").fetchall()
        conditions[name] = f"({call})::varchar is not distinct from {'null' if value is None else quote_text(value)}"
    checked = check_predicate(" and ".join(f"coalesce({each}, false)" for each in conditions.values()))
    assert two_tickets.execute(f"select {checked} from tickets {first}").fetchall() == [(True,)]


def test_every_allowed_function_can_be_called_in_a_select_and_keeps_its_value(two_tickets: Any) -> None:
    calls = CALLS["rows"] | CALLS["aggregates"]
    assert calls.keys() == ALL_FUNCTIONS
    rows = [f"({call})::varchar" for call in CALLS["rows"].values()]
    # Aggregates and windows need a SELECT of their own.
    rows += [
        f"(select string_agg(x::varchar, '|' order by x::varchar) from (select {call} as x from tickets) s)"
        for call in CALLS["aggregates"].values()
    ]
    values = ", ".join(f"coalesce({each}, 'null')" for each in rows)
    select = f"select * replace (concat_ws('\n', {values}) as body) from tickets"
    written, checked = (two_tickets.sql(sql).fetchall()[0][0].split("\n") for sql in (select, check_select(select)))
    assert dict(zip(calls, checked, strict=True)) == dict(zip(calls, written, strict=True))


@pytest.mark.parametrize("rule", ["category != null", "category <> NULL", "null = category"])
def test_a_comparison_with_null_causes_a_warning(rule: str) -> None:
    (advice,) = advise_on_predicate(rule)
    assert "is never true; write `is null` or `is not null`" in advice
    assert advise_on_select(f"select * from tickets where {rule}") == [advice]
    assert advise_on_predicate("category is not null and reply is distinct from null") == []


def test_text_in_double_quotes_is_an_unknown_column() -> None:
    with pytest.raises(ConfigError, match="unknown column high") as caught:
        check_predicate('priority = "high"')
    assert "single quotes" in str(caught.value.hint)


def test_a_number_is_no_rule_and_no_argument_of_another_type_is_taken() -> None:
    with pytest.raises(ConfigError, match=r"TG0120.*this one is BIGINT"):
        check_predicate("length(reply)")
    with pytest.raises(ConfigError, match="TG0120"):
        check_predicate("length(created_at) > 3")


def test_an_expression_nested_too_deeply_is_refused_without_a_crash() -> None:
    with pytest.raises((ConfigError, SecurityError)):
        check_predicate("(" * 5000 + "true" + ")" * 5000)


def test_a_rule_is_bound_once_for_the_same_tables_and_again_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = []

    @contextmanager
    def counted(**options: Any) -> Iterator[Any]:
        bound.append(options)
        with connect(**options) as connection:
            yield connection

    monkeypatch.setattr(functions, "connect", counted)
    rule = "length(body) > 3 and category in (select name from wanted)"
    texts = {"wanted": (Column("name", "VARCHAR", True, "none", ""),)}
    numbers = {"wanted": (Column("name", "DATE", True, "none", ""),)}
    assert check_predicate(rule, tables=texts) == check_predicate(rule, tables=texts)
    assert len(bound) == 1
    for place in ("first", "second"):
        with pytest.raises(ConfigError, match="DuckDB refuses the rule") as refused:
            check_predicate(rule, where=place, tables=numbers)
        assert refused.value.where == place
        with pytest.raises(ConfigError, match="this one is VARCHAR") as refused:
            check_predicate("lower(body || 'x')", where=place)
        assert refused.value.where == place
