"""A pipeline of `source` and `curate` alone: its run ends after curation, with its checks as its verdict."""

import json
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from flows.ledger.ledger import Ledger
from schemas.pipeline import DataPipeline, PipelineSpec
from schemas.spec import UnfitError
from tests.support.commands import NOWHERE
from tests.support.shared import made_once
from tests.support.workplace import Workplace

Change = Callable[[dict[str, Any]], None]


def write(folder: Path, n_tickets: int, change: Change = lambda _: None) -> None:
    """Tickets of as many customers, one in ten without a reply, and a pipeline without a model."""
    rows = [
        {
            "ticket_id": f"T-{number:03}",
            "customer_id": f"C-{number}",
            "created_at": f"2026-06-{1 + number % 28:02}T10:00:00Z",
            "body": f"Parcel {number} of {number * 7919} is late, mail me at p{number}@example.org",
            "reply": None if number % 10 == 0 else f"Parcel {number} arrives on day {number % 5}.",
            "category": "delivery",
        }
        for number in range(n_tickets)
    ]
    (folder / "tickets.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    pipeline: dict[str, Any] = {
        "source": {"kind": "files", "paths": ["tickets.jsonl"]},
        "curate": {"steps": [{"uses": "redact"}]},
        "checks": [{"uses": "volume", "min_rows": 30}, {"uses": "nulls", "column": "reply", "severity": "warn"}],
        "schedule": {"retrain": {"min_new": 5}},
    }
    change(pipeline)
    with (folder / "pipelines.yaml").open("w") as stream:
        YAML().dump({"version": 1, "pipelines": {"tickets": pipeline}}, stream)


