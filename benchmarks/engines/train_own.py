"""tunegate's own runs for `bench-train`, each in a new process.

`train_own.py train model/ workload/ answer.json`: our step, as in the training process, on a model opened by our own
code. `gradients job.json answer.json`: the difference of its gradient from the stock model's. `sweep-on` and
`sweep-off` `job.json answer.json`: trials with and without a cached trunk. `device answer.json`: this device's speed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from train_shared import Clock, Task

from benchmarks.train.workload import spec_of
from schemas.artifacts import ModelRef
from schemas.training import TrainSpec
from tasks.model.adapter import open_for_training
from tasks.model.base_model import resolve_dtype
from tasks.storage.files import write_json
from tasks.train import worker
from tasks.train.batches import Batch, Examples
from tasks.train.engine import train
from tasks.train.forward import losses_of
from tasks.train.job import FINAL, ProgressLog
from tasks.train.loop import Checkpoints, Hooks, TrainData

SECONDS = 2.0
"""Duration of the device's measurement."""


class Recorder(ProgressLog):
    """Records times when the training process would write its log."""

    clock = Clock()

    def write(self, **entry: Any) -> None:
        if entry["event"] == "started":
            self.clock.start()
        elif entry["event"] == "step":
            self.clock.step(entry["loss"])


def train_once() -> None:
    """Train on a prepared workload."""
    task = Task.read()
    given = json.loads((task.folder / "examples.json").read_text())
    spec = spec_of(dtype=given["dtype"], threads=torch.get_num_threads(), batch_size=task.batch_size)
    model = open_for_training(ModelRef.model_validate(given["model"]), spec)
    with tempfile.TemporaryDirectory(dir=task.answer.parent) as scratch:
        log = Recorder(Path(scratch) / "progress.jsonl")
        data = TrainData(*(task.folder / "dataset" / split for split in ("train", "validation")))
        checkpoints = Checkpoints(Path(scratch), key="benchmark")
        outcome = train(model, spec, data=data, checkpoints=checkpoints, hooks=Hooks(log))
    task.write(log.clock, float(outcome.curve[-1]["validation_loss"] or "nan"))


def stock_gradients(model: Any, batch: Batch) -> dict[str, torch.Tensor]:
    """Gradients of the model's own forward."""
    model.zero_grad()
    logits = model(input_ids=batch.ids, use_cache=False).logits
    chosen = logits[batch.rows, batch.columns]
    functional.cross_entropy(chosen.float(), batch.targets).backward()
    return _taken(model)


def own_gradients(model: Any, losses: Any, batch: Batch) -> dict[str, torch.Tensor]:
    """Gradients of training's losses, with shared prefixes computed once if this version does that."""
    model.zero_grad()
    sharing = losses.sharing([batch]) if hasattr(losses, "sharing") else nullcontext()
    with sharing:
        losses(batch).mean().backward()
    return _taken(model)


def _taken(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def compare_gradients(job_file: Path, answer: Path) -> None:
    """Write the largest relative difference of a tensor's gradient, and that of the whole gradient, in float32.

    The loss is the mean over the supervised tokens of one batch; the stock side is PEFT's model with its own forward,
    full logits and `cross_entropy`, padded on the right. LoRA's B gets random values first: at zero, half of the
    arithmetic would have no effect.
    """
    job = json.loads(job_file.read_text())
    spec = TrainSpec.model_validate({**job["spec"], "dtype": "float32"})
    model = open_for_training(ModelRef.model_validate(job["model"]), spec)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, 0, 0.02)
    examples = Examples(Path(job["dataset"]["root"]) / "train")
    batch = examples.batch(range(min(spec.batch_size, len(examples))))
    wanted = stock_gradients(model, batch)
    got = own_gradients(model, losses_of(model, dtype=torch.float32, recompute=False), batch)
    each = [float((got[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted]
    square = sum(float((got[name] - wanted[name]).square().sum()) for name in wanted)
    whole = (square / sum(float(value.square().sum()) for value in wanted.values())) ** 0.5
    answer.write_text(json.dumps({"max_rel_diff": max(each), "rel_diff": whole, "n_tensors": len(each)}))


def sweep(cache: str, job_file: Path, answer: Path) -> None:
    """Run a sweep with our worker in this process; each trial's CPU and wall seconds include loading.

    Trials differ in learning rate and share base, data, layers and a folder for the output of frozen layers. Imports
    that all trials need count for none. `cache` is `train.cache_trunk`.
    """
    shared = json.loads(job_file.read_text())
    trials = []
    for number, rate in enumerate(shared.pop("rates")):
        scratch = answer.parent / f"trial-{cache}-{number}"
        scratch.mkdir(parents=True)
        spec = {**shared["spec"], "learning_rate": rate, "cache_trunk": cache}
        places = {"scratch": str(scratch), "trunks": str(answer.parent / "trunks")}
        write_json(scratch / "job.json", {**shared, "spec": spec, **places})
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        code = worker.main(scratch / "job.json")
        if code:
            sys.exit(f"trial {number} ended with {code}")
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        loss = json.loads((scratch / FINAL / "training.json").read_text())["validation_loss"]
        trials.append({"cpu_s": cpu_s, "wall_s": wall_s, "validation_loss": loss})
    answer.write_text(json.dumps({"trials": trials}))


def measure_device(answer: Path) -> None:
    """Write a GPU's name or nothing, and the most operations per second for a product of two large matrices."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    on_gpu = torch.cuda.is_available()
    device, size = (torch.device("cuda"), 8192) if on_gpu else (torch.device("cpu"), 2048)
    dtype = resolve_dtype("auto")
    one = torch.randn(size, size, dtype=dtype, device=device)
    other, best, end = one.clone(), 0.0, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(one, other)
        if on_gpu:
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    name = torch.cuda.get_device_name() if on_gpu else ""
    answer.write_text(json.dumps({"gpu": name, "measured_flops": best, "dtype": str(dtype).removeprefix("torch.")}))


def main() -> None:
    """Run the mode that the first argument selects."""
    what, *rest = sys.argv[1:]
    if what == "train":
        train_once()
    elif what == "gradients":
        compare_gradients(*map(Path, rest))
    elif what == "device":
        measure_device(Path(rest[0]))
    else:
        sweep(what.removeprefix("sweep-"), *map(Path, rest))


if __name__ == "__main__":
    main()
