"""`make bench-memory`: the peak memory of a training process, predicted and measured, on every path of a CPU.

Each row is a training of three steps in a process of its own, on SmolLM2-135M or on a model with random weights of
another family; its examples all have the greatest length, and half of their tokens carry loss. Memory does not depend
on the load, so a busy machine measures the same.

QUICK=1: one training for each path. RECORD=1: write `results/memory.md`. ONLY=qwen3: the rows of these families alone,
separated by commas.
"""

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.measure import Bench, report, table
from benchmarks.train.__main__ import base_model
from benchmarks.train.workload import write_dataset
from schemas.artifacts import DatasetRef, ModelRef
from schemas.training import TrainSpec
from tasks.storage.files import write_json
from tasks.storage.sealed_folder import seal
from tasks.train.job import JOB, PROGRESS, TrainJob
from tasks.train.place import ThisMachine

N_STEPS = 3
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2": {"model_type": "qwen2"},
    "mistral": {"model_type": "mistral", "sliding_window": 128},
    "qwen3": {"model_type": "qwen3", "head_dim": 64},
    "gemma3": {"model_type": "gemma3_text", "head_dim": 64, "sliding_window": 128},
    "phi3": {"model_type": "phi3", "pad_token_id": 0},
    "gpt_neox": {"model_type": "gpt_neox"},
    "mixtral": {"model_type": "mixtral", "intermediate_size": 768, "num_local_experts": 4, "num_experts_per_tok": 2},
}
"""Families with random weights, besides SmolLM2: fields of config.json that differ from `COMMON`."""
COMMON = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 16,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49_152,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class Case:
    """One training."""

    path: str
    """fast, own forward, dora, qlora or full."""
    family: str
    batch: int
    tokens: int
    dtype: str
    settings: tuple[tuple[str, Any], ...] = ()
    quick: bool = False

    def spec(self) -> TrainSpec:
        """Its settings."""
        wanted: dict[str, Any] = {
            "base_model": "x", "batch_size": self.batch, "dtype": self.dtype, "max_steps": N_STEPS, "warmup": 0.0,
            "threads": 1, "memory_check": "off", "learning_rate": 1e-4, "save_every": 1000, "adapter": {"rank": 16},
        }  # fmt: skip
        if self.path in ("qlora", "full"):
            wanted["method"] = self.path
        if self.path == "dora":
            wanted["adapter"] = {"rank": 16, "dora": True}
        for name, value in self.settings:
            wanted[name] = wanted.get(name, {}) | value if isinstance(value, dict) else value
        return TrainSpec.model_validate(wanted)

    def name(self) -> str:
        """Its settings in words."""
        return ", ".join(f"{name} {value}" for name, value in self.settings)


RECOMPUTED = (("gradient_checkpointing", True),)
SUMMED = (("gradient_accumulation_steps", 2),)
CASES = [
    Case("fast", "smollm2", 8, 256, "float32"),
    Case("fast", "smollm2", 4, 128, "float32", quick=True),
    Case("fast", "smollm2", 4, 128, "bfloat16"),
    Case("fast", "smollm2", 8, 256, "float32", RECOMPUTED),
    Case("fast", "smollm2", 8, 256, "float32", (("adapter", {"layers": 10}),)),
    Case("fast", "qwen2", 8, 256, "float32"),
    Case("own forward", "qwen3", 4, 128, "float32", quick=True),
    Case("own forward", "qwen3", 8, 256, "float32"),
    Case("own forward", "qwen3", 8, 256, "bfloat16"),
    Case("own forward", "qwen3", 8, 256, "float32", RECOMPUTED),
    Case("own forward", "qwen3", 2, 1024, "float32"),
    Case("own forward", "gemma3", 4, 256, "bfloat16", RECOMPUTED),
    Case("own forward", "phi3", 8, 128, "float32", RECOMPUTED),
    Case("own forward", "mixtral", 4, 256, "float32", RECOMPUTED),
    Case("own forward", "gemma3", 8, 256, "float32"),
    Case("own forward", "gemma3", 8, 256, "bfloat16"),
    Case("own forward", "phi3", 8, 256, "float32"),
    Case("own forward", "gpt_neox", 8, 256, "float32"),
    Case("own forward", "mixtral", 8, 256, "float32"),
    Case("own forward", "mixtral", 8, 256, "bfloat16"),
    Case("own forward", "mistral", 8, 256, "float32", (("adapter", {"dropout": 0.1}),)),
    Case("dora", "smollm2", 4, 128, "float32", quick=True),
    Case("dora", "smollm2", 4, 256, "float32"),
    Case("dora", "smollm2", 4, 256, "bfloat16"),
    Case("dora", "qwen3", 8, 256, "float32", RECOMPUTED),
    Case("qlora", "smollm2", 4, 128, "float32", quick=True),
    Case("qlora", "smollm2", 8, 256, "float32"),
    Case("qlora", "smollm2", 8, 256, "bfloat16"),
    Case("qlora", "qwen3", 8, 256, "float32"),
    Case("qlora", "gemma3", 8, 256, "bfloat16"),
    Case("qlora", "qwen3", 8, 256, "float32", (("adapter", {"dora": True}),)),
    Case("qlora", "qwen3", 8, 256, "float32", RECOMPUTED),
    Case("full", "smollm2", 4, 128, "float32", quick=True),
    Case("full", "smollm2", 4, 256, "bfloat16"),
    Case("full", "smollm2", 4, 256, "float32", RECOMPUTED),
    Case("full", "qwen3", 8, 256, "float32"),
    Case("full", "qwen3", 4, 128, "float32", SUMMED),
    Case("full", "gemma3", 8, 256, "bfloat16"),
    Case("full", "mixtral", 4, 256, "float32"),
    Case("full", "qwen3", 4, 128, "float32", (("optimizer", "adamw_8bit"),)),
]  # fmt: skip


