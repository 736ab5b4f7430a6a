"""The curation card: what became of the rows and what is left, as numbers (`card.json`) and a page (`card.html`).

`tasks/curate/cards/` counts the numbers (`card_numbers.py`), compares them with the last card's (`card_drift.py`) and
draws the page (`card_page.py`). The last step of `flows/curate.py`.
"""

import logging
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq

from schemas.artifacts import CheckResults, CurationCard, Splits, TicketTable
from schemas.errors import DataError
from schemas.training import DrawSpec
from tasks.curate.cards.card_drift import read_card
from tasks.curate.cards.card_numbers import count_all
from tasks.curate.cards.card_page import draw_card
from tasks.curate.cards.label_balance import drawn_balance
from tasks.step import as_step

log = logging.getLogger("tunegate.curate")
WHERE = "curate.card"


@as_step("card", libraries=("duckdb", "orjson", "pyarrow"), extends="previous")
def build_card(
    out: Path,
    *,
    stages: tuple[TicketTable, ...],
    stage_names: tuple[str, ...],
    split: Splits,
    clean: Splits,
    checks: CheckResults | None = None,
    previous: CurationCard | None = None,
    draw: DrawSpec | None = None,
    max_examples: int | None = None,
) -> CurationCard:
    """Write `card.json` and `card.html`. Equal tables give equal bytes.

    Args:
        stages: Ticket tables in the order of the steps; the first is what was read.
        stage_names: Their step names.
        split: Result of the split.
        clean: The splits after decontamination, which are used for training and testing.
        checks: Results of the pipeline's `checks`.
        previous: Card of the last run, to compare with, unless it has another version.
        draw: Which train tickets `max_examples` takes; None for a card without the balance of what is encoded.
        max_examples: Train tickets to encode; None for all.

    Raises:
        DataError: TG0231, rows were lost between two steps, or the last card is damaged.
    """
    steps: list[tuple[str, TicketTable | Splits]] = [
        *zip(stage_names, stages, strict=True),
        ("split", split),
        ("decontaminate", clean),
    ]
    if faults := list(_leaks(steps)):
        raise DataError(
            f"rows are not conserved: {'; '.join(faults)}",
            code="TG0231",
            where=WHERE,
            hint="remove the stored steps and run again; if the error persists, a step is faulty",
        )
    numbers = count_all(steps=steps, clean=clean, reference=read_card(previous))
    if checks is not None:
        numbers = numbers.model_copy(update={"checks": checks.results})
    if draw is not None:
        encoded = drawn_balance(clean, draw=draw, max_examples=max_examples)
        numbers = numbers.model_copy(update={"encoded": encoded})
        if encoded is not None and encoded.warning:
            log.warning(
                "%s; raise train.max_examples, or join rare labels: docs/how-to/curate-tickets.md", encoded.warning
            )
    if numbers.replies is not None and numbers.replies.warning:
        log.warning("%s", numbers.replies.warning)
    for name, n in numbers.personal_ids.items():
        log.warning(
            "%s is an e-mail address or the like in %s tickets: add `pseudonymise: [%s]` to `redact`",
            name,
            f"{n:,}",
            name,
        )
    for labels in numbers.personal_labels:
        for sentence in labels.sentences:
            log.warning("%s", sentence)
    (out / "card.json").write_text(numbers.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (out / "card.html").write_text(draw_card(numbers), encoding="utf-8")
    return CurationCard(
        root=out,
        n_read=numbers.n_read,
        n_train=numbers.n_train,
        n_validation=numbers.n_validation,
        n_test=numbers.n_test,
        n_merged=sum(step.rows.n_merged for _, step in steps),
        n_shifted=sum(shift.verdict == "major" for shift in numbers.drift.shifts) if numbers.drift else 0,
    )


def _leaks(steps: Sequence[tuple[str, TicketTable | Splits]]) -> Iterator[str]:
    """Yield where a step's input is not the output of the step before, or its removed rows are not those it counted."""
    for (name, step), (after, following) in pairwise(steps):
        if step.rows.n_out != following.rows.n_in:
            yield f"{name} returned {step.rows.n_out}, {after} received {following.rows.n_in}"
    for name, step in steps:
        n_removed = pq.read_metadata(step.removed).num_rows
        if n_removed != step.rows.n_in - step.rows.n_out:
            yield f"{name} removed {step.rows.n_in - step.rows.n_out} and lists {n_removed}"
