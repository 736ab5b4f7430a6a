"""`tunegate plan`: what would run and why, how large, how long; writes nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape

from flows.commands.output import out, print_json, print_rows, talk
from flows.context.ingest import ingested_summary
from flows.finetune import Tuned
from flows.graph.execute import Run
from flows.graph.plan import PlannedNode
from flows.graph.schedule import times
from flows.run.console import describe
from flows.run.planned_run import plan_pipeline
from flows.schedule.work_pools import where_stages_run
from flows.views.plan_calls import planned_calls
from flows.views.power import gate_power, refuse_weak_gate
from flows.views.selection_report import changes_text
from schemas.artifacts import DatasetRef, Splits
from schemas.candidates import candidates
from schemas.pipeline import PipelineSpec
from schemas.training import TrainSpec
from schemas.training_advice import training_advice
from schemas.trials import TrialRef
from tasks.assess.plan_checks import Calls
from tasks.assess.plan_gate import RulePower
from tasks.train.memory import Forecast, forecast, workload_of


def plan(*, pipeline: str, config: Path, as_json: bool) -> int:
    """Walk the same steps as a run would and tell what it would do."""
    found = plan_pipeline(pipeline, config)
    spec, settings, ledger, registry_state = found.spec, found.settings, found.ledger, found.registry_state
    run, declared, store = found.run, found.pipeline, found.run.store
    planned = tuple(each for each in found.nodes if each.node.kind != "act")
    seconds = {this.id: found.seconds[this.node.name] for this in planned}
    tried = {each.name: changes_text(each.changes or {}) for each in candidates(spec.train)}
    rows = [_row(this, seconds[this.id], tried.get(this.id, "")) for this in planned]
    splits = run.find(declared.curated.clean)
    memory = _memory(spec, run, declared.tuned)
    figures = _figures(spec, planned, seconds, memory, run, splits, run.find(declared.tuned.first_dataset))
    calls = planned_calls(
        spec, planned, settings=settings, root=config.resolve().parent, has_champion=registry_state.champion is not None
    )
    power = gate_power(spec, splits=splits, ledger=ledger, store=store)
    asked = ingested_summary(spec, settings)
    places = where_stages_run(spec, settings.home)
    if as_json:
        champion = registry_state.champion and registry_state.champion.version
        gates = [{**asdict(row), "underpowered": row.underpowered} for row in power]
        print_json(
            {
                "pipeline": pipeline,
                "champion": champion,
                "steps": rows,
                **figures,
                "gates": gates,
                "source": asked,
                "places": places,
                "calls": [asdict(each) for each in calls],
                "warnings": training_advice(spec.train),
            }
        )
        return 2 if spec.gates.strict_power and any(row.underpowered for row in power) else 0
    if asked is not None:
        talk().print(f"[yellow]note[/yellow] {escape(asked)}")
    print_rows(rows, ("step", "state", "seconds", "result", "why"))
    out().print()
    for name, value in figures.items():
        out().print(f"{name.replace('_', ' '):<24} {'not known before curation has run' if value is None else value}")
    for stage, where in places.items():
        out().print(f"{stage} runs on {where}", markup=False)
    out().print(f"stages run one after the other; within one, steps run side by side on {_resources(run)}\n")
    print_rows([_power_row(row) for row in power], ("gate", "needs", "has", "shows", "what"))
    if calls:
        out().print()
        print_rows(
            [_call_row(each) for each in calls], ("asked", "calls", "tokens in", "at most out", "USD", "seconds", "how")
        )
    told = (refuse_weak_gate(spec, power), _memory_warning(spec, memory), *training_advice(spec.train))
    for warning in told:
        if warning is not None:
            talk().print(f"[yellow]warning[/yellow] {escape(warning)}")
    return 0


def _resources(run: Run) -> str:
    budget = run.budget
    gpus = f", {budget['gpu']:g} GPUs" if budget.get("gpu") else ""
    return f"{budget['cpu']:g} cores, {budget['memory_gb']:.0f} GB{gpus}, one training or generation at a time"


def _call_row(this: Calls) -> dict[str, Any]:
    return {
        "asked": this.what,
        "calls": "" if this.calls is None else f"{this.calls:,}",
        "tokens in": "" if this.tokens_in is None else f"{this.tokens_in:,}",
        "at most out": "" if this.tokens_out is None else f"{this.tokens_out:,}",
        "USD": "" if this.usd is None else f"{this.usd:.4f}",
        "seconds": "" if this.seconds is None else f"{this.seconds:.1f}",
        "how": this.told,
    }


def _power_row(row: RulePower) -> dict[str, Any]:
    return {
        "gate": row.rule,
        "needs": "" if row.needed is None else row.needed,
        "has": "" if row.at_hand is None else row.at_hand,
        "shows": "" if row.smallest is None else f"{row.smallest:.3f}",
        "what": row.what,
    }


def _row(this: PlannedNode, seconds: float | None, changes: str) -> dict[str, Any]:
    return {
        "step": this.id,
        "state": this.state,
        "seconds": 0.0 if this.state == "reused" else seconds and round(seconds, 1),
        "result": describe(this.artifact) if this.artifact is not None else changes,
        "why": "; ".join(this.reasons),
    }


def _memory(spec: PipelineSpec, run: Run, tuned: Tuned) -> Forecast | None:
    """As the (first) training itself asks before it loads anything; None before its base model is there, or unknown.

    On a cluster each node asks for itself.
    """
    if spec.engine == "ray":
        return None
    train = spec.train.first()
    dataset, model = run.find(tuned.first_dataset), run.find(tuned.first_model)
    if model is None:
        return None
    if dataset is not None:
        share = dataset.n_supervised / max(1, dataset.n_tokens)
        work = workload_of(model, max_tokens=dataset.max_tokens, supervised_share=share)
    else:
        work = workload_of(model, max_tokens=train.max_length)
    return forecast(work, train) if work else None


def _memory_warning(spec: PipelineSpec, memory: Forecast | None) -> str | None:
    if memory is None or memory.fits or spec.train.memory_check == "off":
        return None
    end = "will be refused" if spec.train.memory_check == "refuse" else "may run out of memory"
    remedy = f"; this fits: {memory.remedy}" if memory.remedy else "; use a smaller base model"
    return f"the training {end}: {memory.sentence()}{remedy}"


def _figures(
    spec: PipelineSpec,
    planned: tuple[PlannedNode, ...],
    seconds: dict[str, float | None],
    memory: Forecast | None,
    run: Run,
    splits: Splits | None,
    dataset: DatasetRef | None,
) -> dict[str, Any]:
    """Rows, tokens, steps, minutes and memory, as far as stored results tell."""
    train = spec.train.first()
    n_train = None if dataset is None else dataset.n_train
    if n_train is None and splits is not None:
        n_train = min(splits.n_train, train.max_examples or splits.n_train)
    steps = None if n_train is None else _optimiser_steps(n_train, train)
    usual = _usual_seconds(planned, seconds)
    found = None if usual is None else times(run.graph, usual, run.budget)
    several = {"trainings_to_choose_from": len(candidates(spec.train))} if spec.train.choice is not None else {}
    return {
        **several,
        "train_examples": n_train,
        "train_tokens": dataset.n_tokens * train.epochs if dataset is not None else None,
        "optimiser_steps": steps,
        "held_out_items": min(spec.evaluate.max_items, splits.n_test) if splits is not None else None,
        "minutes_from_past_runs": found and _minutes(found.side_by_side),
        "minutes_one_by_one": found and _minutes(found.one_by_one),
        "minutes_on_enough_cores": found and _minutes(found.critical_path),
        "training_memory_gib": memory and round(memory.predicted / 2**30, 2),
        "memory_at_hand_gib": memory and round(memory.available / 2**30, 2),
    }


def _usual_seconds(planned: tuple[PlannedNode, ...], seconds: dict[str, float | None]) -> dict[str, float] | None:
    """Node's name -> what it usually takes, of those that will or may run; None where one has never run."""
    usual: dict[str, float] = {}
    for this in planned:
        if this.state not in ("run", "maybe"):
            continue
        if this.node.kind == "grow" and this.id != "gate":
            if this.node.returns is TrialRef:  # of Optuna: its training is not known yet
                return None
            continue  # it becomes the result of another node
        taken = seconds[this.id]
        if taken is None:
            return None
        usual[this.node.name] = taken
    return usual


def _minutes(seconds: float) -> float:
    return round(seconds / 60, 1)


def _optimiser_steps(n_train: int, train: TrainSpec) -> int:
    per_step = train.batch_size * train.processes * train.gradient_accumulation_steps
    steps = -(-n_train // per_step) * train.epochs
    return min(steps, train.max_steps or steps)
