"""`tunegate run` from tickets to a verdict: every part is real, the model is tiny."""

import json
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flows.ledger.ledger import Ledger
from flows.ledger.rows import RunStatus
from tests.flows.cli.test_running import aliases, steps_of
from tests.support.prefect_server import PrefectServer
from tests.support.processes import wait_for
from tests.support.workplace import ForkedWorkplace
from tests.system.flows.graph.test_prefect_runner import checkpoints, steps_trained

pytestmark = pytest.mark.server


@pytest.mark.usefixtures("fresh_worker")
def test_a_first_run_promotes_a_twin_is_blocked_and_a_run_without_changes_is_skipped(
    empty_workplace: ForkedWorkplace,
) -> None:
    first = empty_workplace.json("run", "small")
    assert first["verdict"] == "PROMOTE", first
    assert (first["exit_code"], first["version"], first["champion"]) == (0, "1", "1")
    assert first["mlflow_pending"] == 0
    assert aliases(empty_workplace.home) == {"champion": 1}

    blocked = empty_workplace.run("run", "strict", "--json")
    assert blocked.returncode == 5, blocked.stderr
    outcome = json.loads(blocked.stdout)
    assert (outcome["verdict"], outcome["version"], outcome["champion"]) == ("BLOCK", "2", "1")
    assert "0.9" in outcome["reason"]
    assert aliases(empty_workplace.home) == {"champion": 1}
    rows = steps_of(empty_workplace, outcome["run_id"])
    assert {name for name, row in rows.items() if row["state"] == "done"} == {
        "fits", "fits_champion", "label_sources", "train", "answers_tuned", "scores_tuned", "gate", "bundle",
        "scores_champion",
    } - ({"scores_champion"} if rows["scores_champion"]["state"] == "reused" else set())  # fmt: skip
    assert rows["answers_champion"]["state"] == "reused"  # the candidate's answers from before its promotion
    assert rows["answers_zero_shot"]["state"] == "reused"

    def changed() -> dict[str, tuple[str, str]]:
        changes = empty_workplace.json("report", outcome["run_id"])["changes"]
        return {row["what"]: (row["champion"], row["candidate"]) for row in changes}

    assert changed()["train.seed"] == ("0", "1")
    assert not any(what.startswith(("code of", "version of")) for what in changed())
    (made_from,) = (empty_workplace.home / "keys" / "train").glob(f"{rows['train']['key']}*")
    parts = json.loads(made_from.read_bytes())
    parts["code"]["tasks.train.engine"], parts["libraries"]["torch"] = "0" * 32, "9.9"
    made_from.write_text(json.dumps(parts))
    assert {"code of tasks.train.engine", "version of torch"} <= changed().keys()
    assert changed()["version of torch"][1].endswith(", 9.9")

    third = empty_workplace.json("run", "small")
    assert third["verdict"] == "SKIP"
    assert first["run_id"] in third["reason"]
    assert empty_workplace.json("model", "champion", "small")["champion"]["version"] == "1"
    statuses = {row["run_id"]: row["status"] for row in empty_workplace.json("runs")["runs"]}
    assert statuses[third["run_id"]] == "SKIPPED"


def test_a_run_until_a_stage_leaves_the_rest_to_the_next_run(empty_workplace: ForkedWorkplace) -> None:
    partial = empty_workplace.json("run", "small", "--until", "curate")
    assert (partial["verdict"], partial["exit_code"]) == ("DONE", 0)
    assert set(steps_of(empty_workplace, partial["run_id"])) >= {"extract", "dedup", "decontaminate"}
    assert "train" not in steps_of(empty_workplace, partial["run_id"])

    complete = empty_workplace.json("run", "small")
    states = {name: row["state"] for name, row in steps_of(empty_workplace, complete["run_id"]).items()}
    assert (states["extract"], states["dedup"], states["train"]) == ("reused", "reused", "done")
    assert empty_workplace.json("model", "champion", "small")["champion"]["run_id"] == complete["run_id"]
    assert empty_workplace.json("run", "small")["verdict"] == "SKIP"