def main() -> None:
    """Measure each case and report the largest error of each path."""
    bench = Bench.begin("memory", "torch", "transformers", "peft", "bitsandbytes")
    only = os.environ.get("ONLY", "").split(",")
    cases = [case for case in CASES if (case.quick or not bench.quick) and (only == [""] or case.family in only)]
    rows: list[tuple[str, ...]] = []
    worst: dict[str, float] = {}
    with bench.scratch() as scratch:
        models = _Models(scratch)
        for number, case in enumerate(cases):
            predicted, measured = measure(case, models.of(case.family), scratch / f"case-{number}")
            error = predicted / measured - 1
            worst[case.path] = max(worst.get(case.path, 0.0), error, key=abs)
            rows.append(
                (case.path, case.family, f"{case.batch} x {case.tokens}", case.dtype, case.name(),
                 f"{measured / 1e6:,.0f}", f"{predicted / 1e6:,.0f}", f"{error:+.1%}")
            )  # fmt: skip
            report(" ".join(map(str, rows[-1])))
    head = ("path", "model", "batch x tokens", "arithmetic", "settings", "measured MB", "predicted MB", "error")
    figures: dict[str, Any] = {f"worst_{path.replace(' ', '_')}": round(each, 4) for path, each in worst.items()}
    figures["n_trainings"] = len(rows)
    bench.finish("Memory of a training process", table(head, rows), figures)


def measure(case: Case, model: ModelRef, folder: Path) -> tuple[int, int]:
    """Train in a process of its own; returns the predicted and the measured peak of resident memory, bytes.

    Args:
        case: What to train.
        model: The base.
        folder: A new folder.
    """
    folder.mkdir()
    job = TrainJob(dataset=_dataset(case, folder / "dataset"), model=model, spec=case.spec(), scratch=folder, threads=1)
    write_json(folder / JOB, job.model_dump(mode="json"))
    place = ThisMachine()
    environment = place.environment(os.environ, threads=1)
    subprocess.run(place.command(folder / JOB), env=environment, check=True)
    events = map(orjson.loads, (folder / PROGRESS).read_bytes().splitlines())
    found = next(each for each in events if each["event"] == "memory")
    return found["predicted_memory_bytes"], found["peak_memory_bytes"]


def _dataset(case: Case, folder: Path) -> DatasetRef:
    rng = np.random.default_rng(case.tokens)
    spec = case.spec()
    count = case.batch * N_STEPS * spec.gradient_accumulation_steps
    mask = [0] * (case.tokens // 2) + [1] * (case.tokens - case.tokens // 2)
    rows = [
        {
            "ticket_id": f"t{number:04}",
            "input_ids": rng.integers(10, COMMON["vocab_size"] - 10, case.tokens).tolist(),
            "loss_mask": mask,
        }
        for number in range(count)
    ]
    return write_dataset({"train": rows, "validation": rows[:1]}, folder)


class _Models:
    """The bases, made when they are needed."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self.of = cache(self._make)

    def _make(self, family: str) -> ModelRef:
        if family == "smollm2":
            return base_model(self._scratch / family)
        return self._random(family, self.of("smollm2"))

    def _random(self, family: str, tokenizer_of: ModelRef) -> ModelRef:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        settings = COMMON | SHAPES[family]
        kind = settings.pop("model_type")
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))
        out = self._scratch / family
        model.save_pretrained(out)
        AutoTokenizer.from_pretrained(tokenizer_of.root).save_pretrained(out)
        return ModelRef(
            root=out, digest=seal(out), uri=f"file:{family}", n_parameters=model.num_parameters(),
            vocab_size=settings["vocab_size"], context_length=settings["max_position_embeddings"],
        )  # fmt: skip


if __name__ == "__main__":
    main()