def workplace_of(folder: Path) -> Workplace:
    import os

    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return Workplace(folder, {**inherited, "PREFECT_API_URL": NOWHERE, "OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A home in which the pipeline has run; only to read from."""

    def make(folder: Path) -> None:
        write(folder, 60)
        done = workplace_of(folder).run("run", "tickets", "--json")
        assert done.returncode == 0, done.stderr
        (folder / "run.json").write_text(done.stdout)

    return workplace_of(made_once(tmp_path_factory, "data_alone", make))


def test_a_run_ends_after_curation_with_its_checks_as_its_verdict(curated: Workplace) -> None:
    outcome = json.loads((curated.folder / "run.json").read_text())
    assert (outcome["verdict"], outcome["exit_code"], outcome["champion"]) == ("DONE", 0, None)
    assert outcome["reason"].startswith("1 of 2 checks warned, 1 passed; ")
    row = Ledger(curated.home).run(outcome["run_id"])
    assert (row.status, row.verdict, row.model_name) == ("DONE", None, "")
    assert not any(step.step in ("encode", "train", "items", "gate") for step in Ledger(curated.home).steps(row.run_id))


def test_its_report_has_the_checks(curated: Workplace) -> None:
    run_id = json.loads((curated.folder / "run.json").read_text())["run_id"]
    report = curated.json("report", "--last", "tickets")
    assert (report["run_id"], report["verdict"]) == (run_id, "DONE")
    assert [(each["name"], each["status"]) for each in report["checks"]] == [
        ("volume", "passed"),
        ("nulls_reply", "failed"),
    ]
    folder = curated.home / "reports" / run_id
    suite = ET.fromstring((folder / "junit.xml").read_text())  # noqa: S314 - written by the run
    assert {case.get("name"): [each.tag for each in case] for case in suite} == {
        "volume": [], "nulls_reply": ["skipped"], "run": [],
    }  # fmt: skip
    assert (suite.get("tests"), suite.get("errors"), suite.get("failures")) == ("3", "0", "0")
    assert "| nulls_reply | raw_tickets | warned |" in (folder / "report.md").read_text()
    assert "No version serves" not in (folder / "report.html").read_text()


def test_commands_about_a_model_say_that_there_is_none(curated: Workplace) -> None:
    done = curated.run("model", "champion", "tickets")
    assert done.returncode == 2
    assert "TG0159" in done.stderr
    assert "data alone" in done.stderr
    assert "data alone" in curated.run("run", "tickets", "--until", "finetune").stderr


def test_plan_and_graph_show_curation_alone(curated: Workplace) -> None:
    plan = curated.json("plan", "tickets")
    assert {step["state"] for step in plan["steps"]} == {"reused"}
    assert (plan["gates"], plan["calls"], plan["champion"]) == ([], [], None)
    assert plan["train_tickets"] + plan["validation_tickets"] + plan["test_tickets"] == 60
    assert {node["stage"] for node in curated.json("graph", "tickets")["nodes"]} == {"curate"}


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_only_a_csv_warns_of_what_a_spreadsheet_would_run(curated: Workplace, form: str, tmp_path: Path) -> None:
    done = curated.run("data", "export", "tickets", "--format", form, "--out", str(tmp_path / "out"))
    assert ("a spreadsheet runs a cell that begins with =" in done.stderr) == (form == "csv")


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_tables_are_exported_with_every_row(curated: Workplace, form: str, tmp_path: Path) -> None:
    made = curated.json("data", "export", "tickets", "--format", form, "--out", str(tmp_path / "out"))
    read = pq.read_table if form == "parquet" else pyarrow.csv.read_csv
    tables = [read(tmp_path / "out" / f"{split}.{form}") for split in ("train", "validation", "test")]
    assert sum(table.num_rows for table in tables) == sum(made["rows"].values()) == 60
    assert made["redacted"] is True
    bodies = [text for table in tables for text in table.column("body").to_pylist()]
    assert all("[EMAIL_1]" in text and "@" not in text for text in bodies)
    assert curated.run("model", "verify", str(tmp_path / "out")).returncode == 0


def test_datasets_loads_the_exported_folder(
    curated: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    out = tmp_path / "out"
    made = curated.json("data", "export", "tickets", "--format", "datasets", "--out", str(out))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {split: loaded[split].num_rows for split in loaded} == made["rows"]
    assert [turn["role"] for turn in loaded["train"][0]["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize("form", ["chatml", "alpaca"])
def test_conversations_leave_out_tickets_without_a_reply_and_list_them(
    curated: Workplace, form: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    made = curated.json(
        "data", "export", "tickets", "--format", form, "--out", str(out), "--system", "Be kind.",
        "--answer", "{reply} ({category})",
    )  # fmt: skip
    rows = [orjson.loads(line) for path in out.glob("t*.jsonl") for line in path.read_bytes().splitlines()]
    if form == "chatml":
        asked = [row["messages"] for row in rows]
        assert {tuple(turn["role"] for turn in turns) for turns in asked} == {("system", "user", "assistant")}
        answers = [turns[-1]["content"] for turns in asked]
    else:
        assert {row["instruction"] for row in rows} == {"Be kind."}
        answers = [row["output"] for row in rows]
    assert all(answer.endswith("(delivery)") for answer in answers)
    # This answer has the category, so only the plain one leaves tickets out.
    assert (sum(made["rows"].values()), made["n_left_out"]) == (60, 0)
    plain = curated.json("data", "export", "tickets", "--format", form, "--out", str(tmp_path / "plain"))
    listed = (tmp_path / "plain" / "left_out.jsonl").read_bytes().splitlines()
    assert plain["n_left_out"] == len(listed) == 6
    assert {orjson.loads(line)["ticket_id"] for line in listed} == {f"T-{number:03}" for number in range(0, 60, 10)}
    assert sum(plain["rows"].values()) == 54


def test_an_unknown_format_lists_those_that_there_are(curated: Workplace, tmp_path: Path) -> None:
    done = curated.run("data", "export", "tickets", "--format", "xml", "--out", str(tmp_path / "out"))
    assert (done.returncode, "TG0185" in done.stderr) == (2, True)
    assert "parquet, datasets, chatml, alpaca, csv" in done.stderr
    wrong = curated.run("data", "export", "tickets", "--user", "{nobody}", "--out", str(tmp_path / "out"))
    assert "error[TG0103]: `{nobody}` is not a ticket column" in wrong.stderr


def test_a_snapshot_that_is_not_there_is_named(curated: Workplace, tmp_path: Path) -> None:
    known = next((curated.home / "warehouse" / "tickets" / "snapshots").iterdir()).name
    done = curated.run("data", "export", "tickets", "--snapshot", "ffff-none", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "TG0159" in done.stderr
    assert known in done.stderr
    assert not (tmp_path / "out").exists()
    assert curated.run("data", "export", "tickets", "--snapshot", "", "--out", str(tmp_path / "out")).returncode == 2
    assert curated.json(
        "data", "export", "tickets", "--snapshot", known[:6], "--out", str(tmp_path / "out")
    )["snapshot_id"] == known  # fmt: skip


READER = """
import sys, duckdb
while True:
    try:
        with duckdb.connect(sys.argv[1], read_only=True) as connection:
            query = "SELECT (SELECT count(*) FROM curated), (SELECT count(*) FROM raw_tickets)"
            print(*connection.execute(query).fetchone(), flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
"""


@contextmanager
def reading(database: Path) -> Iterator[list[str]]:
    """Another process opens and reads the database again and again; the list has what it saw, once it has ended."""
    seen: list[str] = []
    reader = subprocess.Popen([sys.executable, "-c", READER, str(database)], stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    collected = threading.Thread(target=lambda lines: seen.extend(map(str.strip, lines)), args=(reader.stdout,))
    seen.append(reader.stdout.readline().strip())
    collected.start()
    try:
        yield seen
        n_seen = len(seen)
        deadline = time.monotonic() + 60
        while len(seen) < n_seen + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        reader.kill()
        reader.wait()
        collected.join()
        reader.stdout.close()


def test_ticks_skip_until_there_are_enough_new_tickets_and_checks_fail_the_run(tmp_path: Path) -> None:
    write(tmp_path, 40)
    place = workplace_of(tmp_path)
    first = place.json("ops", "tick", "tickets")
    assert (first["verdict"], first["exit_code"]) == ("DONE", 0)
    same = place.json("ops", "tick", "tickets")
    assert same["verdict"] == "SKIP"
    assert same["reason"].startswith(f"nothing changed since run {first['run_id']} (DONE)")
    write(tmp_path, 42)
    few = place.json("ops", "tick", "tickets")
    assert (few["verdict"], few["exit_code"]) == ("SKIP", 0)
    assert few["reason"].startswith("2 new and 0 edited tickets since the last verdict, 5 are needed")
    write(tmp_path, 46)
    with reading(place.home / "warehouse" / "tickets" / "warehouse.duckdb") as seen:
        assert place.json("ops", "tick", "tickets")["verdict"] == "DONE"
    assert seen[0] == "42 42"
    assert set(seen) == {"42 42", "46 46"}  # the old state or the new one, never a fault or a part
    # Without redaction nothing is exported unless it is demanded.
    write(
        tmp_path, 46,
        lambda pipeline: pipeline.update(curate={"steps": []}, checks=[{"uses": "volume", "min_rows": 50}]),
    )  # fmt: skip
    failed = place.run("run", "tickets")
    assert failed.returncode == 3
    assert "TG0222" in failed.stderr
    row = Ledger(place.home).runs(limit=1)[0]
    assert (row.status, row.exit_code) == ("FAILED", 3)
    assert place.json("report", row.run_id)["verdict"] == "ERROR"
    assert 'failure message="46 rows' in (place.home / "reports" / row.run_id / "junit.xml").read_text()
    refused = place.run("data", "export", "tickets", "--out", str(tmp_path / "out"))
    assert (refused.returncode, "TG0185" in refused.stderr) == (2, True)
    exported = place.run("data", "export", "tickets", "--unredacted", "--json", "--out", str(tmp_path / "out"))
    made = json.loads(exported.stdout)
    assert (made["redacted"], sum(made["rows"].values())) == (False, 46)
    assert f"run {row.run_id}, which published this state, failed: TG0222: 1 of 1 check failed" in exported.stderr


def test_a_changed_table_is_a_reason_to_run_what_reads_it_again(tmp_path: Path) -> None:
    (tmp_path / "fixes.csv").write_text("ticket_id,category\nT-001,billing\n")
    (tmp_path / "blocked.csv").write_text("customer_id\nC-2\n")
    (tmp_path / "fixed.sql").write_text(
        "select t.* replace (coalesce(f.category, t.category) as category) from tickets t "
        "left join fixes f using (ticket_id)"
    )
    (tmp_path / "unknown.sql").write_text("select f.ticket_id from fixes f anti join raw_tickets using (ticket_id)")

    def change(pipeline: dict[str, Any]) -> None:
        pipeline["tables"] = {
            "fixes": {"path": "fixes.csv", "key": "ticket_id"},
            "blocked": {"path": "blocked.csv", "key": ["customer_id"]},
        }
        pipeline["curate"]["steps"] += [
            {"uses": "rule", "name": "wanted", "keep": "customer_id not in (select customer_id from blocked)"},
            {"uses": "sql", "name": "fixed", "file": "fixed.sql"},
        ]
        pipeline["checks"] = [{"uses": "sql", "name": "unknown_fixes", "file": "unknown.sql"}]

    write(tmp_path, 40, change)
    place = workplace_of(tmp_path)
    assert place.run("validate").returncode == 0
    assert place.json("run", "tickets")["verdict"] == "DONE"

    def categories() -> dict[str, str]:
        select = "SELECT ticket_id, category FROM curated WHERE category <> 'delivery'"
        rows = place.json("data", "quarantine", "tickets", "--sql", select)["rows"]
        return {row["ticket_id"]: row["category"] for row in rows}

    assert categories() == {"T-001": "billing"}
    lineage = place.json("data", "lineage", "T-002")["pipelines"]["tickets"]["fates"]
    assert [(fate["outcome"], fate["code"]) for fate in lineage] == [("dropped", "wanted")]
    (tmp_path / "fixes.csv").write_text("ticket_id,category\nT-003,returns\nT-999,returns\n")
    planned = {step["step"]: step for step in place.json("plan", "tickets")["steps"]}
    assert {name for name in planned if planned[name]["state"] == "reused"} == {
        "extract",
        "validate",
        "redact",
        "rules",
    }
    assert planned["sql"]["why"] == "another named table"
    failed = place.run("run", "tickets")
    assert (failed.returncode, "unknown_fixes" in failed.stderr) == (3, True)
    assert categories() == {"T-003": "returns"}
    held = place.json("data", "forget", "C-3", "--plan")["held"]
    assert [(each["place"], each["n_rows"]) for each in held if each["fate"] == "yours"] == [
        ("tickets.jsonl", 1),
        ("fixes.csv", 1),  # it names their ticket
    ]
    # The snapshot of this state goes with the customer: an older one is not what is asked for.
    [certificate] = place.json("data", "forget", "C-2", "--apply", "--reason", "case 1")
    assert certificate["sources"] == ["tickets.jsonl: 1 rows", "blocked.csv: 1 rows"]
    gone = place.run("data", "export", "tickets", "--out", str(tmp_path / "out"))
    assert (gone.returncode, "TG0159" in gone.stderr, (tmp_path / "out").exists()) == (2, True, False), gone.stderr
    assert "`tunegate run tickets` makes one" in gone.stderr
    (tmp_path / "fixes.csv").write_text("ticket_id,category\nT-003,returns\nT-003,billing\n")
    refused = place.run("plan", "tickets")
    assert (refused.returncode, "TG0126" in refused.stderr) == (2, True), refused.stderr


def test_the_first_tick_after_a_model_is_declared_trains(workplace: Workplace) -> None:
    models = ("train", "evaluate", "gates", "register")
    workplace.declare(lambda document: document.update(pipelines={"small": {
        key: value for key, value in document["pipelines"]["small"].items() if key not in models
    }}))  # fmt: skip
    assert workplace.json("run", "small")["verdict"] == "DONE"
    workplace.declare()
    assert workplace.json("ops", "tick", "small")["verdict"] == "PROMOTE"
    assert workplace.json("ops", "tick", "small")["verdict"] == "SKIP"


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"tickets": {"path": "a.csv"}}, "'tickets' is the tickets themselves"),
        ({"Fixes": {"path": "a.csv"}}, "a key here should match pattern"),
        ({"fixes": {"path": "a.csv", "keys": "a"}}, "unknown key `pipelines.tickets.tables.fixes.keys`"),
        ({"fixes": {"path": "a.xlsx"}}, "pipelines.tickets.tables.fixes.path"),
        ({"crm": {"path": "a.duckdb"}}, "a DuckDB file needs `table`"),
        ({"fixes": {"path": "a.csv"}}, "TG0110"),
    ],
)
def test_a_table_that_cannot_be_is_refused_at_its_place(tmp_path: Path, tables: dict[str, Any], message: str) -> None:
    write(tmp_path, 1, lambda pipeline: pipeline.update(tables=tables))
    done = workplace_of(tmp_path).run("validate")
    assert done.returncode == 2
    assert message in done.stderr


SOURCE: dict[str, Any] = {"kind": "files", "paths": ["tickets.jsonl"]}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"place": {"finetune": "pool"}}, "there is no stage finetune"),
        ({"schedule": {"retrain": {"min_held_out": "planned"}}}, "there is no gate to plan for"),
        ({"curate": {"steps": [{"uses": "quality", "perplexity": True}]}}, "perplexity is measured with"),
    ],
)
def test_what_needs_a_model_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        DataPipeline.model_validate({"name": "tickets", "source": SOURCE, **more})
    assert isinstance(refused.value.errors()[0]["ctx"]["error"], UnfitError)  # type: ignore[attr-defined]


def test_one_section_about_a_model_needs_the_others(tmp_path: Path) -> None:
    write(tmp_path, 1, lambda pipeline: pipeline.update(evaluate={"max_items": 5}))
    done = workplace_of(tmp_path).run("validate")
    assert done.returncode == 2
    assert all(f"missing key `pipelines.tickets.{name}`" in done.stderr for name in ("train", "gates", "register"))
    assert issubclass(PipelineSpec, DataPipeline)


def test_null_removes_the_sections_that_defaults_give(tmp_path: Path) -> None:
    write(tmp_path, 1)
    text = (tmp_path / "pipelines.yaml").read_text()
    given = "defaults:\n  train: {epochs: 2}\n"
    (tmp_path / "pipelines.yaml").write_text(text.replace("version: 1\n", f"version: 1\n{given}"))
    assert workplace_of(tmp_path).run("validate").returncode == 2
    (tmp_path / "pipelines.yaml").write_text(
        text.replace("version: 1\n", f"version: 1\n{given}").replace("  tickets:\n", "  tickets:\n    train:\n")
    )
    done = workplace_of(tmp_path).run("validate")
    assert done.returncode == 0, done.stderr
