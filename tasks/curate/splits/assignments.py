"""The assignments of a split: the file that the next split continues.

It decides nothing. Called by `tasks/curate/split.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import Splits
from schemas.curation import SplitSpec

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Assignments:
    """One row per ticket that was split, ordered by ticket_id."""

    table: pa.Table
    """Columns of `schemas.tables.ASSIGNMENTS`."""


def read_previous(previous: Splits | None, split: SplitSpec, *, by_time: bool) -> Assignments | None:
    """Return what the last split decided, or None for another kind of split: seed, columns or `by_time` differ."""
    from tasks.curate.rows import read_rows

    if previous is None or not split.stable or not previous.assignments.exists():
        return None
    if previous.seed != split.seed or previous.group_by != split.group_by or (previous.cut is not None) != by_time:
        return None
    return Assignments(read_rows(previous.assignments))


def write_assignments(table: pa.Table, out: Path) -> None:
    """Write `out/assignments.parquet`, ordered by ticket_id."""
    from schemas.tables import ASSIGNMENTS
    from tasks.curate.rows import write_rows

    write_rows(table.sort_by("ticket_id"), ASSIGNMENTS, out / "assignments.parquet")
