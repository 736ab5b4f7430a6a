"""`ONLY=shapes make bench-train`: the training step on a model of known shapes, on a GPU where there is one.

The weights are random, made from a configuration that tasks/train knows, so nothing is downloaded but a tokenizer.
SHAPE: its name (default: 1.5 B of Qwen on a GPU, 0.5 B without). TOKENIZER: a folder with tokenizer files, for a
machine without network (default: SmolLM2's). Seconds count here, not CPU seconds. Called by
`benchmarks/train/__main__.py`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.train.contestants import CONTESTANTS, Contestant
from benchmarks.train.device import Device, one_card, this_device
from benchmarks.train.report import Result
from benchmarks.train.runs import Run, run_training
from benchmarks.train.workload import ADAPTER, WORKLOADS, Prepared, prepare, write_settings
from schemas.artifacts import ModelRef
from tasks.files import seal
from tasks.train.memory import ModelDims, known_config, known_dims, known_models, trainable_parameters

LIMIT_S = 300.0
"""Wall seconds of one training."""
SEED, CONTEXT = 20261128, 4096


@dataclass(frozen=True)
class Amount:
    """Of one training."""

    steps: int
    warm: int
    """The first steps, outside of the time: lengths that were not seen before cost more."""
    batch_size: int


@dataclass(frozen=True)
class ShapesSize:
    """How much is trained; a GPU needs more of everything to be busy."""

    cases: tuple[str, ...]
    rounds: int
    on_cpu: Amount
    on_gpu: Amount


def run_shapes(
    tokenizer: Callable[[], Path], pythons: dict[str, Path], missing: dict[str, str], scratch: Path, size: ShapesSize,
    *, threads: int, processor: str,
) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """The tables, and the figures of the last line.

    Args:
        tokenizer: Gives a folder with a model's tokenizer, where TOKENIZER names none.
        pythons: Environment -> interpreter.
        missing: Environment -> why there is none.
        scratch: For the model and everything else.
        size: How much.
        threads: Of every process.
        processor: Its name, where there is no GPU.
    """
    wanted, folder = _asked(os.environ)
    card = one_card(os.environ)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what is prepared here must not lie on the card
    device = this_device(scratch, card, threads=threads, processor=processor)
    amount = size.on_gpu if device.on_gpu else size.on_cpu
    name = wanted or ("qwen2.5-1.5b" if device.on_gpu else "qwen2.5-0.5b")
    dims = known_dims(name)
    model = random_model(known_config(name), folder or tokenizer(), scratch / "shape")
    parts, last = [f"{name}, {dims.n_parameters / 1e9:.2f} B random weights, on {device}"], {}
    for case in size.cases:
        home = scratch / f"shape-{case}"
        home.mkdir()
        prepared = prepare(
            WORKLOADS[case], model, home, n_steps=amount.steps, n_validation=8, batch_size=amount.batch_size
        )
        write_settings(home, WORKLOADS[case], model, threads=threads, dtype="bfloat16")
        results = _trained(pythons, missing, model, prepared, scratch, size.rounds, amount.warm, threads, card, device)
        plain = step_flops(dims, prepared.n_shared + prepared.n_own)
        own = own_flops(dims, prepared, amount.batch_size)
        title = f"## {case}: {prepared.n_shared} shared and {prepared.n_own:.0f} own tokens, {amount.batch_size} a step"
        parts += [title, shapes_table(results, device, plain, own)]
        last[case] = shapes_figures(results, device, plain, own)
    return "\n\n".join(parts), {"shape": name, "device": str(device), "workloads": last}


def _asked(environ: Mapping[str, str]) -> tuple[str | None, Path | None]:
    """SHAPE and TOKENIZER, looked at before anything is measured."""
    name, folder = environ.get("SHAPE") or None, environ.get("TOKENIZER") or None
    if name is not None and name not in known_models():
        raise SystemExit(f"SHAPE={name}: known are {', '.join(known_models())}")
    if folder is not None and not Path(folder, "tokenizer.json").is_file():
        raise SystemExit(f"TOKENIZER={folder}: there is no tokenizer.json in such a folder")
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
        raise SystemExit(f"SHAPE has {config['vocab_size']} ids and the tokenizer {n_ids}: take a larger vocabulary")
    torch.manual_seed(SEED)
    told = {"max_position_embeddings": CONTEXT, "sliding_window": None, **config}
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(**told), dtype=torch.bfloat16)
    made.save_pretrained(root)
    return ModelRef(
        root=root, digest=seal(root), uri=f"file:{root}", n_parameters=sum(each.numel() for each in made.parameters()),
        vocab_size=config["vocab_size"], context_length=CONTEXT,
    )  # fmt: skip


def step_flops(dims: ModelDims, n_tokens: float) -> float:
    """Operations for one token of a plain LoRA step on examples of so many tokens: what MFU usually counts.

    Frozen weights are multiplied once forward and once for the gradient of their input, two operations each; trained
    ones once more; attention's two products, over half of the columns in the mean, forward and twice backward.
    """
    return _layers(dims) + 3 * 2 * n_tokens * dims.heads * dims.d_head * dims.layers + 4 * dims.vocab * dims.hidden


def own_flops(dims: ModelDims, prepared: Prepared, batch_size: int) -> float:
    """The same for our step, which reads a shared beginning once and has logits only where there is loss."""
    n_shared, n_own = prepared.n_shared, prepared.n_own
    share = (n_shared / batch_size + n_own) / (n_shared + n_own)
    # Twice the columns that a token looks at: before an own one stand all shared ones and half of the own.
    looked_at = (n_shared / batch_size * n_shared + n_own * (2 * n_shared + n_own)) / (n_shared + n_own)
    attention = 3 * 2 * looked_at * dims.heads * dims.d_head * dims.layers
    head = 4 * dims.vocab * dims.hidden * prepared.n_supervised / (n_shared + n_own)
    return _layers(dims) * share + attention + head


def _layers(dims: ModelDims) -> float:
    return 4 * dims.n_linear + 6 * trainable_parameters(dims, ADAPTER)


def shapes_table(results: list[Result], device: Device, plain: float, own: float) -> str:
    """One line for each trainer."""
    lines = [
        "| trainer | tokens per s | ours over it | MFU, of a plain step | of what is computed | peak MB "
        "| loss, first and last step |",
        "|---" * 7 + "|",
    ]
    figures = shapes_figures(results, device, plain, own)
    for result in results:
        name = result.contestant.name
        if result.told:
            lines.append(f"| {name} | {result.told} | | | | | |")
            continue
        told, losses = figures[name], result.runs[0].losses
        over = figures["ratios"].get(name, 1.0)
        lines.append(
            f"| {name} | {told['tokens_per_s']:,.0f} | {over:.2f} | {told['mfu']:.1%} | {told['mfu_computed']:.1%} "
            f"| {told['peak_mb']:,} | {losses[0]:.3f} {losses[-1]:.3f} |"
        )
    return "\n".join(lines)


def shapes_figures(results: list[Result], device: Device, plain: float, own: float) -> dict[str, Any]:
    """What the table says; peaks are of the GPU's memory where there is one, else of the process."""
    done = {result.contestant.name: result for result in results if not result.told}
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


