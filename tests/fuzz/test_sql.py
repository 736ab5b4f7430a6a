"""SQL of pipelines.yaml: accepted SQL reads only `tickets`, whatever it looks like."""

import tempfile
from pathlib import Path

import duckdb
from hypothesis import strategies as st

from schemas.errors import ConfigError, SecurityError
from schemas.tables import TICKETS
from tasks.curate.sql.predicate import check_predicate
from tasks.curate.sql.select_sql import check_select
from tasks.storage.warehouse import connect, quote_identifier, quote_text
from tests.fuzz.fuzzing import fuzz, mutated_text

COLUMNS = ", ".join(f"{quote_identifier(column.name)} {column.sql_type}" for column in TICKETS)
SELECTS = [
    "select * from tickets where length(body) > 8; -- done",
    "with tickets as (select * from tickets where rating < 3) select * from tickets union all select * from tickets",
    "select * replace (trim(body) || '!' as body) from tickets qualify row_number() over (partition by thread_id) < 2",
    "select * from hidden", "select * from read_csv('/etc/passwd')", "select * from 'a.parquet'",
    "from duckdb_settings()",
    "copy tickets to 'x'", "attach 'x' as y", "select getenv('HOME')", "select * from information_schema.tables",
    "select * from tickets, hidden", "select * replace ((select max(secret) from hidden) as body) from tickets",
    "pragma database_list", "set threads=1", "select * from tickets /* ; */ ; drop table tickets", "install httpfs",
    "select * from main.hidden", 'select * from "hidden"', "select columns('.*') from tickets", "summarize hidden",
    "select * from (pivot hidden on secret)", "select * from query('select 1')", "select * from query_table('hidden')",
    "select * from tickets t, lateral (select * from hidden)", "values (1)", "table hidden", "call pragma_version()",
]  # fmt: skip
RULES = [
    "length(reply) between 40 and 2000", "body like '%a%' and rating > 1", "exists (select 1 from hidden)",
    "getenv('HOME') = ''", "(select max(secret) from hidden) is null", "body = $1", "true; drop table tickets",
    "random() > 0.5", "hidden.secret = 'x'", "list_filter([1], lambda x: x > 0)", "\"body\" ~ 'a'", "body is not null",
]  # fmt: skip
SECRET = "deep-secret"


def _world(connection: duckdb.DuckDBPyConnection) -> None:
    """A ticket, and a table that no step may read."""
    connection.execute(f"create table tickets ({COLUMNS})")
    connection.execute(
        "insert into tickets by name "
        "select 'a' as ticket_id, 'x' as body, 'y' as reply, 's' as source, 1 as source_line"
    )
    connection.execute(f"create table hidden as select {quote_text(SECRET)} as secret")


def _run(sql: str) -> None:
    with connect(threads=1) as connection:
        _world(connection)
        try:
            rows = connection.execute(sql).fetchall()
        except duckdb.Error:  # a cast or a division that fails on a row
            rows = []
        assert SECRET not in repr(rows)
        assert connection.execute("select count(*) from tickets").fetchall() == [(1,)]
        assert connection.execute("select count(*) from hidden").fetchall() == [(1,)]


@fuzz(mutated_text(SELECTS), examples=80)
def test_accepted_selects_read_only_tickets(sql: str) -> None:
    try:
        checked = check_select(sql)
    except (ConfigError, SecurityError):
        return
    _run(checked)


@fuzz(mutated_text(RULES), examples=80)
def test_accepted_rules_read_only_the_ticket(sql: str) -> None:
    try:
        checked = check_predicate(sql)
    except (ConfigError, SecurityError):
        return
    _run(f"select {checked} from tickets")


@fuzz(mutated_text(SELECTS), examples=40)
def test_a_locked_connection_reads_no_file_even_without_the_checks(sql: str) -> None:
    """The second line of defence: a statement in a locked connection reads no file except the named one."""
    with tempfile.TemporaryDirectory() as folder:
        outside, allowed = Path(folder) / "outside.csv", Path(folder) / "allowed"
        outside.write_text(SECRET)
        allowed.mkdir()
        with connect(readable=(allowed,), threads=1) as connection:
            for statement in (
                sql,
                sql.replace("/etc/passwd", str(outside)),
                sql.replace("'x'", quote_text(str(outside))),
            ):
                try:
                    ran = connection.execute(statement)
                    found = ran.fetchall() if ran is not None else []  # an empty text: nothing to run
                except (duckdb.Error, UnicodeError):
                    continue
                assert SECRET not in repr(found)
        assert outside.read_text() == SECRET
        assert sorted(path.name for path in Path(folder).iterdir()) == ["allowed", "outside.csv"]


@fuzz(st.lists(st.text(max_size=12), min_size=1, max_size=30), examples=8)
def test_quoted_names_and_texts_stay_one_token(names: list[str]) -> None:
    """A quoted name is one name and a quoted text is one text, whatever they contain."""
    with connect(threads=1) as connection:
        for name in names:
            if "\0" not in name:
                assert connection.execute(f"select {quote_text(name)}").fetchall() == [(name,)]
            try:
                quoted = quote_identifier(name)
            except SecurityError:
                continue
            connection.execute(f"create or replace table t ({quoted} integer)")
            assert connection.sql("from t").columns == [name]
