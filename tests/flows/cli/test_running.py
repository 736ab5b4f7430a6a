"""`tunegate run` from tickets to a verdict: every part is real, the model is tiny."""

import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.cli import running
from flows.views.report import report_folder
from tasks.storage.sealed_folder import seal
from tests.support.workplace import Workplace

NOWHERE = "http://127.0.0.1:9"
"""A port without a listener."""
NO_MLFLOW = {"MLFLOW_TRACKING_URI": NOWHERE, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


def steps_of(workplace: Workplace, run_id: str) -> dict[str, dict[str, Any]]:
    """The steps of a run: name -> row."""
    return {row["step"]: row for row in workplace.json("show", run_id)["steps"]}


def aliases(home: Path) -> dict[str, int]:
    """MLflow's aliases of the model `small`: alias -> version."""
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as db:
        return dict(db.execute("SELECT alias, version FROM registered_model_aliases WHERE name = 'small'"))


def test_plan_warns_of_a_training_that_cannot_fit_and_run_refuses_it(workplace: Workplace) -> None:
    assert workplace.run("run", "small", "--until", "finetune").returncode == 0
    workplace.declare(lambda document: document["pipelines"]["small"]["train"].update(batch_size=2**24))
    planned = workplace.run("plan", "small")
    assert "warning the training will be refused" in " ".join(planned.stderr.split())
    refused = workplace.run("run", "small")
    assert refused.returncode == 4
    assert "TG0405" in refused.stderr
    assert "this fits: train.batch_size" in " ".join(refused.stderr.split())


def test_an_unreachable_mlflow_is_noted_and_synced_later(workplace: Workplace) -> None:
    workplace.declare(lambda document: document["pipelines"]["small"]["gates"].update(confidence=0.99))
    for words in (("init", "-q"), ("add", "pipelines.yaml"), ("commit", "-qm", "A stricter gate")):
        git = ("git", "-c", "user.name=ada", "-c", "user.email=ada@example.org")
        subprocess.run([*git, *words], cwd=workplace.folder, check=True)
    workplace.declare()
    against = ("--against", "HEAD", "--markdown", "summary.md")
    done = workplace.run("run", "small", "--json", *against, **NO_MLFLOW)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["verdict"] == "PROMOTE"
    assert len(outcome["weaker"]) == 1
    assert outcome["weaker"][0].startswith("confidence is 0.")
    summary = (workplace.folder / "summary.md").read_text()
    assert summary.startswith("<!-- tunegate: small -->\n## The gate is weaker than on the base branch\n")
    assert f"\n- {outcome['weaker'][0]}\n\n## PROMOTE: small\n" in summary
    assert outcome["mlflow_pending"] > 0
    assert "sync pending" in done.stderr
    assert "tunegate ops reconcile" in done.stderr
    assert workplace.run("ops", "reconcile", **NO_MLFLOW).returncode == 7
    assert workplace.run("ops", "reconcile").returncode == 0
    assert aliases(workplace.home) == {"champion": 1}
    with closing(sqlite3.connect(workplace.home / "mlflow" / "mlflow.db")) as db:
        tags, params = (dict(db.execute(f"SELECT key, value FROM {table}")) for table in ("tags", "params"))
    assert tags["mlflow.note.content"].startswith("**PROMOTE**\n\nchampion: none\n\nanswered 1.000")
    assert (tags["tunegate.verdict"], tags["tunegate.champion"]) == ("PROMOTE", "none")
    assert len([name for name in tags if name.startswith("tunegate.")]) < 10
    assert params["train.max_steps"] == "6"
    assert "train.learning_rate" not in params  # a default, which the user did not write
    [digests] = (workplace.home / "mlflow" / "artifacts").rglob("digests.json")
    assert len(json.loads(digests.read_text())["train"]) == 64
    with closing(sqlite3.connect(workplace.home / "mlflow" / "mlflow.db")) as db:
        datasets = dict(db.execute("SELECT name, dataset_profile FROM datasets"))
        scores = {name for (name,) in db.execute("SELECT DISTINCT dataset_name FROM logged_model_metrics")}
    assert sorted(datasets) == ["small-held-out", "small-train", "small-validation"]
    for profile in map(json.loads, datasets.values()):
        assert profile["labels"]
        assert all(0 < sum(counts.values()) <= profile["num_rows"] for counts in profile["labels"].values())
    assert scores == {"small-held-out"}
    tables = sorted((workplace.home / "mlflow" / "artifacts").rglob("items.json"))
    assert [path.parent.name for path in tables] == ["artifacts", outcome["run_id"]]  # the run's, and the verdict's
    table = json.loads(tables[0].read_text())
    assert {"item_sha256", "exact"} <= set(table["columns"])
    assert len(table["data"]) == json.loads(datasets["small-held-out"])["num_rows"]
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": "items.json", "type": "table"}]


def test_require_mlflow_exits_with_code_7_without_mlflow(workplace: Workplace) -> None:
    done = workplace.run("run", "small", "--require-mlflow", **NO_MLFLOW)
    assert done.returncode == 7, done.stderr
    assert workplace.json("model", "champion", "small")["champion"]["version"] == "1"


def test_a_metric_that_is_always_1_promotes_nothing(workplace: Workplace) -> None:
    def change(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["evaluate"]["metrics"][0]["select"] = "SELECT item_id, 1 AS value FROM items"

    workplace.declare(change)
    done = workplace.run("run", "small")
    assert done.returncode == 8
    said = " ".join(done.stderr.split())
    assert (
        "answered is 1.000 for the reference answers, 1.000 for those of other items, 1.000 for several of them joined "
        "and 1.000 for empty ones" in said
    )
    assert workplace.json("runs")["runs"][0]["verdict"] == "HOLD"


def test_bad_data_exits_with_code_3_and_the_quarantine_error(workplace: Workplace) -> None:
    workplace.declare(lambda document: document["pipelines"]["small"]["schema"].update(fail_above=0.0))
    done = workplace.run("run", "small")
    assert done.returncode == 3, done.stderr
    assert "TG0220" in done.stderr
    assert workplace.json("runs")["runs"][0]["status"] == "FAILED"


@pytest.mark.parametrize(
    ("command", "source", "code"),
    [
        (("data", "curate", "small"), {}, 3),  # a quick stage: a server would take longer to start
        (("plan", "small"), {}, 3),  # too many faulty rows, as the run would find
        (("init", "--from", "tickets.csv", "--config", "other.yaml"), {}, 0),
        (("run", "small"), {"kind": "files", "paths": ["missing.csv"]}, 3),
        (("run", "small"), {"kind": "files", "paths": ["tickets.csv"], "columns": {"body": "txt"}}, 3),
    ],
)
def test_no_server_is_started_for_short_commands_and_for_a_source_that_cannot_be_read(
    empty_workplace: Workplace, command: tuple[str, ...], source: dict[str, Any], code: int
) -> None:
    workplace, state = empty_workplace, empty_workplace.folder / "state"
    workplace.environ["XDG_STATE_HOME"] = str(state)
    del workplace.environ["PREFECT_API_URL"]
    rows = [f"{n},my parcel {n} is late,We are looking for parcel {n}.,billing" for n in range(40)]
    (workplace.folder / "tickets.csv").write_text("\n".join(["id,text,reply,label", *rows]))

    def change(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["schema"].update(fail_above=0.0)
        document["pipelines"]["small"]["source"] = source or document["pipelines"]["small"]["source"]

    workplace.declare(change)
    done = workplace.run(*command)
    assert done.returncode == code, done.stderr
    assert "Prefect" not in done.stderr
    assert [*state.rglob("server.log"), *workplace.home.rglob("server.log")] == []


def test_a_stage_runs_alone(workplace: Workplace) -> None:
    outcome = workplace.json("run", "small", "--until", "curate")
    assert outcome["verdict"] == "DONE"
    rows = steps_of(workplace, outcome["run_id"])
    assert list(rows) == [
        "extract", "validate", "redact", "rules", "dedup", "contract", "split", "decontaminate", "warehouse", "card",
    ]  # fmt: skip
    for row in rows.values():
        if row["n_in"] is not None:
            assert row["n_out"] <= row["n_in"]


def test_the_champion_answers_and_rolls_back(workplace: Workplace) -> None:
    assert workplace.json("run", "small")["champion"] == "1"
    found = workplace.json("data", "diff", "small@champion", "small@1")
    assert found["counts"]["same"] == found["after"]["tickets"]["all"] > 0
    earlier = Path(workplace.json("model", "champion", "small")["champion"]["bundle"]["root"])
    workplace.declare(lambda document: document["pipelines"]["small"]["train"].update(seed=1))  # already trained
    assert workplace.json("run", "small")["champion"] == "2"
    (workplace.folder / "ticket.txt").write_text("Order NB-12345 has not arrived.")
    answer = workplace.json("predict", "small", "--file", "ticket.txt")
    assert answer["version"] == "2"
    assert isinstance(answer["reply"], str)
    assert workplace.run("predict", "small", "--file", "ticket.txt").stdout == answer["reply"] + "\n"
    (workplace.folder / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    for name in ("latin.txt", "absent.txt"):
        done = workplace.run("predict", "small", "--file", name)
        assert done.returncode == 2
        assert "TG0110" in done.stderr

    serving = earlier / "serving.json"
    kept = serving.read_bytes()
    serving.write_bytes(kept + b" ")
    assert workplace.run("model", "rollback", "small", "--reason", "worse in production").returncode == 1
    assert workplace.json("model", "champion", "small")["champion"]["version"] == "2"
    serving.write_bytes(kept)
    assert workplace.run("model", "rollback", "small", "--reason", "worse in production").returncode == 0
    assert workplace.json("model", "champion", "small")["champion"]["version"] == "1"
    assert aliases(workplace.home)["champion"] == 1
    assert workplace.run("ops", "doctor", PREFECT_API_URL="").returncode == 0


def test_a_damaged_champion_is_found_and_not_served(workplace: Workplace) -> None:
    workplace.json("run", "small")
    bundle = Path(workplace.json("model", "champion", "small")["champion"]["bundle"]["root"])
    weights = bundle / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    (workplace.folder / "ticket.txt").write_text("Order NB-12345 has not arrived.")
    done = workplace.run("predict", "small", "--file", "ticket.txt")
    assert done.returncode == 1
    assert "adapter_model.safetensors" in done.stderr
    assert workplace.run("ops", "doctor", PREFECT_API_URL="").returncode == 1
    seal(bundle)  # the manifest matches the files again, but they are not what was promoted
    result = json.loads(workplace.run("ops", "doctor", "--json", PREFECT_API_URL="").stdout)
    assert not result["fit"]
    assert [each["state"] for each in result["findings"] if "not what the ledger recorded" in each["message"]] == [
        "bad"
    ]


def test_a_run_as_of_a_day_judges_the_tickets_of_then_and_changes_nothing(workplace: Workplace) -> None:
    now = {"TUNEGATE_NOW": "2026-08-01T06:00:00+00:00"}
    first = json.loads(workplace.run("run", "small", "--json", **now).stdout)
    assert (first["verdict"], first["champion"], first["as_of"]) == ("PROMOTE", "1", None)
    published = (workplace.home / "warehouse" / "small" / "warehouse.duckdb").read_bytes()
    history = workplace.json("model", "history", "small", "--candidates")

    done = workplace.run("run", "small", "--as-of", "2026-07-12", "--json", **now)
    past = json.loads(done.stdout)
    assert (past["as_of"], past["version"], past["champion"]) == ("2026-07-12", None, "1"), done.stderr
    assert past["reason"].startswith(f"as of 2026-07-12 the gate would have said {past['verdict']}: ")
    assert past["exit_code"] == done.returncode == {"PROMOTE": 0, "HOLD": 8, "BLOCK": 5}[past["verdict"]]

    # Tickets of then, and no champion: the first one was promoted on August 1.
    steps = steps_of(workplace, past["run_id"])
    (place,) = (workplace.home / "store" / "extract").glob(steps["extract"]["key"])
    newest = pq.read_table(place / "tickets.parquet")["created_at"].to_pylist()
    assert datetime(2026, 7, 12) <= max(newest) < datetime(2026, 7, 13)
    assert steps["extract"]["n_in"] > steps["extract"]["n_out"] > 100
    assert (
        json.loads((report_folder(workplace.home, past["run_id"]) / "report.json").read_text())["compared_with"] is None
    )
    page = (report_folder(workplace.home, past["run_id"]) / "report.html").read_text()
    assert f"As of 2026-07-12 the gate would have said {past['verdict']}" in page

    # No alias, no candidate, no mark of the newest ticket, no published table; a normal run is up to date as before.
    assert workplace.json("model", "history", "small", "--candidates") == history
    assert workplace.json("show", past["run_id"])["snapshot"] is None
    assert (workplace.home / "warehouse" / "small" / "warehouse.duckdb").read_bytes() == published
    assert [row["as_of"] for row in workplace.json("runs")["runs"]] == ["2026-07-12", None]
    assert workplace.run("model", "export", past["run_id"], "--format", "adapter", "--out", "x").returncode == 2
    assert json.loads(workplace.run("run", "small", "--json", **now).stdout)["verdict"] == "SKIP"

    # A day later it is judged against the champion of then, with every result of curation reused.
    then = workplace.run("run", "small", "--as-of", "2026-08-01", "--json", TUNEGATE_NOW="2026-08-02T00:00:00+00:00")
    report = report_folder(workplace.home, json.loads(then.stdout)["run_id"]) / "report.json"
    assert json.loads(report.read_text())["compared_with"] == "1"


@pytest.mark.parametrize("day", ["2026-08-01", "2026-13-01", "20260712", "2026-07-12T10:00", "yesterday"])
def test_a_day_that_is_not_over_or_no_date_is_refused(workplace: Workplace, day: str) -> None:
    refused = workplace.run("run", "small", "--as-of", day, TUNEGATE_NOW="2026-08-01T23:59:59+00:00")
    assert refused.returncode == 2
    assert "TG0103" in refused.stderr
    assert "a day before 2026-08-01" in " ".join(refused.stderr.split())


def test_a_training_over_its_budget_by_past_runs_is_refused_before_it_starts(workplace: Workplace) -> None:
    def declare(seed: int, **budget: float) -> None:
        changes = {"seed": seed, **({"budget": budget} if budget else {})}
        workplace.declare(lambda document: document["pipelines"]["small"]["train"].update(changes))

    declare(11)  # the store has a training with another seed
    assert workplace.run("run", "small", "--until", "finetune").returncode == 0
    declare(12, minutes=0.0001)
    planned = workplace.run("plan", "small")
    assert "warning the training will be refused: it would use about" in " ".join(planned.stderr.split())
    refused = workplace.run("run", "small", "--until", "finetune")
    assert refused.returncode == 4
    words = " ".join(refused.stderr.split())
    assert "TG0406" in words
    assert "of 0.0001 minutes of train.budget, by the pace of past runs; it was not started" in words
    assert "raise train.budget, or train less" in words
    assert not list((workplace.home / "scratch").glob("train/*"))
    (last, *_) = workplace.json("runs")["runs"]
    assert (last["status"], last["reason"].partition(":")[0]) == ("FAILED", "TG0406")
    # What is in the store already is not trained, so it needs no budget; and the budget is in no key.
    declare(11, minutes=0.0001)
    assert workplace.run("run", "small", "--until", "finetune").returncode == 0


def test_settings_of_one_run_are_recorded_with_it_and_leave_the_marks_of_the_pipeline(workplace: Workplace) -> None:
    # The store has the training with this seed, of the pipeline `strict`.
    done = workplace.run("run", "small", "--set", "train.seed=1", "--json")
    outcome = json.loads(done.stdout)
    assert outcome["set"] == ["train.seed=1"]
    assert "settings of this run alone: train.seed=1" in done.stderr
    shown = workplace.json("show", outcome["run_id"])
    assert (shown["set"], shown["snapshot"]) == (["train.seed=1"], None)
    assert steps_of(workplace, outcome["run_id"])["train"]["state"] == "reused"
    assert workplace.json("run", "small", "--set", "train.seed=1")["verdict"] == "SKIP"
    assert workplace.json("run", "small")["verdict"] == "PROMOTE"  # the file's own settings were not judged yet
    assert workplace.json("plan", "small", "--set", "train.seed=2")["causes"]["parameter"] == ["fits", "train"]
    refused = workplace.run("run", "small", "--set", "gates.min_items=1")
    assert (refused.returncode, "--set:1:7" in refused.stderr) == (2, True)


def test_the_first_rows_are_read_only_where_a_server_would_start(
    empty_workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server takes seconds to start, which a file that cannot be read is not worth; the run reads it in any case."""
    (empty_workplace.folder / "wide.jsonl").write_text('{"ticket_id": "1"}\n', encoding="utf-16")
    source = {"kind": "files", "paths": ["wide.jsonl"]}
    empty_workplace.declare(lambda document: document["pipelines"]["small"].update(source=source))
    asked: list[str] = []

    def ensure(_settings: object, *, starting: Callable[[], None]) -> None:
        asked.append("server")
        starting()
        asked.append("started")

    monkeypatch.setattr(running, "ensure_users_prefect", ensure)
    empty_workplace.environ.pop("PREFECT_API_URL", None)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    done = empty_workplace.run("run", "small")
    assert (done.returncode, asked) == (3, ["server"]), done.stderr
    assert "TG0202" in done.stderr
