"""`ONLY=shapes make bench-train`: the training step on a model of known shapes, on a GPU where there is one.

The weights are random, made from a configuration that tasks/train knows (SHAPE, default: the largest Qwen that the
machine takes), so nothing is downloaded; the tokenizer is SmolLM2's. Seconds count here, not CPU seconds. MFU: what a
plain LoRA step must compute, over its time, over the most that the device can; ours computes a shared prefix once.
Called by `benchmarks/train/__main__.py`.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.train.contestants import CONTESTANTS, Contestant
from benchmarks.train.report import Result
from benchmarks.train.runs import run_script, run_training, told
from benchmarks.train.workload import ADAPTER, WORKLOADS, Prepared, prepare, write_settings
from schemas.artifacts import ModelRef
from tasks.files import seal
from tasks.train.fit import known_config, known_dims
from tasks.train.memory import ModelDims, trainable_parameters

PUBLISHED = {
    "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10G": 70e12,
}  # fmt: skip
"""Card -> bfloat16 operations a second without sparsity, from NVIDIA's data sheets; the first name found counts."""
LIMIT_S = 580.0
"""Wall seconds of one training."""
SEED = 20261128


@dataclass(frozen=True)
class Device:
    """What multiplies, and the most it can."""

    name: str
    flops: float
    """Operations a second: published for the card, else measured."""
    is_published: bool
    on_gpu: bool

    @classmethod
    def of(cls, gpu: str, measured: float, processor: str) -> Device:
        """Of a card's name, empty without one.

        >>> Device.of("NVIDIA H100 80GB HBM3", 7e14, "a CPU").flops
        989000000000000.0
        >>> Device.of("", 2e11, "a CPU")
        Device(name='a CPU', flops=200000000000.0, is_published=False, on_gpu=False)
        """
        known = next((flops for card, flops in PUBLISHED.items() if card in gpu), None)
        return cls(gpu or processor, known or measured, known is not None, bool(gpu))


@dataclass(frozen=True)
class ShapesSize:
    """How much is trained."""

    steps: dict[str, int]
    rounds: int
    batch_size: int


def run_shapes(
    shape: str | None,
    tokenizer: ModelRef,
    pythons: dict[str, Path],
    scratch: Path,
    size: ShapesSize,
    *,
    threads: int,
    processor: str,
) -> tuple[str, dict[str, Any]]:
    """The tables, and the figures of the last line.

    Args:
        shape: A name of `tasks.train.fit.known_models`.
        tokenizer: A model whose tokenizer writes the examples.
        pythons: Environment -> interpreter; TRL runs where its own is there.
        scratch: For the model and everything else.
        size: How much.
        threads: Of every process.
        processor: Its name, where there is no GPU.
    """
    device = _device(scratch, threads, processor)
    name = shape or ("qwen2.5-1.5b" if device.on_gpu else "qwen2.5-0.5b")
    dims = known_dims(name)
    model = random_model(known_config(name), tokenizer, scratch / "shape")
    parts, last = [], {}
    for case, n_steps in size.steps.items():
        folder = scratch / f"shape-{case}"
        folder.mkdir()
        prepared = prepare(WORKLOADS[case], model, folder, n_steps=n_steps, n_validation=8, batch_size=size.batch_size)
        write_settings(folder, WORKLOADS[case], model, threads=threads, dtype="bfloat16")
        results = _trained(pythons, model, prepared, scratch, size.rounds, threads)
        flops = step_flops(dims, prepared.n_shared + prepared.n_own)
        parts.append(f"## {case}: {prepared.n_shared} shared and {prepared.n_own:.0f} own tokens\n\n"
                     f"{shapes_table(results, device, flops)}")  # fmt: skip
        last[case] = shapes_figures(results, device, flops)
    whose = "published" if device.is_published else "measured on a product of two large matrices"
    title = (
        f"{name}, {dims.n_parameters / 1e9:.2f} B random weights, on {device.name}: "
        f"{device.flops / 1e12:.3g} TFLOP/s ({whose})"
    )
    return "\n\n".join([title, *parts]), {"shape": name, "device": device.name, "workloads": last}


