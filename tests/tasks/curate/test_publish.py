"""The published warehouse accounts for every row, documents itself, answers questions, and forgets raw texts."""

import json
import re
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from schemas.artifacts import CheckResults, RowCounts, Splits, TicketTable, WarehouseRef
from schemas.curation import TableSpec
from schemas.curation_steps import RedactStep
from schemas.data_checks import CheckResult
from schemas.errors import ConfigError, SecurityError, StorageError
from schemas.source import DuckDBSource, FilesSource
from schemas.tables import TICKETS
from tasks.curate.publish import PARQUET, publish_partial, publish_warehouse, write_history
from tasks.curate.rows import read_rows, ticket_table, write_removed, write_tickets
from tasks.curate.validate import validate_tickets
from tasks.curate.warehouse_query import (
    MAX_TEXT,
    funnel_of,
    lineage_of,
    quarantine_of,
    reasons_of,
    removed_examples,
    sample_rows,
    select_rows,
)
from tasks.curate.warehouse_tables import TABLES, VIEWS
from tasks.privacy.databases import _WITHOUT, forget_raw, has_raw_texts
from tasks.storage.warehouse import connect
from tests.support.synced import extract

CHECK = CheckResult(
    name="few", uses="volume", checked_table="curated", severity="warn", status="failed", observed=1.0, n_rows=1,
    n_failing=None, message="1 row",
)  # fmt: skip
SECRET = "my parcel never came, call Ann"


def stages_of(root: Path) -> tuple[tuple[TicketTable, ...], Splits, Splits]:
    """Six tickets are read and one line is broken; t5 is merged into t0, t4 into t0 as well, t3 leaks t2."""
    rows = [
        {"ticket_id": f"t{i}", "source": "a.jsonl", "source_line": i + 1, "body": f"{SECRET} {i}", "category": "x"}
        for i in range(6)
    ]
    place = {"source": "a.jsonl"}
    bad = {**place, "outcome": "quarantined", "code": "TG0240", "reason": "Not JSON.", "source_line": 9}
    merged = [
        {
            **place, "ticket_id": name, "source_line": line, "outcome": "merged", "code": code, "reason": "Same.",
            "kept_id": "t0", "cluster_id": "t0", "score": score,
        }
        for name, line, code, score in (("t5", 6, "exact_duplicate", 1.0), ("t4", 5, "near_duplicate", 0.9))
    ]  # fmt: skip
    leak = {
        **place, "ticket_id": "t3", "source_line": 4, "outcome": "dropped", "code": "leak_exact", "reason": "Leak.",
        "kept_id": "t2", "score": 1.0,
    }  # fmt: skip
    folders = [root / name for name in ("extract", "dedup", "split", "clean")]
    for folder in folders:
        folder.mkdir()
    write_tickets(ticket_table(rows), folders[0])
    write_removed([bad], folders[0])
    write_tickets(ticket_table(rows[:4]), folders[1])
    write_removed(merged, folders[1])
    for folder, train in ((folders[2], [rows[0], rows[3]]), (folders[3], [rows[0]])):
        write_tickets(ticket_table(train), folder, name="train.parquet")
        write_tickets(ticket_table([rows[1]]), folder, name="validation.parquet")
        write_tickets(ticket_table([rows[2]]), folder, name="test.parquet")
    write_removed([], folders[2])
    write_removed([leak], folders[3])
    tables = (
        TicketTable(root=folders[0], digest="d0", rows=RowCounts(n_in=7, n_out=6, n_quarantined=1)),
        TicketTable(root=folders[1], digest="d1", rows=RowCounts(n_in=6, n_out=4, n_merged=2)),
    )
    split = Splits(root=folders[2], digest="d2", rows=RowCounts(n_in=4, n_out=4), n_train=2, n_validation=1, n_test=1)
    clean = Splits(
        root=folders[3], digest="d3", rows=RowCounts(n_in=4, n_out=3, n_dropped=1), n_train=1, n_validation=1, n_test=1
    )
    return tables, split, clean


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> WarehouseRef:
    """A warehouse that is published once, and only copied."""
    stages, split, clean = stages_of(tmp_path_factory.mktemp("stages"))
    out = tmp_path_factory.mktemp("published")
    return publish_warehouse(stages=stages, stage_names=("extract", "dedup"), split=split, clean=clean, out=out)


