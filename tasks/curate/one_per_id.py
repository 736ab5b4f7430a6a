"""One row per ticket_id: equal rows merge, differing ones are an update or a conflict.

It knows nothing of what makes a ticket valid. Called by `tasks/curate/validate.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from schemas.tables import TICKET_COLUMNS

IDENTICAL = "identical_id"
OLDER = "older_version"
CONFLICTING = "TG0215"
_PLACE = ("source", "source_line")
_CONTENT = tuple(name for name in TICKET_COLUMNS if name not in _PLACE)

Row = dict[str, Any]


def keep_one_per_id(table: pa.Table, on_conflict: Literal["newest", "quarantine"]) -> tuple[pa.Table, list[Row]]:
    """Return the rows kept and the removed ones, as rows for `removed.parquet`.

    Of equal rows the first in the source is kept and the others are merged into it. Of differing rows `newest` keeps
    the one with the latest updated_at (null is oldest; ties go to the later one in the source) and drops the others;
    `quarantine` keeps none.
    """
    counts = pc.value_counts(table.column("ticket_id").combine_chunks())
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if not len(repeated):
        return table, []
    numbered = table.append_column("index", pa.array(range(table.num_rows), pa.int64()))
    groups: dict[str, list[Row]] = {}
    for row in numbered.filter(pc.is_in(table.column("ticket_id"), value_set=repeated)).to_pylist():
        groups.setdefault(row["ticket_id"], []).append(row)
    removed: list[Row] = []
    gone: set[int] = set()
    for group in groups.values():
        for row, outcome in _resolve(group, on_conflict):
            gone.add(row["index"])
            removed.append(outcome)
    keep = pa.array([index not in gone for index in range(table.num_rows)], pa.bool_())
    return table.filter(keep), removed


def _resolve(group: list[Row], on_conflict: str) -> list[tuple[Row, Row]]:
    """(row that goes, its entry among the removed) for the rows of one id."""
    in_order = sorted(group, key=lambda row: (row["source"], row["source_line"]))
    first: dict[tuple[Any, ...], Row] = {}
    gone: list[tuple[Row, Row]] = []
    for row in in_order:
        kept = first.setdefault(tuple(row[name] for name in _CONTENT), row)
        if kept is not row:
            reason = f"Equal to the row at {kept['source']}:{kept['source_line']}."
            gone.append((row, _entry(row, "merged", IDENTICAL, reason, kept["ticket_id"])))
    versions = list(first.values())
    if len(versions) == 1:
        return gone
    if on_conflict == "quarantine":
        reason = f"{len(versions)} differing rows have this ticket_id."
        return gone + [(row, _entry(row, "quarantined", CONFLICTING, reason, None)) for row in versions]
    newest = max(enumerate(versions), key=lambda pair: (pair[1]["updated_at"] or datetime.min, pair[0]))[1]
    reason = f"A newer row of this ticket_id is at {newest['source']}:{newest['source_line']}."
    older = [row for row in versions if row is not newest]
    return gone + [(row, _entry(row, "dropped", OLDER, reason, newest["ticket_id"])) for row in older]


def _entry(row: Row, outcome: str, code: str, reason: str, kept_id: str | None) -> Row:
    return {
        "ticket_id": row["ticket_id"],
        "outcome": outcome,
        "code": code,
        "reason": reason,
        "field": "ticket_id",
        "source": row["source"],
        "source_line": row["source_line"],
        "kept_id": kept_id,
        "score": 1.0 if outcome == "merged" else None,
    }
