"""Chooses the held-out items that every arm answers: the versioned held-out set.

An item of which some arm could not make its prompt is left out here, for all arms: which items are judged is settled
before any model answers. Knows nothing of models; `flows/assess.py` calls it once per run.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from schemas.artifacts import EvalSet, Splits
from schemas.errors import ConfigError, DataError
from schemas.training import PromptSpec
from tasks.curate.row_faults import Entry, FaultLimit
from tasks.prompts import dump_messages, messages_for, parse_messages, render_text
from tasks.row_fault import is_row_fault, row_fault
from tasks.step import as_step

ROW_CODES = ("TG0301",)
"""Errors of one ticket's texts: its own conversation is malformed."""


@as_step("items", libraries=("pyarrow",))
def select_items(
    out: Path,
    *,
    splits: Splits,
    max_items: int,
    seed: int,
    answer: str,
    choose: Literal["hash", "newest"] = "hash",
    prompts: tuple[PromptSpec, ...] = (),
    limit: FaultLimit | None = None,
) -> EvalSet:
    """Write `items.parquet`: the test rows with the `max_items` smallest hashes, ordered by item_id.

    The order by hash of seed and ticket id does not depend on the other rows: when tickets are added or go, the
    chosen ones change by just those. A row on which a prompt or the reference answer raises is quarantined in
    `removed.parquet`, and the next one takes its place; without such a row there is no such file.

    Args:
        max_items: Most items to choose; all test rows when there are fewer.
        choose: `newest` takes those written last, then by hash; a ticket without `created_at` counts as the oldest.
        answer: Template of the reference answer; a ticket with its own conversation brings its last turn instead.
        prompts: Those of every arm that will answer.
        limit: Ends the search, and the run, when more rows are faulty than may be.

    Raises:
        DataError: TG0221, the test split is empty; TG0231, a ticket id is there twice; TG0220, more rows are faulty
            than `limit` allows.
        Exception: what the first row raised, when every row raises.
    """
    if not splits.n_test:
        raise DataError(
            "the test split is empty: there is nothing to judge a model by",
            code="TG0221",
            where=str(splits.test),
            hint="give the pipeline more tickets, or raise split.test_fraction",
        )
    ranked = _ranked(splits.test, seed=seed, newest=choose == "newest")
    return _take_sound(splits.test, ranked, max_items, answer=answer, prompts=prompts, limit=limit, out=out)


@as_step("validation_items", libraries=("pyarrow",))
def select_validation_items(
    out: Path,
    *,
    splits: Splits,
    max_items: int,
    seed: int,
    answer: str,
    prompts: tuple[PromptSpec, ...] = (),
    limit: FaultLimit | None = None,
) -> EvalSet:
    """As `select_items`, of the validation split: trainings are chosen by these, never by the test items.

    Raises:
        ConfigError: TG0160, the validation split is empty; DataError: TG0220 and TG0231, as there.
    """
    if not splits.n_validation:
        raise ConfigError(
            "trainings are compared on the validation split, and it is empty",
            code="TG0160",
            where=str(splits.validation),
            hint="raise split.validation_fraction, or give the pipeline more tickets",
        )
    ranked = _ranked(splits.validation, seed=seed)
    return _take_sound(splits.validation, ranked, max_items, answer=answer, prompts=prompts, limit=limit, out=out)


def _ranked(split: Path, *, seed: int, newest: bool = False) -> list[str]:
    """The ticket ids of the split in the order in which they are chosen."""
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
    return sorted(ids, key=lambda name: (rank[name], hash_rank(name, seed=seed)))


def _take_sound(
    split: Path,
    ranked: list[str],
    max_items: int,
    *,
    answer: str,
    prompts: tuple[PromptSpec, ...],
    limit: FaultLimit | None,
    out: Path,
) -> EvalSet:
    """The first `max_items` of which every prompt can be made."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    answers: dict[str, str] = {}
    faulty: list[Entry] = []
    first: Exception | None = None
    tables: list[pa.Table] = []
    n_tried = 0
    while len(answers) < max_items and n_tried < len(ranked):
        some = ranked[n_tried : n_tried + max_items - len(answers)]
        n_tried += len(some)
        tables.append(pq.read_table(split, filters=[("ticket_id", "in", some)]).sort_by("ticket_id"))
        for row in tables[-1].to_pylist():
            try:
                for prompt in prompts:
                    _try_prompt(prompt, row)
                answers[row["ticket_id"]] = reference_answer(answer, row)
            except Exception as error:
                if not is_row_fault(error, ROW_CODES):
                    raise
                first = first or error
                faulty.append(_quarantined(row, error))
        if limit is not None and faulty:
            limit.check(more=faulty)
    if not answers and first is not None:
        raise first
    table = pa.concat_tables(tables)
    table = table.filter(pc.is_in(table["ticket_id"], value_set=pa.array(answers, pa.string()))).sort_by("ticket_id")
    ids = table.column("ticket_id")
    table = table.append_column("item_id", ids)
    table = table.append_column("answer", pa.array([answers[name] for name in ids.to_pylist()], pa.string()))
    pq.write_table(table.combine_chunks(), out / "items.parquet", compression="zstd")
    if faulty:
        from tasks.curate.rows import write_removed

        write_removed(faulty, out)
    return EvalSet(root=out, n_items=len(answers), n_available=len(ranked), n_quarantined=len(faulty))


def _try_prompt(prompt: PromptSpec, row: dict[str, Any]) -> None:
    """Raise what an arm with this prompt would raise on the row, in either format."""
    dump_messages(messages_for(prompt, row))
    render_text(prompt.user, row)


def _quarantined(row: dict[str, Any], error: Exception) -> Entry:
    code, reason = row_fault(error, "items")
    places = {name: row[name] for name in ("ticket_id", "source", "source_line")}
    return {**places, "outcome": "quarantined", "code": code, "reason": reason}


def hash_rank(ticket_id: str, *, seed: int) -> tuple[bytes, str]:
    """Sort key that shuffles ids the same way in every run and beside any other ids."""
    return hashlib.sha256(f"{seed}:{ticket_id}".encode()).digest(), ticket_id


def reference_answer(template: str, row: dict[str, Any]) -> str:
    """What answers to this ticket are compared with: the last turn of its own conversation, or the template filled."""
    own = row.get("messages")
    return parse_messages(str(own))[-1]["content"] if own else render_text(template, row)