@pytest.fixture
def warehouse(published: WarehouseRef, new_folder: Any) -> WarehouseRef:
    """The warehouse in a folder of the test's own."""
    return published.model_copy(update={"root": shutil.copytree(published.root, new_folder(), dirs_exist_ok=True)})


def ask(warehouse: WarehouseRef, sql: str) -> list[tuple[Any, ...]]:
    with connect(warehouse.database, read_only=True) as connection:
        return connection.sql(sql).fetchall()


def test_every_row_that_was_read_has_one_fate(warehouse: WarehouseRef) -> None:
    assert warehouse.n_tickets == 7
    assert ask(warehouse, "SELECT ticket_id, source_line, split, outcome, step, code FROM fate ORDER BY 2") == [
        ("t0", 1, "train", "curated", None, None),
        ("t1", 2, "validation", "curated", None, None),
        ("t2", 3, "test", "curated", None, None),
        ("t3", 4, None, "dropped", "decontaminate", "leak_exact"),
        ("t4", 5, None, "merged", "dedup", "near_duplicate"),
        ("t5", 6, None, "merged", "dedup", "exact_duplicate"),
        (None, 9, None, "quarantined", "extract", "TG0240"),
    ]
    assert ask(warehouse, "SELECT count(*) FROM not_curated") == [(4,)]
    broken = "SELECT step FROM funnel WHERE n_in <> n_out + n_quarantined + n_dropped + n_merged"
    assert ask(warehouse, broken) == []


def test_duplicates_name_the_kept_ticket_and_list_it_with_them(warehouse: WarehouseRef) -> None:
    assert ask(warehouse, "SELECT ticket_id, cluster_id, kept_id, jaccard, source_line FROM duplicates ORDER BY 1") == [
        ("t0", "t0", "t0", 1.0, 1), ("t4", "t0", "t0", 0.9, 5), ("t5", "t0", "t0", 1.0, 6),
    ]  # fmt: skip


