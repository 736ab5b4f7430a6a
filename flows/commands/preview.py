"""`tunegate preview`: what the model would learn from, token by token, before anything is trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.text import Text

from flows.build import build
from flows.commands.output import out, print_json, talk
from flows.context.graph_context import context_of
from flows.context.previous_run import earlier_results
from flows.context.registry_state import standing_of
from flows.context.run_context import new_run_id
from flows.graph.budget import budget_of
from flows.graph.execute import Observer, Outcome, Run, run_plainly
from flows.graph.graph import Node
from flows.ledger.opened import open_ledger, open_store
from flows.run.quarantine_guard import QuarantineGuard
from flows.workspace.settings import load_settings
from schemas.artifacts import DatasetRef, ModelRef
from schemas.load import load_file
from tasks.model.preview import Run as TextRun
from tasks.model.preview import Shown, show_examples


def preview(*, pipeline: str, n_examples: int, config: Path, as_json: bool) -> int:
    """Make what is missing up to the encoded examples (no training, no run in the ledger), then show some."""
    dataset, model = _encoded(pipeline, config)
    shown = show_examples(dataset=dataset, model=model, n_examples=n_examples)
    if as_json:
        print_json({"pipeline": pipeline, "n_train": dataset.n_train, "examples": [asdict(each) for each in shown]})
        return 0
    for each in shown:
        _print(each)
    out().print(
        f"{len(shown)} of {dataset.n_train:,} train examples, {dataset.n_tokens:,} tokens, "
        f"{dataset.n_supervised:,} with loss",
        markup=False,
    )
    return 0


def _encoded(pipeline: str, config: Path) -> tuple[DatasetRef, ModelRef]:
    """The encoded train split and the base model, from the store where they are there already."""
    spec, settings = load_file(config).get(pipeline), load_settings(config)
    store, ledger = open_store(settings), open_ledger(settings)
    with ledger.pipeline_lock(pipeline, wait_s=0.0, run_id=new_run_id()):
        standing, earlier = standing_of(spec, ledger), earlier_results(ledger, store, pipeline)
        context = context_of(spec, settings, root=config.resolve().parent, standing=standing, earlier=earlier)
        declared = build(spec, context)
        run = Run(
            declared.graph, store, observer=_Notes(), guard=QuarantineGuard(spec.table), budget=budget_of(settings)
        )
        tuned = declared.tuned
        run_plainly(run, targets=(tuned.first_dataset, tuned.first_model))
    return run.result(tuned.first_dataset), run.result(tuned.first_model)


class _Notes(Observer):
    """Prints what had to be made."""

    def ended(self, node: Node, outcome: Outcome) -> None:
        if not outcome.reused and not outcome.skipped:
            talk().print(f"  {node.name:<18} {outcome.seconds:.1f} s", style="dim", markup=False)


def _print(shown: Shown) -> None:
    console = out()
    n_loss = sum(shown.loss_mask)
    console.print(f"ticket {shown.ticket_id}: {len(shown.input_ids)} tokens, {n_loss} with loss", markup=False)
    console.print(Text.assemble(*map(_styled, shown.runs)), soft_wrap=True)
    console.print(f"ids {' '.join(map(str, shown.input_ids))}\n", style="dim", markup=False, soft_wrap=True)


def _styled(run: TextRun) -> tuple[str, str]:
    """Where there is no colour, what carries loss stands between marks."""
    plain = not out().is_terminal
    text = f"⟦{run.text}⟧" if plain and run.carries_loss else run.text
    return text, "bold green" if run.carries_loss else "dim"