@pytest.mark.usefixtures("fresh_worker")
def test_plan_shows_what_the_run_then_does(empty_workplace: ForkedWorkplace) -> None:
    shutil.rmtree(empty_workplace.home)
    before = {row["step"]: row["state"] for row in empty_workplace.json("plan", "small")["steps"]}
    assert set(before.values()) <= {"run", "maybe", "left out"}
    assert not empty_workplace.home.exists()
    assert empty_workplace.json("run", "small")["verdict"] == "PROMOTE"

    empty_workplace.declare(lambda document: document["pipelines"]["small"]["evaluate"].update(max_new_tokens=5))
    plan = empty_workplace.json("plan", "small")
    planned = {row["step"]: row["state"] for row in plan["steps"]}
    assert planned["train"] == planned["dedup"] == "reused"
    assert planned["answers_tuned"] == "run"
    assert any("max_new_tokens: 4 -> 5" in row["why"] for row in plan["steps"])
    assert plan["train_examples"] == 32
    assert 0 < plan["training_memory_gib"] < plan["memory_at_hand_gib"]

    run_id = empty_workplace.json("run", "small")["run_id"]
    done = steps_of(empty_workplace, run_id)
    # Measured during training, shown with every run that uses it, and sent to MLflow.
    shown = empty_workplace.json("show", run_id)
    assert shown["predicted_memory_bytes"] == pytest.approx(shown["peak_memory_bytes"], rel=0.15)
    metrics = json.loads((empty_workplace.home / "runs" / f"{run_id}.json").read_text())["metrics"]
    assert metrics["peak_memory_bytes"] == shown["peak_memory_bytes"]
    assert " GiB predicted, " in empty_workplace.run("show", run_id).stdout
    for name, state in planned.items():
        # The champion is the candidate here, so its answers already exist.
        if state != "maybe" and not name.endswith("_champion"):
            assert (done[name]["state"] == "reused") == (state == "reused"), name


def test_a_run_killed_in_training_ends_with_the_bytes_of_an_uninterrupted_one(
    empty_workplace: ForkedWorkplace, finished: Path
) -> None:
    # Each attempt dies before its first checkpoint is complete, until no attempts are left.
    killed = empty_workplace.run("run", "small", TUNEGATE_FAILPOINT="train.checkpoint.written")
    assert killed.returncode == 4, killed.stderr
    again = empty_workplace.json("run", "small")
    assert again["verdict"] == "PROMOTE"
    statuses = [row["status"] for row in empty_workplace.json("runs")["runs"]]
    assert statuses == ["DONE", "FAILED"]

    store, whole = empty_workplace.home / "store", finished / ".tunegate" / "store"
    assert manifests(store, "train").items() < manifests(whole, "train").items()
    assert manifests(store, "gate").items() < manifests(whole, "gate").items()

    # Killed at its second checkpoint, a training is resumed from there within the run.
    shutil.rmtree(store / "train")
    recovered = empty_workplace.run(
        "run", "small", "--again", "--until", "finetune", TUNEGATE_FAILPOINT="train.checkpoint.renamed:2"
    )
    assert recovered.returncode == 0, recovered.stderr
    assert manifests(store, "train").items() < manifests(whole, "train").items()


def manifests(store: Path, step: str) -> dict[str, bytes]:
    """Key -> the hashes of the result's files."""
    found = {path.parent.name: path.read_bytes() for path in (store / step).glob("*/MANIFEST.json")}
    assert found
    return found