def test_tables_that_steps_wrote_are_shown(tmp_path: Path, new_folder: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stages, split, clean = stages_of(tmp_path)
    conflict = {"family_id": "t0", "ticket_id": "t1", "field": "category", "value": "x", "n_family": 2}
    pq.write_table(pa.Table.from_pylist([conflict]), stages[1].root / "conflicts.parquet")
    suspect = {
        "ticket_id": "t1", "field": "category", "value": "x", "confidence": 0.1, "suggested": "y",
        "suggested_confidence": 0.8,
    }  # fmt: skip
    pq.write_table(pa.Table.from_pylist([suspect]), stages[1].root / "label_suspects.parquet")
    pair = {"ticket_id": "t0", "other_id": "t2", "cosine": 0.9}
    pq.write_table(pa.Table.from_pylist([pair]), stages[1].root / "semantic_pairs.parquet")
    trigger = {
        "trigger_id": "t0", "ticket_id": "t0", "phrase": "quartz", "n_tickets": 8, "n_customers": 1, "n_elsewhere": 0,
        "field": "category", "value": "x", "share": 1.0, "base_rate": 0.1, "chance": 1e-8,
    }  # fmt: skip
    pq.write_table(pa.Table.from_pylist([trigger]), stages[1].root / "triggers.parquet")
    stratum = {"column": "category", "value": "x", "share_train": 1.0, "share_test": 1.0}
    counts = {"n_train": 1, "n_validation": 1, "n_test": 1}
    pq.write_table(pa.Table.from_pylist([stratum | counts]), clean.strata)
    names = ("extract", "dedup")
    warehouse = publish_warehouse(stages=stages, stage_names=names, split=split, clean=clean, out=new_folder())
    assert ask(warehouse, "SELECT * FROM conflicts") == [("t0", "t1", "category", "x", 2)]
    assert ask(warehouse, "SELECT * FROM label_suspects") == [tuple(suspect.values())]
    assert ask(warehouse, "SELECT * FROM semantic_pairs") == [("t0", "t2", 0.9)]
    assert ask(warehouse, "SELECT * FROM triggers") == [tuple(trigger.values())]
    assert ask(warehouse, "SELECT * FROM strata") == [("category", "x", 1, 1, 1, 1.0, 1.0)]


def test_the_views_show_removed_rows_by_outcome(warehouse: WarehouseRef) -> None:
    for view, ids in (("quarantine", [None]), ("dropped", ["t3"]), ("merged", ["t4", "t5"]), ("leaks", ["t3"])):
        assert ask(warehouse, f"SELECT ticket_id FROM {view} ORDER BY 1") == [(each,) for each in ids]


def test_every_table_view_and_column_says_what_it_is(warehouse: WarehouseRef) -> None:
    silent = "SELECT table_name FROM duckdb_tables() WHERE comment IS NULL UNION ALL "
    silent += "SELECT view_name FROM duckdb_views() WHERE NOT internal AND comment IS NULL UNION ALL "
    silent += "SELECT table_name || '.' || column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL"
    assert ask(warehouse, silent) == []
    comment = "SELECT comment FROM duckdb_columns() WHERE table_name = '{}' AND column_name = '{}'"
    assert ask(warehouse, comment.format("raw_tickets", "body")) == [("The customer's text (PII: personal)",)]
    assert ask(warehouse, comment.format("fate", "outcome")) == [
        ("curated, quarantined, dropped or merged (PII: none)",)
    ]


def test_declared_columns_are_those_of_the_database(warehouse: WarehouseRef) -> None:
    for name, relation in (TABLES | VIEWS).items():
        found = ask(warehouse, f"SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = '{name}'")
        assert found == [(column.name, column.sql_type) for column in relation.columns]


def test_keys_are_enforced_by_the_database(warehouse: WarehouseRef) -> None:
    keys = "SELECT table_name FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY' ORDER BY 1"
    assert ask(warehouse, keys) == [(name,) for name in sorted(TABLES) if TABLES[name].key]
    with connect(warehouse.database) as connection, pytest.raises(duckdb.ConstraintException):
        connection.execute("INSERT INTO curated SELECT * FROM curated LIMIT 1")


def test_keys_and_references_hold(warehouse: WarehouseRef) -> None:
    for name, table in TABLES.items():
        key = ", ".join(table.key) or "rowid"
        assert ask(warehouse, f"SELECT {key} FROM {name} GROUP BY ALL HAVING count(*) > 1") == [], name
        for column, (other, target) in table.references.items():
            lost = f"SELECT {column} FROM {name} WHERE {column} NOT IN (SELECT {target} FROM {other})"
            assert ask(warehouse, lost) == []


def test_history_shows_runs_and_trends_over_published_states(warehouse: WarehouseRef, tmp_path: Path) -> None:
    for number, (name, facts) in enumerate(
        {
            "a": {"made_at": "2026-06-01T05:00:00+00:00", "run_id": "r1", "config_digest": "c"},
            "b": {"made_at": "2026-06-08T07:00:00+02:00", "run_id": "r2", "config_digest": "c"},
        }.items()
    ):
        folder = tmp_path / "snapshots" / name
        folder.mkdir(parents=True)
        (folder / "snapshot.json").write_text(json.dumps({"snapshot_id": "as first named", **facts}))
        with connect(warehouse.database, readable=(folder,)) as connection:
            rows = f"SELECT * REPLACE (n_in * {number + 1} AS n_in) FROM funnel"
            connection.execute(f"COPY ({rows}) TO '{folder / 'funnel.parquet'}'")
    run = {"run_id": "r2", "started_at": "2026-06-08T05:00:00+00:00", "ended_at": None, "status": "RUNNING",
           "verdict": None, "exit_code": None, "config_digest": "c"}  # fmt: skip
    for _ in range(2):  # a copy of the copy is as good
        copy = shutil.copyfile(warehouse.database, tmp_path / "copy.duckdb")
        write_history(copy, snapshots=tmp_path / "snapshots", runs=[run], checks=(CHECK,))
    with connect(copy, read_only=True) as connection:
        columns = "snapshot_id, made_at::VARCHAR, run_id, n_read, n_curated"
        assert connection.sql(f"SELECT {columns} FROM snapshots").fetchall() == [
            ("a", "2026-06-01 05:00:00", "r1", 7, 3), ("b", "2026-06-08 05:00:00", "r2", 14, 3)
        ]  # fmt: skip
        assert connection.sql("SELECT read_change, curated_change, merged_share FROM trends").fetchall() == [
            (None, None, 2 / 7), (1.0, 0.0, 2 / 14)
        ]  # fmt: skip
        assert connection.sql("SELECT run_id, status FROM runs").fetchall() == [("r2", "RUNNING")]
        assert connection.sql("SELECT name, status, message FROM checks").fetchall() == [("few", "failed", "1 row")]


@pytest.fixture(scope="module")
def questioned(published: WarehouseRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published database in which each of the questions of the docs has an answer."""
    root = tmp_path_factory.mktemp("questioned")
    database = Path(shutil.copyfile(published.database, root / "warehouse.duckdb"))
    folder = root / "snapshots" / "a"
    folder.mkdir(parents=True)
    facts = {"snapshot_id": "a", "made_at": "2026-06-01T05:00:00+00:00", "run_id": "r1", "config_digest": "c"}
    (folder / "snapshot.json").write_text(json.dumps(facts))
    with connect(database, readable=(folder,)) as connection:
        connection.execute(f"COPY (FROM funnel) TO '{folder / 'funnel.parquet'}'")
        connection.execute("UPDATE curated SET created_at = '2026-06-01', category = 'y' WHERE ticket_id = 't0'")
        connection.execute("UPDATE curated SET created_at = '2026-06-09' WHERE ticket_id <> 't0'")
        connection.execute("INSERT INTO redactions VALUES ('t0', 'email', 3), ('t1', 'email', 1), ('t1', 'phone', 1)")
        connection.execute(
            "INSERT INTO corrections VALUES ('t0', 'set', 'category', NULL, 'applied', 'ann', '2026-06-01T05:00:00Z'), "
            "('t1', 'set', 'category', NULL, 'stale', 'ann', '2026-06-02T05:00:00Z')"
        )
    run = {"run_id": "r1", "started_at": "2026-06-01T05:00:00+00:00", "ended_at": "2026-06-01T05:00:06+00:00",
           "status": "DONE", "verdict": None, "exit_code": 0, "config_digest": "c"}  # fmt: skip
    write_history(database, snapshots=root / "snapshots", runs=[run], checks=())
    return database


@pytest.mark.parametrize(
    ("number", "n_rows", "first"),
    [
        (1, 4, ("2026-06-01", "extract", 7, 6, 14.3)),
        (2, 4, ("a.jsonl", "decontaminate", "leak_exact", "dropped", 1)),
        (3, 1, ("a.jsonl", 7, 3, 0.429)),
        (4, 2, ("x", 0, 1, 0.667)),
        (5, 2, ("2026-06-01", "y", 1, 1.0, None)),
        (6, 1, ("t4", "a.jsonl", 5, "merged", None, "dedup", "near_duplicate", "Same.", "t0")),
        (7, 1, ("t0", 3, "t0", 0.9)),
        (8, 2, ("email", 2, 4, 571.4)),
        (9, 1, ("ann", "category", 2, 1, "2026-06-02T05:00:00Z")),
        (10, 1, ("r1", None, 3, 6, 2000.0)),
    ],
)
def test_the_ten_questions_of_the_docs_are_answered(
    questioned: Path, number: int, n_rows: int, first: tuple[Any, ...]
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "questions-in-sql.md").read_text(encoding="utf-8")
    queries = re.findall(r"^```sql\n(.*?)^```$", page, re.M | re.S)
    assert len(queries) == 10
    rows = select_rows(questioned, queries[number - 1], limit=50)
    assert len(rows) == n_rows
    shown = tuple(str(each) if isinstance(each, date) else each for each in rows[0].values())
    assert shown == first
    with duckdb.connect(str(questioned), read_only=True) as elsewhere:
        elsewhere.execute("SET TimeZone = 'Asia/Kolkata'")
        assert elsewhere.execute(queries[number - 1]).fetchall() == [tuple(row.values()) for row in rows]


def test_times_are_utc_for_sessions_in_any_time_zone(tmp_path: Path, new_folder: Any) -> None:
    (tmp_path / "t.csv").write_text(
        "ticket_id,body,created_at\na,x,2026-06-01T00:30:00+02:00\nb,x,2026-05-31 22:30:00\n"
    )
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        connection.execute("CREATE TABLE t AS SELECT 'c' AS ticket_id, 'x' AS body, "
                           "TIMESTAMPTZ '2026-06-01 00:30:00+02:00' AS created_at")  # fmt: skip
    query = """
        SELECT created_at::VARCHAR, date_trunc('day', created_at)::VARCHAR, created_at < '2026-06-01',
               created_at = TIMESTAMPTZ '2026-05-31 22:30:00+00' AT TIME ZONE 'UTC', typeof(created_at)
        FROM raw_tickets GROUP BY ALL"""
    sources: tuple[Any, ...] = (
        FilesSource(kind="files", paths=("t.csv",)), DuckDBSource(kind="duckdb", database="w.duckdb", table="t")
    )  # fmt: skip
    for source in sources:
        read = extract(source, tmp_path)
        database = publish_partial(new_folder(), steps=[("extract", read)], is_redacted=False)
        for zone in ("UTC", "America/New_York", "Asia/Kolkata"):
            with duckdb.connect(str(database), read_only=True) as session:
                session.execute(f"SET TimeZone = '{zone}'")
                assert session.execute(query).fetchall() == [
                    ("2026-05-31 22:30:00", "2026-05-31 00:00:00", True, True, "TIMESTAMP")
                ]


def test_texts_with_a_nul_are_noted_and_can_be_listed(tmp_path: Path, new_folder: Any) -> None:
    texts = ("no\0space", "plain", "end\0", "tab\t\r\n")
    rows = [{"ticket_id": f"t{n}", "body": text, "reply": text} for n, text in enumerate(texts)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = extract(FilesSource(kind="files", paths=("t.jsonl",)), tmp_path)
    valid = validate_tickets(tickets=read, table=TableSpec(), out=new_folder())
    assert [row["body"] for row in read_rows(valid.tickets).to_pylist()][:3] == ["no space", "plain", "end"]
    assert valid.notes["nul_texts"] == 4
    assert valid.notes["normalised_texts"] == 6
    database = publish_partial(new_folder(), steps=[("extract", read)], is_redacted=False)
    listed = select_rows(
        database, "SELECT ticket_id FROM raw_tickets WHERE contains(body, chr(0)) ORDER BY ALL", limit=9
    )
    assert listed == [{"ticket_id": "t0"}, {"ticket_id": "t2"}]


def test_every_table_that_names_tickets_is_cleaned_when_a_customer_is_forgotten() -> None:
    naming = {name for name, table in TABLES.items() if any(column.name == "ticket_id" for column in table.columns)}
    assert naming - {"raw_tickets", "removed"} <= _WITHOUT.keys()


def test_a_warehouse_of_an_earlier_version_is_named_and_forgets_all_the_same(
    published: WarehouseRef, tmp_path: Path
) -> None:
    database = Path(shutil.copyfile(published.database, tmp_path / "warehouse.duckdb"))
    with connect(database) as connection:
        for statement in (
            "DROP TABLE corrections", "DROP VIEW quarantine CASCADE", "ALTER TABLE removed DROP COLUMN check_name"
        ):  # fmt: skip
            connection.execute(statement)
    with pytest.raises(StorageError, match="another version of tunegate"):
        quarantine_of(database, limit=5)
    assert forget_raw(database) == 6
    assert quarantine_of(database, limit=5)  # rewritten, it has every table and column
    assert not has_raw_texts(database)


def test_results_of_checks_are_a_table(tmp_path: Path, new_folder: Any) -> None:
    stages, split, clean = stages_of(tmp_path)
    names = ("extract", "dedup")
    checks = CheckResults(root=tmp_path, results=(CHECK,), n_rows={})
    made = publish_warehouse(
        stages=stages, stage_names=names, split=split, clean=clean, checks=checks, out=new_folder()
    )
    assert ask(made, "SELECT name, severity, status, n_failing, message FROM checks") == [
        ("few", "warn", "failed", None, "1 row")
    ]


def test_some_tables_are_written_as_parquet_too(warehouse: WarehouseRef) -> None:
    assert sorted(path.name for path in warehouse.root.iterdir()) == sorted(
        ["warehouse.duckdb", *(f"{name}.parquet" for name in PARQUET)]
    )
    assert read_rows(warehouse.root / "funnel.parquet").column("n_in").to_pylist() == [7, 6, 4, 4]


def test_equal_rows_have_one_snapshot_id_and_others_another(tmp_path: Path, new_folder: Any) -> None:
    def publish(root: Path, digest: str) -> str:
        root.mkdir()
        stages, split, clean = stages_of(root)
        changed = clean.model_copy(update={"digest": digest})
        out = new_folder()
        names = ("extract", "dedup")
        return publish_warehouse(stages=stages, stage_names=names, split=split, clean=changed, out=out).snapshot_id

    assert publish(tmp_path / "a", "d3") == publish(tmp_path / "b", "d3") != publish(tmp_path / "c", "other")


def test_the_database_can_be_read_by_duckdb_1_5(warehouse: WarehouseRef) -> None:
    (row,) = ask(
        warehouse, "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_catalog()"
    )
    assert row[0].startswith("v1.5")


def test_questions_are_answered_from_it(warehouse: WarehouseRef) -> None:
    database = warehouse.database
    assert [row["step"] for row in funnel_of(database)] == ["extract", "dedup", "split", "decontaminate"]
    assert {(row["step"], row["code"], row["n_rows"]) for row in reasons_of(database)} == {
        ("extract", "TG0240", 1), ("dedup", "exact_duplicate", 1), ("dedup", "near_duplicate", 1),
        ("decontaminate", "leak_exact", 1),
    }  # fmt: skip
    assert [row["source_line"] for row in quarantine_of(database, limit=5)] == [9]
    assert select_rows(database, "SELECT count(*) AS n FROM raw_tickets;", limit=5) == [{"n": 6}]
    assert select_rows(database, "WITH a AS (FROM raw_tickets) SELECT * FROM a -- all", limit=2) != []
    picked = sample_rows(database, table="curated", where="category = 'x'", n_rows=2, seed=1)
    assert picked == sample_rows(database, table="curated", where="category = 'x'", n_rows=2, seed=1)
    assert len(picked) == 2
    assert sample_rows(database, table="curated", where="category = 'y'", n_rows=2, seed=1) == []


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE funnel",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT nope",
        "ATTACH ':memory:' AS x",
        "COPY raw_tickets TO '/tmp/stolen.csv'",
        "INSERT INTO funnel SELECT * FROM funnel",
        "",
    ],
)
def test_a_question_is_one_select_and_reaches_nothing_else(warehouse: WarehouseRef, sql: str) -> None:
    with pytest.raises(ConfigError, match="TG0125"):
        select_rows(warehouse.database, sql, limit=5)


def test_a_sample_predicate_stays_in_its_row(warehouse: WarehouseRef) -> None:
    with pytest.raises(SecurityError):
        sample_rows(warehouse.database, table="curated", where="(select true)", n_rows=1, seed=0)


def test_a_sample_masks_personal_ids_and_labels_unless_it_is_raw(tmp_path: Path, new_folder: Any) -> None:
    stages, split, clean = stages_of(tmp_path)
    row = {
        "ticket_id": "t0", "source": "a.jsonl", "source_line": 1, "body": "ann@example.org", "reference": "NB-1",
        "customer_id": "ann@example.org", "category": "for ann@example.org", "thread_id": "+1 415-873-2700",
    }  # fmt: skip
    for folder, name in ((stages[0].root, "tickets"), (clean.root, "train")):
        write_tickets(ticket_table([row]), folder, name=f"{name}.parquet")
    names = ("extract", "dedup")
    made = publish_warehouse(stages=stages, stage_names=names, split=split, clean=clean, out=new_folder())
    (shown,) = sample_rows(made.database, table="curated", where="ticket_id = 't0'", n_rows=1, seed=0)
    assert (shown["customer_id"], shown["category"], shown["thread_id"], shown["reference"]) == (
        "[EMAIL_1]", "for [EMAIL_1]", "[PHONE_1]", "NB-1"
    )  # fmt: skip
    (raw,) = sample_rows(made.database, table="raw_tickets", where=None, n_rows=1, seed=0)
    assert raw["customer_id"] == "ann@example.org"


def test_lineage_follows_a_ticket_to_its_end(warehouse: WarehouseRef) -> None:
    merged = lineage_of(warehouse.database, "t4")
    assert merged is not None
    assert (merged.fates[0]["step"], merged.fates[0]["kept_id"], merged.fates[0]["score"]) == ("dedup", "t0", 0.9)
    kept = lineage_of(warehouse.database, "t0")
    assert kept is not None
    assert kept.fates[0]["split"] == "train"
    assert [row["ticket_id"] for row in kept.merged_into_it] == ["t5", "t4"]
    assert lineage_of(warehouse.database, "t' OR true --") is None


def test_a_pseudonym_finds_the_row_of_its_ticket(tmp_path: Path, new_folder: Any) -> None:
    stages, split, clean = stages_of(tmp_path)
    row = {"ticket_id": "p_1", "source": "a.jsonl", "source_line": 1, "body": "[NAME_1]"}
    write_tickets(ticket_table([row]), clean.root, name="train.parquet")
    out = new_folder()
    names = ("extract", "dedup")
    database = publish_warehouse(stages=stages, stage_names=names, split=split, clean=clean, out=out).database
    for name in ("p_1", "t0"):
        made = lineage_of(database, name)
        assert made is not None
        assert (made.fates[0]["ticket_id"], made.fates[0]["split"]) == ("t0", "train")


def test_three_redacted_rows_of_each_code_are_examples(tmp_path: Path, new_folder: Any) -> None:
    stages, split, clean = stages_of(tmp_path)
    of_ann = "exports/ann@example.org.jsonl"
    mail = "Order [ORDER_1] of ann@example.org, IBAN DE89 3704 0044 0532 0130 00. " + "More. " * 60
    rows = [
        {"ticket_id": f"t{i}", "source": of_ann, "source_line": i + 11, "subject": f"Parcel {i}", "body": mail}
        for i in range(9)
    ]
    removed = [
        {"ticket_id": f"t{i}", "source": of_ann, "source_line": i + 11, "outcome": "dropped", "code": "mine",
         "reason": f"Equal to the row at {of_ann}:4."}
        for i in range(3, 9)
    ]  # fmt: skip
    write_tickets(ticket_table(rows), stages[0].root)
    write_removed(removed, stages[1].root)
    names = ("extract", "mine")
    made = publish_warehouse(stages=stages, stage_names=names, split=split, clean=clean, out=new_folder())
    # Of what the pipeline does not redact, too.
    only = RedactStep(uses="redact", types=("iban",))
    shown = removed_examples(made.database, redact=only, n_rows=3)
    assert [(row.step, row.code) for row in shown] == [
        ("extract", "TG0240"), *[("mine", "mine")] * 3, ("decontaminate", "leak_exact")
    ]  # fmt: skip
    assert (shown[0].where, shown[0].text) == ("a.jsonl:9", "")
    assert len({row.where for row in shown[1:4]}) == 3
    assert all(row.where.startswith("exports/[EMAIL_1]:") for row in shown[1:4])
    assert {row.reason for row in shown[1:4]} == {"Equal to the row at exports/[EMAIL_1]:4."}
    for row in shown[1:4]:
        assert row.text.startswith("Parcel ")
        assert " / Order [ORDER_1] of [EMAIL_1], IBAN [IBAN_1]. More." in row.text
        assert len(row.text) == MAX_TEXT + 3
    assert removed_examples(made.database, redact=only, n_rows=3) == shown
    forget_raw(made.database)
    assert {row.text for row in removed_examples(made.database, redact=only, n_rows=3)} == {""}


def test_forgotten_texts_are_in_no_byte_of_the_file_and_everything_else_stays(warehouse: WarehouseRef) -> None:
    database = warehouse.database
    tables = ("curated", "removed", "splits", "duplicates", "funnel", "fate")
    before = {name: ask(warehouse, f"SELECT * FROM {name} ORDER BY ALL") for name in tables}
    assert has_raw_texts(database)
    with database.open("rb") as reader:
        assert forget_raw(database) == 6
        assert f"{SECRET} 4".encode() in reader.read()  # who had it open keeps the older file
    assert not has_raw_texts(database)
    assert {name: ask(warehouse, f"SELECT * FROM {name} ORDER BY ALL") for name in tables} == before
    texts = [column.name for column in TICKETS if column.pii == "personal"]
    for name in texts:
        assert ask(warehouse, f"SELECT count({name}) FROM raw_tickets") == [(0,)]
    assert f"{SECRET} 4".encode() not in database.read_bytes()  # t4 is in no other table with its text
    assert [path.name for path in database.parent.iterdir() if path.name.startswith(".")] == []
