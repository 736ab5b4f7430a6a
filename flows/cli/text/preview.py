"""Train examples for people: what the model would learn from, token by token."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from flows.cli.output import out
from schemas.artifacts import DatasetRef
from tasks.model.preview import DecodedExample, Run


def print_examples(shown: Sequence[DecodedExample], dataset: DatasetRef) -> None:
    """The examples, and how many there are."""
    for each in shown:
        _print(each)
    out().print(
        f"{len(shown)} of {dataset.n_train:,} train examples, {dataset.n_tokens:,} tokens, "
        f"{dataset.n_supervised:,} with loss",
        markup=False,
    )


def _print(shown: DecodedExample) -> None:
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
