"""`tunegate study ablate` and `study reproduce`: trainings that judge curation, or repeat a run."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.options import CONFIG, Config, Metric, Pipeline, RunArgument
from flows.cli.output import Result, TextTable, cell, talk
from flows.cli.progress import StepNames
from flows.context.run_context import new_run_id
from flows.graph.graph import Node
from flows.ledger.open import open_ledger
from flows.run.ablation import CURATED, Ablation, arms_of, choose_arms, keep_table
from flows.run.reproduce import reproduce_run
from flows.workspace.settings import load_settings
from schemas.load import load_file
from schemas.pipeline import with_training
from tasks.assess.ablation import AblationRow, AblationTable


@command(example="tunegate study ablate support-replies --only raw --steps 40", computes=True)
def ablate(
    pipeline: Pipeline,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this arm: raw, raw-k or without-STEP; repeat. All if not given.")
    ] = None,
    metric: Metric = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps of every arm; the pipeline's own if not given.")
    ] = None,
    config: Config = CONFIG,
) -> Result:
    """Measure what curation is worth: train on curated and raw tickets.

    Every arm trains with equal steps and is judged as the gate judges. What is in the store is reused, so a killed
    ablation continues.
    """
    spec, settings = with_training(load_file(config).get(pipeline)), load_settings(config)
    arms = choose_arms(arms_of(spec), only or [])
    talk().print(f"{len(arms) + 1} trainings at most, one after another; what is stored is reused", style="dim")
    with open_ledger(settings).pipeline_lock(pipeline, wait_s=0.0, run_id=new_run_id()):
        ablation = Ablation(spec, settings, config.resolve().parent, _print_step, n_steps=steps)
        table = ablation.run(arms, metric or spec.gates.rules[0].metric)
        place = keep_table(table, settings)
    return Result({**table.model_dump(mode="json"), "file": str(place)}, _ablation_text(table, place))


def _print_step(arm: str, node: Node, seconds: float, reused: bool) -> None:
    """A step that was made, on stderr; of one that was there already nothing."""
    if not reused:
        talk().print(f"  {arm:<18} {node.name:<18} {seconds:.1f} s", style="dim", markup=False)


def _ablation_text(table: AblationTable, place: Path) -> Iterator[Any]:
    """The table, the reason of each difference, and where it is kept."""
    yield (
        f"{table.pipeline}: {table.metric} on {table.n_items} held-out items, {table.n_steps} steps each, seed "
        f"{table.seed}; bounds one-sided at {100 * table.confidence:.4g} %\n"
    )
    yield TextTable([_arm_row(row) for row in table.rows])
    for row in table.rows:
        if row.gain is not None:
            yield f"\n{row.arm}: {row.description}. {row.reason}"
    yield f"\n{table.answer}\n{place}"
    talk().print(
        "note  the held-out items were looked at: a curation chosen by this table is no longer unseen by them, so "
        "let fresh items judge it (docs/how-to/weigh-costs.md)", markup=False, style="dim",
    )  # fmt: skip


def _arm_row(row: AblationRow) -> dict[str, Any]:
    return {
        "arm": row.arm,
        "rows": row.n_rows,
        "trained on": row.n_examples,
        "value": cell(row.value),
        "curated gains": cell(row.difference, "+.3f"),
        "bounds": None if row.lower is None else f"{row.lower:+.3f} .. {row.upper or 0:+.3f}",
        "won / lost": None if row.won is None else f"{row.won} / {row.lost}",
        "curation": "as declared" if row.arm == CURATED else row.gain,
    }


@command(example="tunegate study reproduce 20261126-074621", computes=True)
def reproduce(run_id: RunArgument, config: Config = CONFIG) -> Result:
    """Repeat a run's data and training steps and compare every byte.

    Exit code 1 at the first difference.
    """
    settings = load_settings(config)
    results = list(reproduce_run(run_id, settings, root=config.resolve().parent, observer=StepNames()))
    reproduced = all(result.state == "same" for result in results)
    text = [f"{result.step:<18} {result.state:<8} {result.message}".rstrip() for result in results]
    text.append("reproduced byte for byte" if reproduced else "NOT reproduced")
    data = {"run_id": run_id, "reproduced": reproduced, "steps": [asdict(result) for result in results]}
    return Result(data, text, exit_code=0 if reproduced else 1)
