"""`ONLY=shapes make bench-train`: the training step on a model of known shapes, on a GPU if there is one.

The weights are random, from a configuration that tasks/train knows, so it downloads only a tokenizer. SHAPE: its name
(default: 1.5 B of Qwen on a GPU, 0.5 B without). TOKENIZER: a folder with tokenizer files, for a machine without
network (default: SmolLM2's). Wall seconds count here, not CPU seconds.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.measure import table
from benchmarks.train.trainers import Place, Result, plan, run_rounds
from benchmarks.train.workload import ADAPTER, WORKLOADS, Prepared, prepare
from schemas.artifacts import ModelRef
from tasks.storage.sealed_folder import seal
from tasks.train.memory import trainable_parameters
from tasks.train.model_shapes import ModelDims, known_config, known_dims, known_models

LIMIT_S = 300.0
"""Wall seconds of one training."""
SEED, CONTEXT = 20261128, 4096
LEGEND = (
    "tokens: real ones, without padding, of all steps except the first ones. MFU: operations that a plain LoRA step "
    "needs, or that ours computes (a shared prefix once, logits only where there is loss), over its time and the "
    "device's peak. Peak: of the GPU's memory while training; without a GPU, of the process's memory."
)
PUBLISHED = {
    "NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 NVL": 835e12, "NVIDIA H100 PCIe": 756e12,
    "NVIDIA A100-SXM4-40GB": 312e12, "NVIDIA A100-SXM4-80GB": 312e12, "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12, "NVIDIA L40S": 362e12, "NVIDIA L4": 121e12, "NVIDIA A10G": 70e12,
}  # fmt: skip
"""Card as torch names it -> bfloat16 operations per second without sparsity, from NVIDIA's data sheets."""


@dataclass(frozen=True)
class Amount:
    """Size of one training."""

    steps: int
    warm: int
    """Number of first steps that are not timed: new lengths cost more."""
    batch_size: int


@dataclass(frozen=True)
class ShapesSize:
    """How much to train; a GPU needs more to be busy."""

    cases: tuple[str, ...]
    rounds: int
    on_cpu: Amount
    on_gpu: Amount


@dataclass(frozen=True)
class Device:
    """The device, and its peak performance."""

    name: str
    measured: float
    """Operations per second for a product of two large matrices in `dtype`."""
    on_gpu: bool
    dtype: str = "bfloat16"

    @property
    def most(self) -> float:
        """Operations per second: published for the card, else measured (a part of a card has its own name).

        >>> Device("NVIDIA L4", 9e13, True).most, Device("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9e13, True).most
        (121000000000000.0, 90000000000000.0)
        """
        return PUBLISHED.get(self.name, self.measured)

    def __str__(self) -> str:
        whose = "published" if self.name in PUBLISHED else "the measured"
        return (
            f"{self.name}: {self.measured / 1e12:.3g} TFLOP/s measured, "
            f"{self.most / 1e12:.3g} used as its peak ({whose})"
        )


def one_card(environ: Mapping[str, str]) -> str:
    """CUDA_VISIBLE_DEVICES for a contestant: one card, since Trainer would split its batches over all.

    >>> one_card({"CUDA_VISIBLE_DEVICES": "2,3"}), one_card({})
    ('2', '0')
    """
    return environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def this_device(place: Place) -> Device:
    """Measure the device in a new process."""
    answer = place.scratch / "device.json"
    cost = place.run(sys.executable, "train_own.py", "device", answer)
    if not cost.complete:
        sys.exit(f"the device: {cost.failure}")
    found = json.loads(answer.read_text())
    processor = place.bench.machine["processor"]
    return Device(found["gpu"] or processor, found["measured_flops"], bool(found["gpu"]), found["dtype"])


def run_shapes(tokenizer: Callable[[], Path], size: ShapesSize, place: Place) -> tuple[str, dict[str, Any]]:
    """The tables, and the figures of the last line.

    Args:
        tokenizer: Returns a folder with a model's tokenizer, if TOKENIZER is not set.
        size: How much to train.
        place: Where the processes run.
    """
    wanted, folder = _settings(os.environ)
    place = replace(place, card=one_card(os.environ), limit_s=LIMIT_S)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # preparation in this process must not use the card's memory
    device = this_device(place)
    place = replace(place, dtype=device.dtype, card=place.card if device.on_gpu else "")
    amount = size.on_gpu if device.on_gpu else size.on_cpu
    name = wanted or ("qwen2.5-1.5b" if device.on_gpu else "qwen2.5-0.5b")
    dims = known_dims(name)
    model = random_model(known_config(name), folder or tokenizer(), place.scratch / "shape")
    # Trainer needs only the project's own libraries.
    contestants = [replace(one, environment="project") if one.role == "trainer" else one for one in plan(quick=True)]
    parts, last = [f"{name}, {dims.n_parameters / 1e9:.2f} B random weights, on {device}"], {}
    for case in size.cases:
        home = place.scratch / f"shape-{case}"
        home.mkdir()
        prepared = prepare(
            WORKLOADS[case], model, home, dtype=place.dtype, n_steps=amount.steps, n_validation=8,
            batch_size=amount.batch_size,
        )  # fmt: skip
        results = run_rounds(contestants, prepared, model.root, place, size.rounds, warm=amount.warm)
        plain = step_flops(dims, prepared.n_shared + prepared.n_own)
        own = own_flops(dims, prepared, amount.batch_size)
        title = (
            f"## {case}: {prepared.n_shared} shared and {prepared.n_own:.0f} own tokens, {amount.batch_size} per step"
        )
        parts += [title, shapes_table(results, device, plain, own)]
        last[case] = shapes_figures(results, device, plain, own)
    return "\n\n".join([*parts, LEGEND]), {"shape": name, "device": str(device), "workloads": last}


