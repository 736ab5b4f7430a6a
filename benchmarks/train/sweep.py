"""A sweep of four trials over the top layers: with and without what the frozen layers compute kept, beside Trainer.

It knows nothing of how the cache works: trials are our training process's own work. Called by
`benchmarks/train/__main__.py`.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.train.runs import run_script, run_training, told
from benchmarks.train.workload import BATCH_SIZE, Workload, prepare, spec_of
from schemas.artifacts import ModelRef
from schemas.training import AdapterSpec, TrainSpec
from tasks.files import write_json

RATES = (2e-4, 5e-4, 1e-3, 2e-3)
N_TRIALS, EPOCHS, TOP_LAYERS = len(RATES), 3, 4
N_BATCHES = 6


@dataclass(frozen=True)
class Sweep:
    """CPU seconds of all trials; None where there is no figure, and `told` says why."""

    cached_s: float | None
    uncached_s: float | None
    trainer_s: float | None
    distance: float | None
    """Largest relative difference between the validation losses with and without the cache."""
    told: str = ""

    @property
    def ratio(self) -> float | None:
        """Trainer over ours with the cache."""
        return _ratio(self.trainer_s, self.cached_s)

    @property
    def ratio_cache(self) -> float | None:
        """Ours without the cache over ours with it."""
        return _ratio(self.uncached_s, self.cached_s)


def run_sweep(
    workload: Workload,
    model: ModelRef,
    folder: Path,
    scratch: Path,
    *,
    trainer: Path | None,
    threads: int,
    top_layers: int = TOP_LAYERS,
    n_batches: int = N_BATCHES,
    uncached: bool = True,
) -> Sweep:
    """Both arms and one trial of Trainer over the same epochs, whose steps alone count, times the trials.

    `uncached`: also ours without the cache, which no asked ratio needs.
    """
    if "cache_trunk" not in TrainSpec.model_fields:
        return Sweep(None, None, None, None, "not there: this checkout keeps no trunk")
    adapter = AdapterSpec(rank=16, alpha=32, top_layers=top_layers)
    spec = spec_of(workload, threads=threads, adapter=adapter, epochs=EPOCHS, cache_trunk="on")
    prepared = prepare(
        workload, model, folder, n_steps=n_batches, n_validation=BATCH_SIZE, adapter=adapter, epochs=EPOCHS
    )
    job = {"dataset": prepared.dataset, "model": model}
    plain = {name: ref.model_dump(mode="json") for name, ref in job.items()}
    write_json(folder / "job.json", {**plain, "spec": spec.model_dump(mode="json"), "threads": threads, "rates": RATES})
    seconds, losses = {}, {}
    for cache in ("off", "on") if uncached else ("on",):
        place = scratch / f"sweep-{cache}"
        place.mkdir()
        answer = place / "answer.json"
        cost = run_script(
            [sys.executable, "sweep_engine.py", cache, folder / "job.json", answer], scratch, threads=threads, own=True
        )
        if not cost.complete:
            return Sweep(None, None, None, None, told(cost))
        trials = json.loads(answer.read_text())["trials"]
        shutil.rmtree(place)
        seconds[cache] = sum(trial["cpu_s"] for trial in trials)
        losses[cache] = [trial["validation_loss"] for trial in trials]
    trainer_s = None
    if trainer is not None:
        run = run_training(
            trainer, "hf_engine.py", "trainer", model=model.root, folder=folder, scratch=scratch, threads=threads,
            own=False,
        )  # fmt: skip
        trainer_s = None if run.told else run.cpu_s / (n_batches * EPOCHS - 1) * n_batches * EPOCHS * N_TRIALS
    if not uncached:
        return Sweep(seconds["on"], None, trainer_s, None)
    distance = max(abs(on / off - 1) for on, off in zip(losses["on"], losses["off"], strict=True))
    return Sweep(seconds["on"], seconds["off"], trainer_s, distance)


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None
