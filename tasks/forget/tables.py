"""A stored split without the rows of forgotten customers, so that everybody else stays held out who was.

Writes a new folder and leaves the old one alone. It knows nothing of the store. Called by `flows/privacy/remove.py`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.artifacts import RowCounts
from tasks.forget.hashes import Forgotten

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = ("train", "validation", "test")
ANSWERS = "validation_answers.parquet"
AGGREGATES = ("strata.parquet",)
"""Counts over many tickets: they stay as they were."""
_POINTERS = ("kept_id", "cluster_id", "shared_run", "score")
"""What a removed row says about the ticket that was kept in its place."""


def is_split(folder: Path) -> bool:
    """Is this a result with train, validation and test tickets?"""
    return all((folder / f"{part}.parquet").is_file() for part in (*PARTS, "removed"))


def rewrite_split(folder: Path, out: Path, forgotten: Forgotten) -> dict[str, Any]:
    """Write the split to `out` without the rows of those who were forgotten; returns the fields that changed.

    A row of somebody else that was removed in favour of a forgotten ticket stays, and says no more which one it was.
    """
    import pyarrow.parquet as pq

    from tasks.curate.rows import write_removed, write_tickets

    tables = {part: pq.read_table(folder / f"{part}.parquet") for part in PARTS}
    removed = pq.read_table(folder / "removed.parquet")
    gone = gone_tickets((*tables.values(), removed), forgotten)
    counts = {
        part: write_tickets(_without(table, gone, forgotten), out, name=f"{part}.parquet")
        for part, table in tables.items()
    }
    left = _unpointed(_without(removed, gone, forgotten), gone)
    write_removed(left, out)
    if (folder / "assignments.parquet").is_file():
        _rewrite_assignments(folder, out, gone, forgotten)
    for name in AGGREGATES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    outcomes = Counter(left.column("outcome").to_pylist())
    n_out = sum(counts.values())
    rows = RowCounts(
        n_in=n_out + outcomes.total(),
        n_out=n_out,
        n_quarantined=outcomes["quarantined"],
        n_dropped=outcomes["dropped"],
        n_merged=outcomes["merged"],
    )
    return {"rows": rows.model_dump(), **{f"n_{part}": n_rows for part, n_rows in counts.items()}}


def gone_tickets(tables: Iterable[pa.Table], forgotten: Forgotten) -> pa.Array:
    """Ids of the tickets that belong to forgotten customers, by the customer's id or by the ticket's own."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ids: list[str] = []
    for table in tables:
        if "customer_id" in table.column_names:
            mine = table.column("ticket_id").filter(forgotten.mask("customer", table.column("customer_id")))
            ids += pc.unique(mine).to_pylist()
        ids += forgotten.gone("ticket", table.column("ticket_id"))
    return pa.array(sorted(set(ids)), pa.string())


def has_answers(folder: Path) -> bool:
    """Has the training kept texts that it wrote for validation tickets?"""
    import pyarrow.parquet as pq

    file = folder / ANSWERS
    return file.is_file() and pq.read_metadata(file).num_rows > 0


def empty_answers(folder: Path, out: Path) -> None:
    """Copy the training to `out` without those texts; the weights are the same bytes."""
    import pyarrow.parquet as pq

    for path in sorted(folder.rglob("*")):
        target = out / path.relative_to(folder)
        if path.is_dir():
            target.mkdir()
        elif path.name == ANSWERS:
            pq.write_table(pq.read_schema(path).empty_table(), target)
        else:
            shutil.copyfile(path, target)


def _without(table: pa.Table, gone: pa.Array, forgotten: Forgotten) -> pa.Table:
    import pyarrow.compute as pc

    leaves = pc.is_in(table.column("ticket_id"), value_set=gone, skip_nulls=True)
    if "customer_id" in table.column_names:
        leaves = pc.or_(leaves, forgotten.mask("customer", table.column("customer_id")))
    return table.filter(pc.invert(leaves))


def _unpointed(removed: pa.Table, gone: pa.Array) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    points = pc.or_(
        pc.is_in(removed.column("kept_id"), value_set=gone, skip_nulls=True),
        pc.is_in(removed.column("cluster_id"), value_set=gone, skip_nulls=True),
    )
    for name in _POINTERS:
        place = removed.schema.get_field_index(name)
        field = removed.schema.field(place)
        values = pc.if_else(points, pa.scalar(None, field.type), removed.column(name))
        removed = removed.set_column(place, field, values)
    return removed


def _rewrite_assignments(folder: Path, out: Path, gone: pa.Array, forgotten: Forgotten) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from tasks.curate.splits.assignments import write_assignments

    table = pq.read_table(folder / "assignments.parquet")
    groups = pc.unique(table.column("group")).to_pylist()
    mine = [group for group in groups if forgotten.is_gone("customer", group.removeprefix("customer_id="))]
    leaves = pc.or_(
        pc.is_in(table.column("ticket_id"), value_set=gone),
        pc.is_in(table.column("group"), value_set=pa.array(mine, pa.string())),
    )
    write_assignments(table.filter(pc.invert(leaves)), out)
