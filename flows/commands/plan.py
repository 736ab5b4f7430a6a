"""`tunegate plan`: what would run and why, how large, how long; writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.commands.output import out, print_json, print_rows
from flows.earlier import Earlier, earlier_results
from flows.engine.ledger import Ledger
from flows.engine.plan import PlannedStep, plan_steps
from flows.engine.store import Store
from flows.screen import describe
from flows.session import declare
from flows.settings import load_settings
from schemas.artifacts import DatasetRef, ModelRef, Splits
from schemas.load import load_file
from schemas.pipeline import PipelineSpec
from tasks.train.memory import ModelDims, estimate_memory


def plan(*, pipeline: str, config: Path, as_json: bool) -> int:
    """Walk the same steps as a run would and tell what it would do."""
    spec, settings = load_file(config).get(pipeline), load_settings(config)
    ledger = Ledger(settings.home) if (settings.home / "ledger.sqlite").exists() else None
    champion = ledger.champion(spec.registry.name) if ledger else None
    store = Store(settings.home)
    earlier = earlier_results(ledger, store, spec.name) if ledger else Earlier()
    stages = declare(spec, settings=settings, root=config.resolve().parent, champion=champion, earlier=earlier)
    steps = [step for stage in stages.values() for step in stage]
    planned = plan_steps(steps, store)
    seconds = {this.step.name: ledger.typical_seconds(this.step.name) if ledger else None for this in planned}
    rows = [_row(this, seconds[this.step.name]) for this in planned]
    figures = _figures(spec, planned, seconds)
    if as_json:
        print_json({"pipeline": pipeline, "champion": champion and champion.version, "steps": rows, **figures})
        return 0
    print_rows(rows, ("step", "state", "seconds", "result", "why"))
    out().print()
    for name, value in figures.items():
        out().print(f"{name.replace('_', ' '):<24} {'not known before curation has run' if value is None else value}")
    return 0


def _row(this: PlannedStep, seconds: float | None) -> dict[str, Any]:
    return {
        "step": this.step.name,
        "state": this.state,
        "seconds": 0.0 if this.state == "reused" else seconds and round(seconds, 1),
        "result": describe(this.artifact) if this.artifact is not None else "",
        "why": "; ".join(this.reasons),
    }


def _figures(spec: PipelineSpec, planned: tuple[PlannedStep, ...], seconds: dict[str, float | None]) -> dict[str, Any]:
    """Rows, tokens, steps, minutes and memory, as far as stored results tell."""
    known = {this.step.name: this.artifact for this in planned}
    splits, dataset, model = known.get("decontaminate"), known.get("encode"), known.get("base_model")
    train = spec.train
    n_train = dataset.n_train if isinstance(dataset, DatasetRef) else None
    if n_train is None and isinstance(splits, Splits):
        n_train = min(splits.n_train, train.max_examples or splits.n_train)
    steps = None if n_train is None else _optimiser_steps(n_train, spec)
    waiting = [this.step.name for this in planned if this.state != "reused"]
    unknown = [name for name in waiting if seconds[name] is None]
    minutes = None if unknown else round(sum(seconds[name] or 0.0 for name in waiting) / 60, 1)
    memory = None
    dims = ModelDims.read(model.root / "config.json") if isinstance(model, ModelRef) else None
    if dims is not None:
        longest = dataset.max_tokens if isinstance(dataset, DatasetRef) else train.max_length
        memory = round(estimate_memory(dims, train, max_tokens=longest).total / 2**30, 2)
    return {
        "train_examples": n_train,
        "train_tokens": dataset.n_tokens * train.epochs if isinstance(dataset, DatasetRef) else None,
        "optimiser_steps": steps,
        "held_out_items": min(spec.evaluate.max_items, splits.n_test) if isinstance(splits, Splits) else None,
        "minutes_from_past_runs": minutes,
        "training_memory_gib": memory,
    }


def _optimiser_steps(n_train: int, spec: PipelineSpec) -> int:
    per_step = spec.train.batch_size * spec.train.gradient_accumulation_steps
    steps = -(-n_train // per_step) * spec.train.epochs
    return min(steps, spec.train.max_steps or steps)