def random_model(config: dict[str, Any], tokenizer: ModelRef, root: Path) -> ModelRef:
    """A model of this configuration with random weights in bfloat16, and another model's tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(
        tokenizer.root, root, ignore=shutil.ignore_patterns("*.safetensors", "MANIFEST.json", "config.json")
    )
    torch.manual_seed(SEED)
    told = {"max_position_embeddings": 4096, **config}
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(**told), dtype=torch.bfloat16)
    made.save_pretrained(root, safe_serialization=True)
    n_parameters = sum(parameter.numel() for parameter in made.parameters())
    return tokenizer.model_copy(
        update={"root": root, "digest": seal(root), "vocab_size": config["vocab_size"], "n_parameters": n_parameters}
    )


def step_flops(dims: ModelDims, n_tokens: float) -> float:
    """Operations for one token of a plain LoRA step on examples of so many tokens.

    Frozen weights are multiplied once forward and once for the gradient of their input, two operations each; trained
    ones once more; attention's two products, over half of the columns in the mean, forward and twice backward.

    >>> tiny = ModelDims(layers=1, hidden=10, heads=1, kv_heads=1, d_head=10, intermediate=10, vocab=100, tied=True)
    >>> step_flops(tiny, 0) == 4 * (700 + 1000) + 6 * trainable_parameters(tiny, ADAPTER)
    True
    """
    frozen = dims.n_linear + dims.vocab * dims.hidden
    attention = 3 * 2 * n_tokens * dims.heads * dims.d_head * dims.layers
    return 4 * frozen + 6 * trainable_parameters(dims, ADAPTER) + attention


def shapes_table(results: list[Result], device: Device, flops: float) -> str:
    """One line for each trainer."""
    lines = ["| trainer | tokens per s | ours over it | MFU | peak MB | loss, first and last step |", "|---" * 6 + "|"]
    ours = results[0]
    for result in results:
        if result.told:
            lines.append(f"| {result.contestant.name} | {result.told} | | | | |")
            continue
        over = "" if ours.told else f"{ours.per_s / result.per_s:.2f}"
        losses = result.runs[0].losses
        lines.append(
            f"| {result.contestant.name} | {result.per_s:,.0f} | {over} | {result.per_s * flops / device.flops:.1%} "
            f"| {_peak(result, device):,.0f} | {losses[0]:.3f} {losses[-1]:.3f} |"
        )
    return "\n".join(lines)


def shapes_figures(results: list[Result], device: Device, flops: float) -> dict[str, Any]:
    """What the table says, for the last line."""
    done = [result for result in results if not result.told]
    return {
        result.contestant.name: {
            "tokens_per_s": round(result.per_s, 1),
            "mfu": round(result.per_s * flops / device.flops, 4),
            "peak_mb": round(_peak(result, device)),
        }
        for result in done
    } | (
        {}
        if results[0].told
        else {"ratios": {each.contestant.name: round(results[0].per_s / each.per_s, 3) for each in done[1:]}}
    )


def _trained(
    pythons: dict[str, Path], model: ModelRef, prepared: Prepared, scratch: Path, rounds: int, threads: int
) -> list[Result]:
    contestants = [one for one in CONTESTANTS if one.role != "peer"]
    found: dict[Contestant, list[Any]] = {one: [] for one in contestants}
    for _ in range(rounds):
        for one in contestants:
            # Trainer needs nothing but the project's own libraries.
            environment = "project" if one.role == "trainer" else one.environment
            if environment not in pythons:
                continue
            run = run_training(
                pythons[environment], one.script, one.mode, model=model.root, folder=prepared.folder, scratch=scratch,
                threads=threads, own=one.role == "ours", device=True, limit_s=LIMIT_S,
            )  # fmt: skip
            found[one].append(run)
            shown = run.told or f"{run.n_tokens / run.wall_s:.0f} tokens per s"
            print(f"{prepared.workload.name} {one.name}: {shown}", file=sys.stderr, flush=True)
    return [Result(one, tuple(runs), "" if runs else "no environment") for one, runs in found.items()]


def _device(scratch: Path, threads: int, processor: str) -> Device:
    answer = scratch / "device.json"
    cost = run_script([sys.executable, "device_engine.py", answer], scratch, threads=threads, own=True, device=True)
    if not cost.complete:
        raise RuntimeError(f"the device: {told(cost)}")
    found = json.loads(answer.read_text())
    return Device.of(found["gpu"], found["measured_flops"], processor)


def _peak(result: Result, device: Device) -> float:
    """Of the GPU's memory where there is one, else of the process."""
    peak = result.middle(lambda run: run.device_peak_mb if device.on_gpu else run.peak_mb)
    return peak if math.isfinite(peak) else result.middle(lambda run: run.peak_mb)
