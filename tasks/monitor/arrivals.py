"""What is new: today's curated tickets compared with those of the last verdict.

Counted after redaction and deduplication, so ten copies of one question are not ten new tickets. Called by
`flows/schedule/ticks.py`. It decides nothing (see `conditions.py`).
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.artifacts import Splits, WarehouseRef
from schemas.ticks import Arrivals
from tasks.monitor.drift import Window
from tasks.warehouse import select_from_files

_PARTS = ("train", "validation", "test")
_CONTENT = ("product", "channel", "subject", "body", "reply", "category", "priority", "reference", "messages")
"""Columns whose change makes a known ticket an edited one; a later `updated_at` alone does not."""
_WINDOW = ("subject", "body", "category", "priority")


def newest_time(splits: Splits) -> str:
    """The latest time in the tickets, UTC, ISO 8601; empty when no ticket has a time."""
    newest: list[datetime] = []
    for part in _PARTS:
        table = pq.read_table(_path(splits, part), columns=["created_at", "updated_at"])
        found = (pc.max(table.column(name)).as_py() for name in table.column_names)
        newest += [value for value in found if value is not None]
    return max(newest).isoformat(timespec="seconds") if newest else ""


def count_arrivals(*, now: Splits, then: Splits | None, warehouse: WarehouseRef) -> Arrivals:
    """Count the new, edited and newly held-out tickets.

    Args:
        now: Today's splits, after decontamination.
        then: The splits of the last verdict; None when there was none, and everything is new.
        warehouse: Today's warehouse; it maps each kept ticket to its duplicates.
    """
    n_curated = now.n_train + now.n_validation + now.n_test
    row = {"n_new": n_curated, "n_edited": 0, "n_fresh": now.n_test}
    if then is not None:
        [row] = _query(
            now, then, warehouse,
            "SELECT count(*) FILTER (is_new) AS n_new, count(*) FILTER (is_edited) AS n_edited, "
            "count(*) FILTER (part = 'test' AND was IS DISTINCT FROM 'test') AS n_fresh FROM compared",
        )  # fmt: skip
    return Arrivals(
        snapshot_id=warehouse.snapshot_id, n_curated=n_curated, n_new=row["n_new"], n_edited=row["n_edited"],
        n_held_out=now.n_test, n_fresh_held_out=row["n_fresh"],
    )  # fmt: skip


def windows(*, now: Splits, then: Splits, warehouse: WarehouseRef, size: int) -> tuple[Window, Window]:
    """Current and reference window: the newest `size` new tickets, and the newest `size` known ones."""
    newest = f"ORDER BY created_at DESC NULLS LAST, ticket_id LIMIT {int(size)}"
    current, reference = (
        _query(now, then, warehouse, f"SELECT {', '.join(_WINDOW)} FROM compared WHERE {condition} {newest}")
        for condition in ("is_new", "NOT is_new")
    )
    return Window.of(current), Window.of(reference)


def _query(now: Splits, then: Splits, warehouse: WarehouseRef, select: str) -> list[dict[str, Any]]:
    tables = {
        f"{when}_{part}": _path(splits, part) for when, splits in (("now", now), ("old", then)) for part in _PARTS
    }
    tables["duplicates"] = warehouse.root / "duplicates.parquet"
    differs = " OR ".join(f"today.{name} IS DISTINCT FROM known.{name}" for name in _CONTENT)
    return select_from_files(
        tables,
        f"WITH today AS ({_union('now')}), known AS ({_union('old')}), "
        "twins AS (SELECT DISTINCT kept_id FROM duplicates WHERE ticket_id IN (SELECT ticket_id FROM known)), "
        "compared AS (SELECT today.*, known.part AS was, known.ticket_id IS NULL AND twins.kept_id IS NULL AS is_new, "
        f"known.ticket_id IS NOT NULL AND ({differs}) AS is_edited "
        "FROM today LEFT JOIN known ON known.ticket_id = today.ticket_id "
        f"LEFT JOIN twins ON twins.kept_id = today.ticket_id) {select}",
        where="tick",
    )


def _union(when: str) -> str:
    columns = ", ".join(("ticket_id", "created_at", *_CONTENT))
    return " UNION ALL ".join(f"SELECT '{part}' AS part, {columns} FROM {when}_{part}" for part in _PARTS)


def _path(splits: Splits, part: str) -> Path:
    return splits.root / f"{part}.parquet"