def _settings(environ: Mapping[str, str]) -> tuple[str | None, Path | None]:
    """Read and check SHAPE and TOKENIZER, before anything is measured."""
    name, folder = environ.get("SHAPE") or None, environ.get("TOKENIZER") or None
    if name is not None and name not in known_models():
        raise SystemExit(f"SHAPE={name}: known shapes are {', '.join(known_models())}")
    if folder is not None and not Path(folder, "tokenizer.json").is_file():
        raise SystemExit(f"TOKENIZER={folder}: the folder has no tokenizer.json")
    return name, Path(folder) if folder else None


def random_model(config: dict[str, Any], tokenizer: Path, root: Path) -> ModelRef:
    """A model of this configuration with random weights in bfloat16, and another model's tokenizer.

    Raises:
        SystemExit: the tokenizer has ids that the model does not.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    root.mkdir()
    for path in tokenizer.iterdir():
        if path.name.startswith(("tokenizer", "chat_template", "special_tokens", "vocab", "merges")):
            shutil.copy(path, root)
    n_ids = len(AutoTokenizer.from_pretrained(root))
    if n_ids > config["vocab_size"]:
        raise SystemExit(f"SHAPE has {config['vocab_size']} ids and the tokenizer {n_ids}: use a larger vocabulary")
    torch.manual_seed(SEED)
    settings = {"max_position_embeddings": CONTEXT, "sliding_window": None, **config}
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), dtype=torch.bfloat16)
    made.save_pretrained(root)
    return ModelRef(
        root=root, digest=seal(root), uri=f"file:{root}", n_parameters=sum(each.numel() for each in made.parameters()),
        vocab_size=config["vocab_size"], context_length=CONTEXT,
    )  # fmt: skip


def step_flops(dims: ModelDims, n_tokens: float) -> float:
    """Operations per token of a plain LoRA step on examples of this many tokens, as MFU usually counts them.

    Frozen weights are multiplied once forward and once for the gradient of their input, two operations each; trained
    weights once more; attention's two products, over half of the columns on average, once forward and twice backward.
    """
    return _layers(dims) + 3 * 2 * n_tokens * dims.heads * dims.d_head * dims.layers + 4 * dims.vocab * dims.hidden


def own_flops(dims: ModelDims, prepared: Prepared, batch_size: int) -> float:
    """The same for our step, which reads a shared prefix once and computes logits only where there is loss."""
    n_shared, n_own = prepared.n_shared, prepared.n_own
    share = (n_shared / batch_size + n_own) / (n_shared + n_own)
    # Twice the number of columns that a token attends to: an own token sees all shared ones and half of the own.
    looked_at = (n_shared / batch_size * n_shared + n_own * (2 * n_shared + n_own)) / (n_shared + n_own)
    attention = 3 * 2 * looked_at * dims.heads * dims.d_head * dims.layers
    head = 4 * dims.vocab * dims.hidden * prepared.n_supervised / (n_shared + n_own)
    return _layers(dims) * share + attention + head


def _layers(dims: ModelDims) -> float:
    return 4 * dims.n_linear + 6 * trainable_parameters(dims, ADAPTER)


def shapes_table(results: list[Result], device: Device, plain: float, own: float) -> str:
    """One row per trainer."""
    figures = shapes_figures(results, device, plain, own)
    rows: list[list[object]] = []
    for result in results:
        name = result.contestant.name
        if result.failure:
            rows.append([name, result.failure])
            continue
        of, losses = figures[name], result.runs[0].losses
        rows.append(
            [
                name, f"{of['tokens_per_s']:,.0f}", f"{figures['ratios'].get(name, 1.0):.2f}", f"{of['mfu']:.1%}",
                f"{of['mfu_computed']:.1%}", f"{of['peak_mb']:,}", f"{losses[0]:.3f} {losses[-1]:.3f}",
            ]
        )  # fmt: skip
    names = (
        "trainer", "tokens per s", "ours over it", "MFU, of a plain step", "of what is computed", "peak MB",
        "loss, first and last step",
    )  # fmt: skip
    return table(names, rows)


def shapes_figures(results: list[Result], device: Device, plain: float, own: float) -> dict[str, Any]:
    """The table's figures; peaks are of the GPU's memory if there is one, else of the process."""
    done = {result.contestant.name: result for result in results if not result.failure}
    ours = next((one for one in done.values() if one.contestant.role == "ours"), None)
    figures: dict[str, Any] = {
        name: {
            "tokens_per_s": round(one.per_s, 1),
            "mfu": round(one.per_s * plain / device.most, 4),
            "mfu_computed": round(one.per_s * (own if one is ours else plain) / device.most, 4),
            "peak_mb": round(one.middle(lambda run: run.device_peak_mb if device.on_gpu else run.peak_mb)),
        }
        for name, one in done.items()
    }
    figures["ratios"] = {
        name: round(ours.per_s / one.per_s, 3) for name, one in done.items() if ours is not None and one is not ours
    }
    return figures
