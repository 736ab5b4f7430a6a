"""`tunegate data preview`: encoded train examples, made where they are missing, token by token."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.text import Text

from flows.build import build
from flows.cli.command import command
from flows.cli.options import CONFIG, Config, Pipeline
from flows.cli.output import Result, TextLine, out
from flows.cli.progress import StepTimes
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
from schemas.pipeline import with_training
from tasks.model.chat_format import DecodedExample, TokenRun, show_examples


@command(example="tunegate data preview support-replies -n 2", computes=True)
def preview(
    pipeline: Pipeline,
    n: Annotated[int, typer.Option("-n", "--examples", min=1, max=1000, help="Examples to show.")] = 3,
    config: Config = CONFIG,
) -> Result:
    """Show train examples as the model sees them, token by token.

    Text, token ids, and which tokens carry loss. What is missing up to the encoded examples is made first; nothing is
    trained, and the ledger gets no run.
    """
    dataset, model = encode_examples(pipeline, config)
    shown = show_examples(dataset=dataset, model=model, n_examples=n)
    data = {"pipeline": pipeline, "n_train": dataset.n_train, "examples": [asdict(each) for each in shown]}
    return Result(data, _text(shown, dataset))


def encode_examples(pipeline: str, config: Path) -> tuple[DatasetRef, ModelRef]:
    """The encoded train split and the base model, from the store where they are there already.

    Raises:
        DataError: TG0222, a check of the data with severity `fail` did not pass.
    """
    spec, settings = with_training(load_file(config).get(pipeline)), load_settings(config)
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
    return run.result(cast(DatasetRef, tuned.first_dataset)), run.result(tuned.first_model)


def _text(shown: Sequence[DecodedExample], dataset: DatasetRef) -> Iterator[Any]:
    plain = not out().is_terminal
    for each in shown:
        yield f"ticket {each.ticket_id}: {len(each.input_ids)} tokens, {sum(each.loss_mask)} with loss"
        yield Text.assemble(*(_styled(run, plain=plain) for run in each.runs))
        yield TextLine(f"ids {' '.join(map(str, each.input_ids))}\n", "dim")
    yield (
        f"{len(shown)} of {counted(dataset.n_train, 'train example')}, {dataset.n_tokens:,} tokens, "
        f"{dataset.n_supervised:,} with loss"
    )


def _styled(run: TokenRun, *, plain: bool) -> tuple[str, str]:
    """Text with loss in colour, or between marks without colours."""
    text = f"⟦{run.text}⟧" if plain and run.carries_loss else run.text
    return text, "bold green" if run.carries_loss else "dim"
