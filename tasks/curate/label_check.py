"""Find label errors and drop what `action` says.

`mode: confidence` finds labels that a classifier which has not seen the ticket holds for unlikely
(`tasks/curate/label_suspects.py`), `mode: contradiction` equal or nearly equal questions with different labels or
answers (`tasks/curate/label_conflicts.py`). It runs before dedup, which leaves one ticket of each question.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import TicketTable
from schemas.curation_steps import LabelCheckStep
from tasks.curate.drop import Judged, Kept, drop_rows, keeps, kept_by_people
from tasks.curate.label_conflicts import find_conflicts
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.rows import read_batches_with
from tasks.curate.step import curation_step
from tasks.step import as_step

if TYPE_CHECKING:
    import pyarrow as pa


@curation_step(
    LabelCheckStep,
    rules=lambda step: ("label_suspect",) if step.mode == "confidence" else ("label_conflict",),
    libraries=lambda step: ("scipy", "scikit-learn") if step.mode == "confidence" else ("scipy",),
)
@as_step("label_check", libraries=("duckdb", "pyarrow", "numba", "numpy"))
def check_labels(
    out: Path,
    *,
    tickets: TicketTable,
    step: LabelCheckStep,
    kept: TicketTable | None = None,
    limit: FaultLimit | None = None,
) -> TicketTable:
    """Fill `label_conflict`, list what was found, and drop what `action` says.

    `mode: confidence` (`find_suspects`): `label_conflict` is 1 for a suspect label, else 0. `drop` drops the suspects
    as `label_suspect`. Suspects are listed in `label_suspects.parquet`, the least likely label first.
    Notes: `label_suspects`, `unchecked_labels`, and `dropped_label_suspect` unless `action` is `flag`.

    `mode: contradiction` (`find_conflicts`): `label_conflict` is the number of tickets of the same question with
    another label. `drop_minority` keeps the label of most of them, or none when two lead; `drop_all` keeps none.
    Tickets are dropped as `label_conflict`. All contradicting tickets are listed in `conflicts.parquet`.
    Notes: `conflicting_families`, `conflicting_tickets`, and `dropped_label_conflict` unless `action` is `flag`.

    Tickets that people keep in spite of the rule stay, with a `label_conflict` of 0.

    Raises:
        DataError: TG0250, too many nearly repeated questions to compare; TG0220, more rows raise than `limit` allows.
    """
    return keep_sound_rows(
        lambda rows, folder: _check_labels(rows, step, folder, kept_by_people(kept)),
        tickets,
        step="label_check",
        out=out,
        limit=limit,
    )


def _check_labels(tickets: TicketTable, step: LabelCheckStep, out: Path, kept: Kept) -> TicketTable:
    from tasks.curate.label_suspects import find_suspects

    find = find_suspects if step.mode == "confidence" else find_conflicts
    found = find(tickets.tickets, step, out)
    return drop_rows(
        (
            _judge(batch, rows, kept.get(found.code))
            for batch, rows in read_batches_with(tickets.tickets, found.tickets)
        ),
        out=out,
        notes=found.notes,
        possible=() if step.action == "flag" else (found.code,),
        kept=kept,
    )


def _judge(batch: pa.Table, found: pa.Table, kept: pa.Array | None) -> Judged:
    import pyarrow as pa
    import pyarrow.compute as pc

    place, conflicts = batch.schema.get_field_index("label_conflict"), found["label_conflict"]
    if kept is not None:  # people say that the label is right
        conflicts = pc.if_else(keeps(batch["ticket_id"], kept), pa.scalar(0, pa.int64()), conflicts)
    batch = batch.set_column(place, batch.schema.field(place), conflicts)
    return Judged(batch, found["code"], found["reason"], cluster_ids=found["cluster_id"])
