"""Chooses the held-out items that every arm answers: the versioned held-out set.

Knows nothing of models or prompts; `flows/assess.py` calls it once per run.
"""

from __future__ import annotations

import hashlib
import heapq
from pathlib import Path
from typing import Any, Literal

from schemas.artifacts import EvalSet, Splits
from schemas.errors import ConfigError, DataError
from tasks.prompts import parse_messages, render_text


def select_items(
    *, splits: Splits, max_items: int, seed: int, answer: str, out: Path, choose: Literal["hash", "newest"] = "hash"
) -> EvalSet:
    """Write `items.parquet`: the test rows with the `max_items` smallest hashes, ordered by item_id.

    The order by hash of seed and ticket id does not depend on the other rows: when tickets are added or go, the
    chosen ones change by just those.

    Args:
        max_items: Most items to choose; all test rows when there are fewer.
        choose: `newest` takes those written last, then by hash; a ticket without `created_at` counts as the oldest.
        answer: Template of the reference answer; a ticket with its own conversation brings its last turn instead.

    Raises:
        DataError: TG0230, the test split is empty; TG0231, a ticket id is there twice.
    """
    if not splits.n_test:
        raise DataError(
            "the test split is empty: there is nothing to judge a model by",
            code="TG0230",
            where=str(splits.test),
            hint="give the pipeline more tickets, or raise split.test_fraction",
        )
    return _select(splits.test, max_items=max_items, seed=seed, answer=answer, out=out, newest=choose == "newest")


def select_validation_items(*, splits: Splits, max_items: int, seed: int, answer: str, out: Path) -> EvalSet:
    """As `select_items`, of the validation split: trainings are chosen by these, never by the test items.

    Raises:
        ConfigError: TG0161, the validation split is empty; DataError: TG0231, a ticket id is there twice.
    """
    if not splits.n_validation:
        raise ConfigError(
            "trainings are compared on the validation split, and it is empty",
            code="TG0161",
            where=str(splits.validation),
            hint="raise split.validation_fraction, or give the pipeline more tickets",
        )
    return _select(splits.validation, max_items=max_items, seed=seed, answer=answer, out=out)


def _select(split: Path, *, max_items: int, seed: int, answer: str, out: Path, newest: bool = False) -> EvalSet:
    import pyarrow as pa
    import pyarrow.parquet as pq

    named = pq.read_table(split, columns=["ticket_id", "created_at"])
    ids: list[str] = named.column("ticket_id").to_pylist()
    if len(set(ids)) != len(ids):
        raise DataError(
            f"{len(ids) - len(set(ids))} ticket ids are in the {split.stem} split twice",
            code="TG0231",
            where=str(split),
        )
    since = named.column("created_at").cast(pa.int64()).to_pylist()
    # The newest first; all alike where time does not count.
    rank = {name: -time if newest and time is not None else 0 for name, time in zip(ids, since, strict=True)}
    chosen = heapq.nsmallest(max_items, ids, key=lambda name: (rank[name], hash_rank(name, seed=seed)))
    table = pq.read_table(split, filters=[("ticket_id", "in", chosen)]).sort_by("ticket_id")
    rows: list[dict[str, Any]] = table.to_pylist()
    table = table.append_column("item_id", table.column("ticket_id"))
    table = table.append_column("answer", pa.array([reference_answer(answer, row) for row in rows], pa.string()))
    pq.write_table(table.combine_chunks(), out / "items.parquet", compression="zstd")
    return EvalSet(root=out, n_items=len(rows), n_available=len(ids))


def hash_rank(ticket_id: str, *, seed: int) -> tuple[bytes, str]:
    """Sort key that shuffles ids the same way in every run and beside any other ids."""
    return hashlib.sha256(f"{seed}:{ticket_id}".encode()).digest(), ticket_id


def reference_answer(template: str, row: dict[str, Any]) -> str:
    """What answers to this ticket are compared with: the last turn of its own conversation, or the template filled."""
    own = row.get("messages")
    return parse_messages(str(own))[-1]["content"] if own else render_text(template, row)
