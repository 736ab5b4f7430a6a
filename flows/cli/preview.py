"""What `tunegate data preview` shows: encoded train examples, made where they are missing, token by token."""

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from flows.build import build
from flows.cli.output import out
from flows.cli.text.progress import StepTimes
from flows.context.graph_context import context_of
from flows.context.previous_run import find_previous_run
from flows.context.run_context import new_run_id
from flows.effects.contract import judge_checks
from flows.graph.execute import run_plainly
from flows.ledger.open import open_ledger, open_store
from flows.registry.state import registry_state_of
from flows.run.guarded_run import guarded_run
from flows.workspace.clock import present
from flows.workspace.settings import load_settings
from schemas.artifacts import DatasetRef, ModelRef
from schemas.counted import counted
from schemas.load import load_file
from tasks.model.chat_format import DecodedExample, TokenRun


def encode_examples(pipeline: str, config: Path) -> tuple[DatasetRef, ModelRef]:
    """The encoded train split and the base model, from the store where they are there already.

    Raises:
        DataError: TG0222, a check of the data with severity `fail` did not pass.
    """
    spec, settings = load_file(config).get(pipeline), load_settings(config)
    store, ledger = open_store(settings), open_ledger(settings)
    with ledger.pipeline_lock(pipeline, wait_s=0.0, run_id=new_run_id()):
        state, previous = registry_state_of(spec, ledger), find_previous_run(ledger, store, pipeline)
        context = context_of(spec, settings, root=config.resolve().parent, registry_state=state, previous_run=previous)
        declared = build(spec, context)
        run = guarded_run(declared.graph, spec, store, settings, observer=StepTimes())
        tuned, checks = declared.tuned, declared.curated.checks
        if checks is not None:
            run_plainly(run, targets=(checks,))
            judge_checks(pipeline, run.result(checks), now=present())
        run_plainly(run, targets=(tuned.first_dataset, tuned.first_model))
    return run.result(tuned.first_dataset), run.result(tuned.first_model)


def print_examples(shown: Sequence[DecodedExample], dataset: DatasetRef) -> None:
    """The examples, and how many there are."""
    for each in shown:
        _print(each)
    out().print(
        f"{len(shown)} of {counted(dataset.n_train, 'train example')}, {dataset.n_tokens:,} tokens, "
        f"{dataset.n_supervised:,} with loss",
        markup=False,
    )


def _print(shown: DecodedExample) -> None:
    console = out()
    n_loss = sum(shown.loss_mask)
    console.print(f"ticket {shown.ticket_id}: {len(shown.input_ids)} tokens, {n_loss} with loss", markup=False)
    console.print(Text.assemble(*map(_styled, shown.runs)), soft_wrap=True)
    console.print(f"ids {' '.join(map(str, shown.input_ids))}\n", style="dim", markup=False, soft_wrap=True)


def _styled(run: TokenRun) -> tuple[str, str]:
    """Text with loss in colour, or between marks without colours."""
    plain = not out().is_terminal
    text = f"⟦{run.text}⟧" if plain and run.carries_loss else run.text
    return text, "bold green" if run.carries_loss else "dim"
