"""`method: ladder` and `train.sweep` from tickets to a verdict: selected on validation, judged on test."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.ledger.ledger import Ledger
from schemas.artifacts import ModelRef
from tests.support.workplace import ForkedWorkplace

pytestmark = pytest.mark.server


@pytest.fixture(scope="session")
def larger_model(tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second base with three layers instead of two, the same tokenizer, and random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("larger_model")
    shutil.copytree(tiny_model.root, root, dirs_exist_ok=True)
    (root / "MANIFEST.json").unlink()
    config = LlamaConfig.from_pretrained(root)
    config.num_hidden_layers = 3
    torch.manual_seed(5)
    LlamaForCausalLM(config).save_pretrained(root)
    return root


def children(home: Path) -> list[tuple[str, str]]:
    """(Trial, status) of every nested MLflow run."""
    query = (
        "SELECT tags.value, runs.status FROM runs JOIN tags USING (run_uuid)"
        " WHERE tags.key = 'tunegate.trial' ORDER BY tags.value"
    )
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as db:
        return db.execute(query).fetchall()


def test_a_ladder_climbs_until_a_rung_meets_its_target_and_releases_that_rung(
    empty_workplace: ForkedWorkplace, larger_model: Path
) -> None:
    base = f"file:{larger_model}"
    rungs = [
        {"name": "short", "set": {"method": "lora", "max_steps": 1, "learning_rate": 1e-5}},
        {"name": "larger", "set": {"method": "lora", "base_model": base, "learning_rate": 2e-3}},
        {"name": "full", "set": {"method": "full", "base_model": base}},
    ]

    def ladder(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["split"]["validation_fraction"] = 0.2
        target = {"metric": "heldout_loss", "value": 6.1, "by": "estimate"}
        document["pipelines"]["small"]["train"] |= {
            "method": "ladder",
            "ladder": {"target": target, "max_items": 20, "price_per_hour": 3600, "rungs": rungs},
        }

    empty_workplace.declare(ladder)
    plan = {row["step"]: row for row in empty_workplace.json("plan", "small")["steps"]}
    assert plan["train_rung_short"]["state"] == "run"
    assert (plan["train_rung_larger"]["state"], plan["train_rung_larger"]["why"]) == (
        "maybe", "known when rung_short has run",
    )  # fmt: skip
    assert plan["rung_full"]["result"] == f"method full, base_model {base}"

    outcome = empty_workplace.json("run", "small")
    assert outcome["verdict"] == "PROMOTE", outcome
    shown = empty_workplace.json("show", outcome["run_id"])
    choice = shown["choice"]
    assert (choice["winner"], choice["met"]) == ("rung_larger", True)
    assert choice["why"].startswith("rung_larger is the first rung that meets the target (met: the mean ")
    rows = {row["name"]: row for row in choice["rows"]}
    assert [row["state"] for row in rows.values()] == ["done", "chosen", "not_started"]
    assert "(no bound); the target is at most 6.1" in rows["rung_short"]["summary"]
    assert rows["rung_larger"]["gain"] is None  # 20 losses are too few to bound a gain
    assert rows["rung_larger"]["value"] < rows["rung_short"]["value"]
    assert rows["rung_larger"]["gain_lower"] is None  # 20 items are too few to bound a loss
    for row in (rows["rung_short"], rows["rung_larger"]):
        assert row["cost"] == pytest.approx(row["seconds"], rel=1e-12)  # 3600 an hour is 1 a second
        assert row["seconds"] > 0
        assert row["n_tokens"] > 0
        assert row["memory_bytes"] > 0
    table = pq.read_table(empty_workplace.home / "runs" / f"{outcome['run_id']}-ladder.parquet").to_pylist()
    assert [row["seconds"] for row in table] == [row["seconds"] for row in choice["rows"]]

    # Later stages use the rung like a single training, with its own base model.
    steps = {row["step"]: row for row in shown["steps"]}
    assert "train_rung_full" not in steps
    assert steps["train"]["digest"] == steps["train_rung_larger"]["digest"] == rows["rung_larger"]["trained"]
    champion = empty_workplace.json("model", "champion", "small")["champion"]
    assert champion["model"]["uri"] == base
    assert champion["trained"]["digest"] == steps["train"]["digest"]
    assert children(empty_workplace.home) == [("rung_larger", "FINISHED"), ("rung_short", "FINISHED")]

    plan = {row["step"]: row for row in empty_workplace.json("plan", "small")["steps"]}
    assert plan["train_rung_larger"]["state"] == plan["choice"]["state"] == "reused"
    assert "train" not in plan  # the winner is one of the rungs
    assert (plan["train_rung_full"]["state"], plan["train_rung_full"]["why"]) == (
        "left out", "rung_larger meets its target",
    )  # fmt: skip
    shown = empty_workplace.run("show", outcome["run_id"]).stdout
    assert "chosen on validation: rung_larger is the first rung" in shown
    assert "not started" in shown


@pytest.mark.campaign
def test_a_killed_sweep_resumes_its_trial_and_ends_with_the_bytes_of_an_uninterrupted_one(
    empty_workplace: ForkedWorkplace,
) -> None:
    over = {"max_steps": [1, 6], "learning_rate": {"low": 2e-3, "high": 3e-3, "log": True}}

    def sweep(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["split"]["validation_fraction"] = 0.2
        document["pipelines"]["small"]["train"]["sweep"] = {
            "kind": "optuna", "n_trials": 2, "seed": 1, "max_items": 20, "over": over,
        }  # fmt: skip

    empty_workplace.declare(sweep)
    # The first trial has one step and no checkpoint; the second is killed at its first one, in each attempt.
    killed = empty_workplace.run("run", "small", TUNEGATE_FAILPOINT="train.checkpoint.written")
    assert killed.returncode == 4, killed.stderr
    plan = {row["step"]: row for row in empty_workplace.json("plan", "small")["steps"]}
    assert plan["train_trial_01"]["state"] == plan["trial_01"]["state"] == "reused"
    assert (plan["train_trial_02"]["state"], plan["train"]["state"]) == ("run", "maybe")

    outcome = empty_workplace.json("run", "small")
    assert outcome["verdict"] == "PROMOTE", outcome
    shown = empty_workplace.json("show", outcome["run_id"])
    steps = {row["step"]: row for row in shown["steps"]}
    assert (steps["train_trial_01"]["state"], steps["train_trial_02"]["state"]) == ("reused", "done")
    assert shown["choice"]["winner"] == "trial_02"
    assert [row["changes"]["max_steps"] for row in shown["choice"]["rows"]] == [1, 6]
    assert all(row["seconds"] > 0 for row in shown["choice"]["rows"])  # reused trials keep their original time
    assert steps["train"]["digest"] == steps["train_trial_02"]["digest"]
    # Repeated from scratch without interruption, each trial and the selection have the same bytes.
    again = {
        row["step"]: row["state"] for row in empty_workplace.json("study", "reproduce", outcome["run_id"])["steps"]
    }
    assert {again[name] for name in ("train_trial_01", "train_trial_02", "trial_02", "choice")} == {"same"}

    assert children(empty_workplace.home) == [("trial_01", "FINISHED"), ("trial_02", "FINISHED")]
    with Ledger(empty_workplace.home).write() as db:
        db.execute("UPDATE projections SET done_at = NULL")
    assert empty_workplace.run("ops", "reconcile").returncode == 0
    assert children(empty_workplace.home) == [("trial_01", "FINISHED"), ("trial_02", "FINISHED")]
    assert empty_workplace.json("run", "small")["verdict"] == "SKIP"


def test_without_validation_tickets_nothing_is_trained(empty_workplace: ForkedWorkplace) -> None:
    def sweep(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["split"]["validation_fraction"] = 0
        document["pipelines"]["small"]["train"]["sweep"] = {"kind": "grid", "over": {"seed": [1, 2]}}

    empty_workplace.declare(sweep)
    done = empty_workplace.run("run", "small", "--until", "finetune")
    assert done.returncode == 2, done.stderr
    assert "trainings are compared on the validation split, but there is none" in done.stderr
    assert not (empty_workplace.home / "store" / "train").exists()
    assert not (empty_workplace.home / "scratch" / "train").exists()