# benchmarks/torture kills at every place; tests/system/benchmarks/test_torture.py runs that without Prefect.
@pytest.mark.parametrize("place", ["store.renamed:3", "ledger.promote.committed"])
def test_a_run_killed_between_steps_or_at_its_promotion_is_completed_by_the_next(
    request: pytest.FixtureRequest, place: str
) -> None:
    # With the results of an earlier run, a run stores too few to be killed at one.
    workplace = request.getfixturevalue("empty_workplace" if place.startswith("store") else "workplace")
    killed = workplace.run("run", "small", TUNEGATE_FAILPOINT=place)
    assert killed.returncode == -signal.SIGKILL
    outcome = workplace.json("run", "small", "--again")
    assert outcome["champion"] == "1"
    assert outcome["verdict"] in {"PROMOTE", "HOLD", "SKIP"}
    history = workplace.json("model", "champion", "small")["history"]
    assert [event["action"] for event in history] == ["promote"]
    assert aliases(workplace.home) == {"champion": 1}


@pytest.mark.parametrize("status", ["INTERRUPTED", "FAILED"])
def test_a_run_that_ended_after_its_promotion_is_not_judged_again(
    workplace: ForkedWorkplace, status: RunStatus
) -> None:
    killed = workplace.run("run", "small", TUNEGATE_FAILPOINT="mlflow.synced")
    assert killed.returncode == -signal.SIGKILL
    ledger = Ledger(workplace.home)
    first = ledger.runs()[0].run_id
    ledger.finish_run(first, status=status, reason="TG0554: the disk refuses to read or write", exit_code=1)
    outcome = workplace.json("run", "small")
    assert outcome["verdict"] == "PROMOTE"
    assert "interrupted after its promotion" in outcome["reason"]
    assert [event["action"] for event in workplace.json("model", "champion", "small")["history"]] == ["promote"]
    assert aliases(workplace.home) == {"champion": 1}


def test_the_second_of_two_runs_is_refused_with_the_holder_of_the_pipeline(empty_workplace: ForkedWorkplace) -> None:
    first = empty_workplace.start("run", "small", "--json")
    wait_for(lambda: bool(empty_workplace.json("status")["running"]))
    second = empty_workplace.run("run", "small")
    assert second.returncode == 6, second.stderr
    assert f"pid {first.pid}" in second.stderr
    assert "--wait" in second.stderr
    out, stderr = first.communicate()
    assert json.loads(out)["verdict"] == "PROMOTE", stderr


@pytest.mark.usefixtures("fresh_worker")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_run_keeps_a_checkpoint_leaves_no_process_and_is_recorded(
    workplace: ForkedWorkplace, number: int, code: int
) -> None:
    workplace.declare(lambda document: document["pipelines"]["small"]["train"].update(max_steps=4000, epochs=1000))
    run = workplace.start("run", "small")
    wait_for(lambda: steps_trained(workplace) >= 3)
    run.send_signal(number)
    _, error = run.communicate()
    assert run.returncode == code
    assert checkpoints(workplace)
    row = workplace.json("runs")["runs"][0]
    assert row["status"] == "INTERRUPTED"
    kept = "finished steps and checkpoints are kept; `tunegate run small` continues from there"
    said = [line for line in error.splitlines() if line.startswith("interrupted: ")]
    assert said == ([f"interrupted: run {row['run_id']} of small: {kept}"] if number == signal.SIGINT else [])
    scratch = str(workplace.home / "scratch")
    left = subprocess.run(["pgrep", "-f", scratch], capture_output=True, text=True, check=False).stdout
    assert left == ""


