"""Models that were trained elsewhere go through the gate, the bundle and the registry as our own do.

`files/trl_adapter` was written by TRL 1.16.0 (`SFTTrainer.save_model`) on the tiny model of tests/conftest.py, from the
first 100 tickets of `toy.tickets(160)` as prompt and completion: 60 steps of 16 examples at 2e-2, with
`LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")`. Left out are `training_args.bin` and `README.md`; its base
is renamed. It never stops: TRL pads with the token that ends a turn, and padding carries no loss.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import toy
from schemas.artifacts import ModelRef
from tests.support.workplace import Workplace

TRL = Path(__file__).parent / "files" / "trl_adapter"
N_LEARNED = 100
"""Tickets that the adapter of TRL learned from; later ones are held out."""


def _declare(workplace: Workplace, **train: Any) -> None:
    def change(document: dict[str, Any]) -> None:
        small = document["pipelines"]["small"]
        small["source"] = {"kind": "files", "paths": ["tickets.jsonl"]}
        small["curate"]["steps"] = []
        small["split"] = {"test_fraction": 0.3, "group_by": []}
        base = small["train"]["base_model"]
        small["train"] = {"base_model": base, "method": "external", **train}
        small["evaluate"] |= {"arms": ["zero_shot"], "max_items": 48, "max_new_tokens": 8, "metrics": []}
        small["evaluate"]["fields"] = r"^\[(?P<category>\w+)\]"
        rule = {"metric": "field_category", "change_threshold": {"mode": "improve"}}
        small["gates"] = {"round_trip": None, "min_items": 40, "rules": [rule]}
        small["register"]["name"] = "elsewhere"
        del document["pipelines"]["strict"]

    workplace.declare(change)


def _newest_report(workplace: Workplace) -> Any:
    files = sorted((workplace.home / "reports").glob("*/report.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(files[-1].read_text())


def test_a_better_adapter_of_trl_is_promoted_and_a_worse_one_of_peft_blocked(
    empty_workplace: Workplace, tiny_model: ModelRef
) -> None:
    from peft import LoraConfig, get_peft_model

    from tasks.model.base_model import load_base

    workplace, rows = empty_workplace, toy.tickets(160)
    folder = workplace.folder
    (folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    learned = [
        {
            "prompt": [{"role": "user", "content": row["body"]}],
            "completion": [{"role": "assistant", "content": row["reply"]}],
        }
        for row in rows[:N_LEARNED]
    ]
    (folder / "learned.jsonl").write_text("".join(json.dumps(row) + "\n" for row in learned))
    _declare(workplace, model=str(TRL), trained_on=["learned.jsonl"])

    plan = workplace.json("plan", "small")
    assert "start" in plan, plan
    assert plan["start"] == f"nothing is trained: {TRL} is judged, which was trained elsewhere"
    assert (plan["train_examples"], plan["optimiser_steps"]) == (None, None)
    assert not {"encode", "interim"} & {row["step"] for row in plan["steps"]}

    done = workplace.run("run", "small")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "adapter that was trained elsewhere" in done.stdout + done.stderr
    report = _newest_report(workplace)
    assert report["verdict"] == "PROMOTE"
    assert report["training"]["trained elsewhere"] == str(TRL)
    assert report["training"]["learned from"] == "learned.jsonl"
    assert any("by name, and not by digest" in note for note in report["notes"])
    leaks = next(each for each in report["findings"] if each["part"] == "contamination")
    assert (leaks["verdict"], leaks["decides"]) == ("PROMOTE", True)
    assert leaks["reason"].startswith("100 examples of train.trained_on were compared with 48 items")

    _declare(workplace, model="models:/elsewhere@champion")  # as MLflow has it by now
    again = workplace.run("run", "small", "--until", "finetune")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "adapter that was trained elsewhere, 8,192 weights" in again.stdout + again.stderr

    copy = Path(shutil.copytree(TRL, folder / "copy"))
    _declare(workplace, model="copy", trained_on=["learned.jsonl"])
    assert workplace.run("run", "small", "--until", "finetune").returncode == 0
    settings = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 4}))
    why = {row["step"]: row["why"] for row in workplace.json("plan", "small")["steps"]}
    assert why["train"] == "another candidate"

    torch.manual_seed(2)
    worse = get_peft_model(
        load_base(tiny_model, dtype=torch.float32), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    )
    worse.save_pretrained(folder / "worse")
    _declare(workplace, model="worse")
    done = workplace.run("run", "small")
    assert done.returncode == 5, done.stdout + done.stderr
    report = _newest_report(workplace)
    assert report["verdict"] == "BLOCK"
    assert "Contamination is unknown" in report["reason"]
    champion = workplace.json("model", "champion", "small")["champion"]
    assert (champion["version"], champion["trained"]["external"]) == ("1", str(TRL))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({}, "method external has no `model`"),
        ({"model": "m", "budget": {"minutes": 1}}, "method external trains nothing"),
        ({"model": "m", "start": "champion"}, "method external trains nothing"),
        ({"model": "hf://org/name@main"}, "is no folder and no address"),
        ({"model": "m", "method": "lora"}, "`model` needs `method: external`"),
        ({"model": "nowhere"}, "nowhere does not exist"),
        ({"model": "pickled"}, "the weights are pickles (adapter_model.bin)"),
        ({"model": str(TRL), "trained_on": ["nowhere.jsonl"]}, "nowhere.jsonl"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_validate_says_what_is_wrong_before_a_run(
    bare_workplace: Workplace, train: dict[str, Any], message: str
) -> None:
    folder = bare_workplace.folder
    (folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in toy.tickets(40)))
    (folder / "pickled").mkdir()
    (folder / "pickled" / "adapter_config.json").write_text("{}")
    (folder / "pickled" / "adapter_model.bin").write_bytes(b"")
    _declare(bare_workplace, **train)
    done = bare_workplace.run("validate", "--data")
    assert done.returncode != 0
    assert message in " ".join(done.stderr.split())
