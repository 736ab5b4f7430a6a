"""`tunegate preview`: what the model would learn from, token by token, before anything is trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.text import Text

from flows.chosen import first_names
from flows.commands.output import out, print_json, talk
from flows.earlier import earlier_results
from flows.engine.plan import run_step
from flows.session import declare, new_run_id
from flows.settings import load_settings, open_ledger, open_store
from flows.standing import standing_of
from schemas.artifacts import Artifact, DatasetRef, ModelRef
from schemas.load import load_file
from tasks.model.preview import Run, Shown, show_examples


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
    done: dict[str, Artifact] = {}
    first = first_names(spec.train)
    with ledger.pipeline_lock(pipeline, wait_s=0.0, run_id=new_run_id()):
        earlier = earlier_results(ledger, store, pipeline)
        root = config.resolve().parent
        stages = declare(spec, settings=settings, root=root, standing=standing_of(spec, ledger), earlier=earlier)
        for step in (*stages["curate"], *stages["finetune"]):
            if step.folder == "warehouse":
                continue
            obtained = run_step(step, done, store)
            done[step.name] = obtained.artifact
            if not obtained.reused:
                talk().print(f"  {step.name:<18} {obtained.seconds:.1f} s", style="dim", markup=False)
            if step.name == first.dataset:
                break
    dataset, model = done[first.dataset], done[first.model]
    if not isinstance(dataset, DatasetRef) or not isinstance(model, ModelRef):
        raise TypeError("the steps made something else than a dataset and a model")
    return dataset, model


def _print(shown: Shown) -> None:
    console = out()
    n_loss = sum(shown.loss_mask)
    console.print(f"ticket {shown.ticket_id}: {len(shown.input_ids)} tokens, {n_loss} with loss", markup=False)
    console.print(Text.assemble(*map(_styled, shown.runs)), soft_wrap=True)
    console.print(f"ids {' '.join(map(str, shown.input_ids))}\n", style="dim", markup=False, soft_wrap=True)


def _styled(run: Run) -> tuple[str, str]:
    """Where there is no colour, what carries loss stands between marks."""
    plain = not out().is_terminal
    text = f"⟦{run.text}⟧" if plain and run.carries_loss else run.text
    return text, "bold green" if run.carries_loss else "dim"