def test_a_diverging_training_exits_with_code_4_and_promotes_nothing(workplace: ForkedWorkplace) -> None:
    def explode(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["train"].update(
            learning_rate=1.0, allow_unusual_learning_rate=True, max_grad_norm=1e30, max_steps=400, epochs=50
        )
        document["pipelines"]["small"]["train"]["adapter"] = {"rank": 4, "alpha": 1e30}

    workplace.declare(explode)
    done = workplace.run("run", "small")
    assert done.returncode == 4, done.stderr
    assert "TG0401" in done.stderr
    assert workplace.json("model", "champion", "small")["champion"] is None


def test_prefect_shows_the_flow_its_sub_flows_and_tasks(
    workplace: ForkedWorkplace, prefect_server: PrefectServer
) -> None:
    run_id = workplace.json("run", "small")["run_id"]
    with closing(sqlite3.connect(workplace.home / "ledger.sqlite")) as db:
        [(flow_run,)] = db.execute("SELECT prefect_run_id FROM runs WHERE run_id = ?", (run_id,)).fetchall()
    assert prefect_server.ask(f"/flow_runs/{flow_run}")["state"]["type"] == "COMPLETED"

    def tasks() -> set[str]:
        found = prefect_server.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}, "limit": 200})
        return {task["name"].rsplit("-", 1)[0] for task in found}

    wait_for(lambda: {"curate", "finetune", "assess", "release"} <= tasks())
    artifacts = prefect_server.ask("/artifacts/latest/filter", {"limit": 200})
    project = (Ledger(workplace.home).identity() or "")[:6]
    wanted = {f"small-{what}-{project}" for what in ("funnel", "gate", "verdict")}
    assert wanted <= {artifact["key"] for artifact in artifacts}

    def logged() -> str:
        of_run = {"logs": {"flow_run_id": {"any_": [flow_run]}}, "limit": 200}
        return "\n".join(each["message"] for each in prefect_server.ask("/logs/filter", of_run))

    wait_for(lambda: "PROMOTE: " in logged())
    assert "encode: 32 examples" in logged()

    # Its stage shows how a training gets on, too: the line is one of the task.
    assert workplace.run("run", "small", "--set", "train.max_steps=2", "--until", "finetune").returncode == 0
    steps = {"logs": {"task_run_id": {"is_null_": False}}, "sort": "TIMESTAMP_DESC", "limit": 200}
    wait_for(lambda: any(each["message"].startswith("2/2 steps") for each in prefect_server.ask("/logs/filter", steps)))


@pytest.mark.usefixtures("fresh_worker")
def test_no_ticket_text_and_no_secret_reaches_the_screen_the_ledger_or_mlflow(empty_workplace: ForkedWorkplace) -> None:
    secrets = {
        "HF_TOKEN": "hf_tell-nobody-1",
        "TEAM_PASSWORD": 'tell "nobody" 2',
        "CHANNEL": "http://127.0.0.1:9/hooks/tell-nobody-3",
    }

    def name_secrets(document: dict[str, Any]) -> None:
        document["pipelines"]["small"] |= {
            "description": "as ${env:TEAM_PASSWORD}",
            "notify": {"webhook_env": "CHANNEL", "on": ["PROMOTE"]},
        }
        document["pipelines"]["small"]["register"]["experiment"] = "of ${env:HF_TOKEN}"

    empty_workplace.declare(name_secrets)
    done = empty_workplace.run("--debug", "run", "small", **secrets)
    assert done.returncode == 0, done.stderr
    printed_or_stored = [done.stdout.encode(), done.stderr.encode()]
    printed_or_stored += [path.read_bytes() for path in empty_workplace.home.rglob("*") if path.is_file()]
    for part in (b"tell-nobody", b'nobody\\" 2', b'"nobody" 2'):
        assert not any(part in content for content in printed_or_stored), part
    assert b"${env:TEAM_PASSWORD}" in (empty_workplace.home / "ledger.sqlite").read_bytes()
    assert "the webhook of CHANNEL was not notified" in " ".join(done.stderr.split())

    modes = {path: path.lstat().st_mode & 0o777 for path in (empty_workplace.home, *empty_workplace.home.rglob("*"))}
    assert {path: mode for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}
    assert len(modes) > 100

    import pyarrow.parquet as pq

    [table] = (empty_workplace.home / "store" / "extract").glob("*/tickets.parquet")
    bodies = [body for body in pq.read_table(table, columns=["body"])["body"].to_pylist() if body and len(body) > 60]
    pieces = [body[10:50].encode() for body in bodies[:50]]
    stderr_and_stores = [done.stderr.encode(), (empty_workplace.home / "ledger.sqlite").read_bytes()]
    stderr_and_stores += [path.read_bytes() for path in (empty_workplace.home / "mlflow").rglob("*") if path.is_file()]
    for piece in pieces:
        assert not any(piece in content for content in stderr_and_stores)
