"""Named tables: SQL steps, rules and SQL checks read them, and nothing else."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from schemas.curation_steps import RuleStep, SqlStep
from schemas.errors import ConfigError, DataError, SecurityError, TunegateError
from schemas.named_tables import NamedTable, NamedTables
from tasks.curate.named_tables import columns_of, read_table, read_tables, tables_used
from tasks.curate.rules import apply_rules
from tasks.curate.sql.predicate import check_predicate
from tasks.curate.sql_step import select_tickets

ROWS = [
    {"ticket_id": f"00{number}", "source": "test", "source_line": number, "customer_id": f"c{number % 3}", "body": "b"}
    for number in range(6)
]
STEP = SqlStep(uses="sql", name="fixed", file="fixed.sql")


@pytest.fixture
def declared(tmp_path: Path) -> dict[str, NamedTable]:
    (tmp_path / "fixes.csv").write_text("ticket_id,category\n001,billing\n004,\n")
    with duckdb.connect(str(tmp_path / "crm.duckdb")) as database:
        database.execute("CREATE TABLE plans AS SELECT 'c1' AS customer_id, 3 AS seats UNION ALL SELECT 'c2', 40")
    return {
        "fixes": NamedTable(path="fixes.csv", key="ticket_id"),
        "plans": NamedTable(path="crm.duckdb", table="plans", key=("customer_id",)),
    }


@pytest.fixture
def tables(declared: dict[str, NamedTable], tmp_path: Path) -> NamedTables:
    return tables_used(declared, ["fixes", "plans"], tmp_path)


def test_a_step_joins_them_and_texts_keep_their_zeros(
    tables: NamedTables, tmp_path: Path, make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    sql = (
        "select t.* replace (f.category as category, p.seats::varchar as priority) from tickets t "
        "left join fixes f using (ticket_id) left join plans p on p.customer_id = t.customer_id"
    )
    result = select_tickets(
        tickets=make_tickets(ROWS), step=STEP, select=sql, out=new_folder(), tables=tables, root=tmp_path
    )
    rows = rows_of(result.tickets)
    assert [rows[f"00{number}"]["category"] for number in range(6)] == [None, "billing", None, None, None, None]
    assert [rows[f"00{number}"]["priority"] for number in range(3)] == [None, "3", "40"]


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("ticket_id not in (select ticket_id from fixes)", "0235"),
        ("exists (select 1 from plans where plans.customer_id = tickets.customer_id and seats > 10)", "25"),
        ("coalesce((select p.seats from plans p where p.customer_id = tickets.customer_id), 0) < 40", "0134"),
    ],
)
def test_a_rule_looks_its_row_up(
    tables: NamedTables, tmp_path: Path, make_tickets: Any, new_folder: Any, rows_of: Any, rule: str, kept: str
) -> None:
    rules = (RuleStep(uses="rule", name="known", keep=rule),)
    result = apply_rules(tickets=make_tickets(ROWS), rules=rules, out=new_folder(), tables=tables, root=tmp_path)
    assert list(rows_of(result.tickets)) == [f"00{number}" for number in kept]
    assert result.rows.n_dropped == 6 - len(kept)


@pytest.mark.parametrize(
    "rule",
    [
        "ticket_id in (select ticket_id from tickets)",  # a rule decides from its own row
        "ticket_id in (select ticket_id from read_csv('fixes.csv'))",
        "ticket_id in (select ticket_id from main.fixes)",
        "ticket_id in (select ticket_id from fixes limit 1)",
        "(select max(seats) from plans) > 3",
        "ticket_id in (select ticket_id from fixes union select ticket_id from tickets)",
        "ticket_id in (with x as (select * from tickets) select ticket_id from x)",
        "exists (select 1 from fixes, (select * from tickets) t)",
        "ticket_id in (select * from fixes)",
        "ticket_id in (select any_value(ticket_id) over () from fixes)",
        "ticket_id in (select ticket_id from fixes tablesample 50%)",
        "exists (select 1 from fixes positional join plans)",
        "ticket_id in (select customer_id from plans p asof join fixes f on p.customer_id >= f.ticket_id)",
    ],
)
def test_a_rule_reaches_no_other_ticket_file_or_choice(tables: NamedTables, tmp_path: Path, rule: str) -> None:
    with pytest.raises(SecurityError, match="TG0811"):
        check_predicate(rule, tables=columns_of(read_tables(tables, tmp_path)))


def test_a_misspelled_column_is_named_by_the_database(tables: NamedTables, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"TG0120.*seat"):
        check_predicate("exists (select 1 from plans where seat > 3)", tables=columns_of(read_tables(tables, tmp_path)))
    columns = columns_of(read_tables(tables, tmp_path))
    with pytest.raises(ConfigError, match=r"TG0120.*unknown column bod;"):  # of the ticket itself, as without tables
        check_predicate("bod is not null and ticket_id in (select ticket_id from fixes)", tables=columns)
    for place in ("rowid in (select seats from plans)", "exists (select 1 from plans where rowid > 1)"):
        with pytest.raises(ConfigError, match=r"TG0120.*rowid"):
            check_predicate(place, tables=columns)
    with pytest.raises(SecurityError, match="TG0811"):
        check_predicate("ticket_id in (select ticket_id from fixes)")  # not declared


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (NamedTable(path="none.csv"), "TG0110"),
        (NamedTable(path="../fixes.csv"), "TG0818"),
        (NamedTable(path="fixes.csv", key="ticket"), "has no column 'ticket'"),
        (NamedTable(path="fixes.csv", key="category"), "null in 1 rows and repeated in 0"),
        (NamedTable(path="twice.csv", key=("a",)), "null in 0 rows and repeated in 1"),
        (NamedTable(path="crm.duckdb", table="plan"), "has no table 'plan'"),
        (NamedTable(path="broken.parquet"), "TG0126"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tables: NamedTables, tmp_path: Path, table: NamedTable, message: str
) -> None:
    (tmp_path / "twice.csv").write_text("a,b\nsecret,1\nsecret,2\n")
    (tmp_path / "broken.parquet").write_text("no")
    with pytest.raises(TunegateError) as refused:
        read_table("mine", table, tmp_path)
    assert message in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        # DuckDB guesses the form of these: it takes "3,I can't, sorry" for the header and loses all rows.
        ("ticket_id,reply\n1,it's late\n2,don't\n", [("1", "it's late"), ("2", "don't")]),
        ("ticket_id\na;b\nc;d\n", [("a;b",), ("c;d",)]),
        ("tag,n\n#one,\n'x',\"\"\n", [("#one", None), ("'x'", None)]),
        ("id,text\n" + "1,plain\n" * 3000 + '2,"a, b\nc"\n', [*[("1", "plain")] * 3000, ("2", "a, b\nc")]),
        ("id,reply\n", []),
    ],
)
def test_a_csv_is_read_by_its_form_and_never_guessed(tmp_path: Path, text: str, rows: list[tuple[str, ...]]) -> None:
    (tmp_path / "a.csv").write_text(text)
    table = read_table("mine", NamedTable(path="a.csv"), tmp_path)
    assert table.column_names == text.partition("\n")[0].split(",")
    assert [tuple(row.values()) for row in table.to_pylist()] == rows


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"ticket_id,reply\n1,secret, sorry\n", "line 2 of a.csv: The row has 3 fields, the header has 2."),
        (b"Export of May\nticket_id,reply\n1,secret\n", "line 2 of a.csv: The row has 2 fields, the header has 1."),
        (b'a,b\n1,"secret\n2,y\n', "line 2 of a.csv: A quote is never closed."),
        (b"a,b\n1,caf\xe9\n", "line 2 of a.csv: Field b is not UTF-8."),
        (b"a;b\n1;2\n", 'set `csv: {delimiter: ";"}` in `tables.mine`'),
        (b"a,a\n1,2\n", "column a occurs twice"),
        (b"a,A\n1,2\n", "two columns of one name"),
        (b"", "the file is empty"),
    ],
)
def test_a_csv_with_a_fault_is_no_table(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(ConfigError, match="TG0126") as refused:
        read_table("mine", NamedTable(path="a.csv"), tmp_path)
    assert message in str(refused.value)
    assert "secret" not in str(refused.value)


def test_delimiter_and_encoding_of_a_csv_are_declared(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("sep=;\nort;n\nKöln;1,5\n".encode("windows-1252"))
    table = NamedTable.model_validate({"path": "a.csv", "csv": {"delimiter": ";", "encoding": "windows-1252"}})
    assert read_table("mine", table, tmp_path).to_pylist() == [{"ort": "Köln", "n": "1,5"}]
    with pytest.raises(ValueError, match="`csv` is for CSV files"):
        NamedTable.model_validate({"path": "a.parquet", "csv": {"delimiter": ";"}})


def test_a_step_depends_on_the_tables_that_its_sql_names(declared: dict[str, NamedTable], tmp_path: Path) -> None:
    def used(sql: str) -> NamedTables:
        return tables_used(declared, [sql], tmp_path)

    assert used("select * from tickets") == ()
    before = used("select * from tickets join Plans using (customer_id)")
    assert [name for name, *_ in before] == ["plans"]
    with duckdb.connect(str(tmp_path / "crm.duckdb")) as database:
        database.execute("INSERT INTO plans VALUES ('c0', 1)")
    assert used("select * from plans") != before


@pytest.mark.parametrize("name", ["fixes", "plans"])
def test_a_file_that_is_not_the_one_of_the_key_is_no_table(tables: NamedTables, tmp_path: Path, name: str) -> None:
    (tmp_path / "fixes.csv").write_text("ticket_id,category\n002,returns\n")
    with duckdb.connect(str(tmp_path / "crm.duckdb")) as database:
        database.execute("INSERT INTO plans VALUES ('c0', 1)")
    with pytest.raises(DataError, match="TG0203") as refused:
        read_tables(tuple(each for each in tables if each[0] == name), tmp_path)
    assert refused.value.where == f"tables.{name}"


def test_a_database_needs_a_table_and_a_file_has_none() -> None:
    for wrong in ({"path": "a.duckdb"}, {"path": "a.csv", "table": "a"}, {"path": "a.txt"}):
        with pytest.raises(ValueError, match=r"table|pattern"):
            NamedTable.model_validate(wrong)
