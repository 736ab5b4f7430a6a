"""One row per ticket_id: equal rows merge, differing ones are an update or a conflict."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.tables import TICKET_COLUMNS

IDENTICAL = "identical_id"
OLDER = "older_version"
CONFLICTING = "TG0215"
_PLACE = ("source", "source_line")
_CONTENT = tuple(name for name in TICKET_COLUMNS if name not in _PLACE)

Row = dict[str, Any]


def keep_one_per_id(
    batches: Iterable[pa.Table], on_conflict: Literal["newest", "quarantine"]
) -> Iterator[tuple[pa.Table, list[Row]]]:
    """Give the rows kept, in their order, and the removed ones, as rows for `removed.parquet`, some at a time.

    Of equal rows the first in the source is kept and the others are merged into it. Of differing rows `newest` keeps
    the one with the latest updated_at (null is oldest; ties go to the later one in the source) and drops the others;
    `quarantine` keeps none.

    Args:
        batches: Tickets in the order of ticket_id. The rows of one id may be in several of them: the last id of a
            batch waits until another one comes.
    """
    waiting: list[pa.Table] = []
    for batch in batches:
        table = pa.concat_tables([*waiting, batch])
        n_whole = _n_before_last_id(table)
        yield _resolve_repeated(table.slice(0, n_whole), on_conflict)
        waiting = [table.slice(n_whole)]
    for table in waiting:
        yield _resolve_repeated(table, on_conflict)


def _n_before_last_id(table: pa.Table) -> int:
    ids = table.column("ticket_id")
    return 0 if not len(ids) else int(pc.sum(pc.less(ids, ids[-1]), min_count=0).as_py())


def _resolve_repeated(table: pa.Table, on_conflict: str) -> tuple[pa.Table, list[Row]]:
    """The rows kept and the removed ones of a table in the order of ticket_id."""
    ids = table.column("ticket_id").combine_chunks()
    is_next_equal = pc.equal(ids[:-1], ids[1:]).to_numpy(zero_copy_only=False)
    if not is_next_equal.any():
        return table, []
    is_repeated = np.append(is_next_equal, False) | np.append(False, is_next_equal)
    numbered = table.append_column("index", pa.array(np.arange(table.num_rows)))
    repeated = numbered.filter(pa.array(is_repeated)).to_pylist()
    keep = np.ones(table.num_rows, bool)
    removed: list[Row] = []
    for _, group in groupby(repeated, key=itemgetter("ticket_id")):
        for row, outcome in _resolve(list(group), on_conflict):
            keep[row["index"]] = False
            removed.append(outcome)
    return table.filter(pa.array(keep)), removed


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
