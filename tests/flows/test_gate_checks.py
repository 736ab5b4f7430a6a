"""The gate's checks in real runs: a leaked held-out set is ERROR, a destroyed candidate is BLOCK."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from schemas.artifacts import ModelRef
from tasks.assess.suite import build_suite

if TYPE_CHECKING:
    from tests.flows.conftest import Workplace

pytestmark = pytest.mark.server
N_ITEMS = 40


@pytest.fixture(scope="module")
def knowing_model(tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, taught the first items of the suite by heart: a base that has something to forget."""
    import pyarrow.parquet as pq
    import torch
    from transformers import AutoModelForCausalLM

    from tasks.model.base_model import load_tokenizer
    from tasks.model.chat_codec import ChatCodec

    suite = build_suite(
        suite="general", max_items=N_ITEMS, seed=0, format="instruction", out=tmp_path_factory.mktemp("suite")
    )
    codec = ChatCodec.of(load_tokenizer(tiny_model), "instruction")
    rows = pq.read_table(suite.root / "prompts.parquet").to_pylist()
    examples = [
        codec.conversation([*json.loads(row["messages"]), {"role": "assistant", "content": row["answer"]}])
        for row in rows
    ]
    longest = max(len(example.input_ids) for example in examples)
    ids = torch.tensor([example.input_ids + [0] * (longest - len(example.input_ids)) for example in examples])
    mask = torch.tensor([example.loss_mask + [0] * (longest - len(example.loss_mask)) for example in examples])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_model.root, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        model(input_ids=ids, labels=ids.masked_fill(mask == 0, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    root = tmp_path_factory.mktemp("knowing_model")
    for path in tiny_model.root.iterdir():
        if path.name != "MANIFEST.json" and path.suffix != ".safetensors":
            shutil.copyfile(path, root / path.name)
    model.save_pretrained(root)
    return root


def write_twins(folder: Path) -> None:
    """60 tickets, each sent again by another customer with one word more."""
    rows = []
    for number in range(60):
        body = " ".join(f"w{(number * 401 + k * k * 13 + k) % 4999}" for k in range(20))
        for copy, text in enumerate((body, f"{body} please")):
            rows.append(
                {
                    "ticket_id": f"t{number}-{copy}",
                    "customer_id": f"c{number}-{copy}",
                    "body": text,
                    "reply": f"Case {number} is settled.",
                    "category": ("billing", "delivery")[number % 2],
                }
            )
    (folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_held_out_set_that_leaked_into_train_is_an_error_and_nothing_is_promoted(workplace: Workplace) -> None:
    def leave_leaks_in(document: dict[str, Any]) -> None:
        pipeline = document["pipelines"]["small"]
        pipeline["source"] = {"kind": "files", "paths": ["tickets.jsonl"]}
        pipeline["curate"] |= {
            "steps": [],  # no deduplication, and decontamination declared away
            "decontaminate": {"near_threshold": 1.0, "long_threshold": 1.0, "short_threshold": 1.0},
        }
        pipeline["train"]["max_examples"] = 60

    write_twins(workplace.folder)
    workplace.declare(leave_leaks_in)
    done = workplace.run("run", "small", "--json")
    assert done.returncode == 9, done.stderr
    told = json.loads(done.stdout)
    assert told["verdict"] == "ERROR"
    assert not told["champion"]
    first = workplace.json("gate", "explain", told["run_id"])["findings"][0]
    assert (first["part"], first["verdict"]) == ("contamination", "ERROR")
    assert first["candidate"] > 0
    assert "trained tickets" in first["reason"]


def test_a_candidate_that_forgot_everything_is_blocked_though_its_tickets_are_fine(
    workplace: Workplace, knowing_model: Path
) -> None:
    def destroy(document: dict[str, Any]) -> None:
        pipeline = document["pipelines"]["small"]
        pipeline["train"] |= {
            "base_model": f"file:{knowing_model}",
            "learning_rate": 0.3,
            "allow_unusual_learning_rate": True,
        }
        pipeline["gates"] |= {
            "forgetting": {"margin": 0.1, "max_items": N_ITEMS, "max_new_tokens": 16},
            "round_trip": {"n_prompts": 2},
        }

    workplace.declare(destroy)
    done = workplace.run("run", "small", "--json")
    assert done.returncode == 5, done.stderr
    findings = workplace.json("gate", "explain", json.loads(done.stdout)["run_id"])["findings"]
    assert [finding["part"] for finding in findings] == [
        "contamination", "round_trip", "primary", "forgetting", "forgetting",
    ]  # fmt: skip
    _, trip, primary, divergence, general = findings
    assert (trip["verdict"], primary["verdict"]) == ("PROMOTE", "PROMOTE")
    assert trip["candidate"] < 1e-4
    assert (general["verdict"], general["reference"]) == ("BLOCK", pytest.approx(1.0, abs=0.2))
    assert general["candidate"] < 0.2
    assert divergence["candidate"] > 1.0
    assert not divergence["decides"]
