"""What is new: today's curated tickets compared with those that a promoted candidate knew, and the last verdict.

Counted after redaction and deduplication, so ten copies of one question are not ten new tickets. It decides nothing
(see `conditions.py`).
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.artifacts import Splits, WarehouseRef
from schemas.schedule import Arrivals
from tasks.monitor.drift import Window
from tasks.storage.warehouse import select_from_files

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


def count_arrivals(
    *, now: Splits, used: Splits | None, last: Splits | None, warehouse: WarehouseRef, tried: bool = False
) -> Arrivals:
    """Count the new, edited and newly held-out tickets.

    Args:
        now: Today's splits, after decontamination.
        used: The splits of the last candidate that met its rules; None if there was none, and everything is new.
        last: The splits of the last verdict, perhaps the same; None if there was none, or they are gone.
        warehouse: Today's warehouse; it maps each kept ticket to its duplicates.
        tried: The last verdict was HOLD or BLOCK.
    """
    n_curated = now.n_train + now.n_validation + now.n_test
    everything = {"n_new": n_curated, "n_edited": 0, "n_gone": 0, "n_fresh": now.n_test}
    since_used = everything if used is None else _changes(now, used, warehouse)
    since_last = everything if last is None else _changes(now, last, warehouse) if tried else since_used
    n_changed = since_last["n_new"] + since_last["n_edited"] + since_last["n_gone"]
    return Arrivals(
        snapshot_id=warehouse.snapshot_id, n_curated=n_curated, n_new=since_used["n_new"],
        n_edited=since_used["n_edited"], n_held_out=now.n_test, n_fresh_held_out=since_last["n_fresh"],
        n_changed=n_changed if tried else None,
    )  # fmt: skip


def _changes(now: Splits, then: Splits, warehouse: WarehouseRef) -> dict[str, int]:
    """Count what has changed between two splits. A ticket that was merged into another one is not gone."""
    [row] = _query(
        now, then, warehouse,
        "SELECT count(*) FILTER (is_new) AS n_new, count(*) FILTER (is_edited) AS n_edited, "
        "count(*) FILTER (part = 'test' AND was IS DISTINCT FROM 'test') AS n_fresh, "
        "(SELECT count(*) FROM known WHERE NOT EXISTS (FROM today WHERE today.ticket_id = known.ticket_id) "
        "AND NOT EXISTS (FROM duplicates WHERE duplicates.ticket_id = known.ticket_id)) AS n_gone FROM compared",
    )  # fmt: skip
    return row


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