def _trained(
    pythons: dict[str, Path], missing: dict[str, str], model: ModelRef, prepared: Prepared, scratch: Path,
    rounds: int, warm: int, threads: int, card: str, device: Device,
) -> list[Result]:  # fmt: skip
    contestants = [one for one in CONTESTANTS if one.role != "peer"]
    found: dict[Contestant, list[Run]] = defaultdict(list)
    for number in range(rounds):
        for one in contestants[number:] + contestants[:number]:
            # Trainer needs nothing but the project's own libraries.
            environment = "project" if one.role == "trainer" else one.environment
            if environment not in pythons or (found[one] and found[one][-1].told):
                continue
            run = run_training(
                pythons[environment], one.script, one.mode, model=model.root, folder=prepared.folder, scratch=scratch,
                threads=threads, own=one.role == "ours", card=card, warm=warm, limit_s=LIMIT_S,
            )  # fmt: skip
            if not run.told and run.on_gpu != device.on_gpu:
                run = Run(told="its libraries did not find the GPU")
            found[one].append(run)
            shown = run.told or f"{run.n_tokens / run.wall_s:.0f} tokens per s"
            print(f"{prepared.workload.name} {one.name}: {shown}", file=sys.stderr, flush=True)
    return [
        Result(one, tuple(found[one]), "" if found[one] else missing.get(one.environment, "")) for one in contestants
    ]
