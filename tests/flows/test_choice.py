"""`method: ladder` and `train.sweep` from tickets to a verdict: chosen on validation, judged on test."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from schemas.artifacts import ModelRef

if TYPE_CHECKING:
    from tests.flows.conftest import Workplace

pytestmark = pytest.mark.server


@pytest.fixture(scope="session")
def larger_model(tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base made for the purpose: three layers instead of two under the same tokenizer, its weights as random."""
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


def steps_of(workplace: Workplace, run_id: str) -> dict[str, dict[str, Any]]:
    return {row["step"]: row for row in workplace.json("show", run_id)["steps"]}


def children(home: Path) -> list[tuple[str, str]]:
    """(Trial, status) of every MLflow run below another."""
    query = (
        "SELECT tags.value, runs.status FROM runs JOIN tags USING (run_uuid)"
        " WHERE tags.key = 'tunegate.trial' ORDER BY tags.value"
    )
    with sqlite3.connect(home / "mlflow" / "mlflow.db") as db:
        return db.execute(query).fetchall()


def test_a_ladder_climbs_until_a_rung_meets_its_target_and_that_rung_is_released(
    workplace: Workplace, larger_model: Path
) -> None:
    def ladder(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["split"]["validation_fraction"] = 0.2
        document["pipelines"]["small"]["train"] |= {
            "method": "ladder",
            "ladder": {
                "target": {"metric": "heldout_loss", "value": 5.9, "by": "estimate"},
                "price_per_hour": 3600,
                "rungs": [
                    {"name": "small", "set": {"method": "qlora", "max_steps": 1, "learning_rate": 1e-5}},
                    {"name": "larger", "set": {"method": "lora", "base_model": f"file:{larger_model}"}},
                    {"name": "full", "set": {"method": "full", "base_model": f"file:{larger_model}"}},
                ],
            },
        }

    workplace.declare(ladder)
    plan = {row["step"]: row for row in workplace.json("plan", "small")["steps"]}
    assert plan["train_rung_larger"]["state"] == "maybe"
    assert plan["train_rung_larger"]["why"] == "only if rung_small misses its target"
    done = workplace.run("run", "small", "--json")
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    print(workplace.run("show", json.loads(done.stdout)["run_id"]).stdout)
    print(workplace.run("plan", "small").stdout)
    assert 0
