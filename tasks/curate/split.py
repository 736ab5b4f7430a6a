"""Split tickets into train, validation and test: test is later than train, and no customer or thread is on two sides.

Only ids, times, the seed and the previous split decide, never a text, reply or label: two pipelines whose tickets
differ only there have the same held-out rows. Duplicates must have been removed (`tasks/curate/dedup.py`). The
decisions are made in `tasks/curate/split_placing.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifacts import RowCounts, Splits, TicketTable
from schemas.curation import SplitSpec
from schemas.errors import DataError
from schemas.tables import ASSIGNMENTS
from tasks.curate.row_faults import FaultLimit, keep_sound_rows, top_codes
from tasks.curate.rows import TicketWriter, read_batches_with, read_columns, read_rows, write_removed, write_rows
from tasks.curate.split_placing import (
    EARLY,
    FREE,
    NEVER,
    PLACES,
    TEST,
    EarlierSplit,
    nothing_known,
    owners_of,
    place_tickets,
)
from tasks.curate.split_strata import write_strata
from tasks.step import as_step

if TYPE_CHECKING:
    from tasks.curate.split_placing import Flags, Ints, Placement

WHERE = "split"
PARTS = ("train", "validation", "test")
TOLERATED_TEST_SHARE = 0.05
"""How far the test share may be above `test_fraction` before the split warns."""
PERCOLATES_FROM = 0.5
"""Share of the tickets in one group from which customers and threads, joined, hardly separate any tickets."""

_REASONS = {
    "straddles_cut_early": "written before the cut by a held-out customer or thread",
    "straddles_cut_late": "written after the cut by a customer or thread that is in train",
    "straddles_sides": "its customers and threads have been placed on different sides",
    "no_created_at": "without a time it may be later than the held-out tickets",
}
_PLACE = ("ticket_id", "source", "source_line")
_EPOCH = datetime(1970, 1, 1)
_DAY = 86_400_000_000


@as_step("split", libraries=("duckdb", "numpy", "pyarrow", "scipy"), extends="previous")
def split_tickets(
    out: Path,
    *,
    tickets: TicketTable,
    split: SplitSpec,
    previous: Splits | None = None,
    limit: FaultLimit | None = None,
) -> Splits:
    """Write `train.parquet`, `validation.parquet`, `test.parquet`, `removed.parquet`, the assignments and the strata.

    Tickets that share a customer or a thread, directly or through others, are one group; a ticket with neither is its
    own. With times the newest `test_fraction` of the tickets is the window. Groups only in the window are held out,
    groups only before it train; neither loses anything. A group on both sides (a straddler) must lose one side, which
    is dropped as `straddles_cut_early` or `straddles_cut_late`. `straddlers` decides which:

    - `keep_early`: straddlers train; their tickets in the window are dropped.
    - `keep_late`: straddlers are held out; their tickets before the window are dropped.
    - `balance`: straddlers with the fewest tickets before the cut per ticket in the window (ties by hash of seed and
      group) are held out until half of the window is, the others train. This order loses least: of 3,000 tickets by
      400 customers over 8 weeks, nearly all straddlers, 65 % train and 10 % are held out; a random choice of customers
      would leave 49 % and 10 %. The price: held-out customers are more often those who wrote more of late.

    A ticket without a time is dropped as `no_created_at`.

    With no times at all, or `by_time: false`, groups are held out in the order of their hash up to `test_fraction`.
    Validation takes whole groups of train in the order of another hash, up to `validation_fraction` of train.

    With `stable` and the last complete split of the same seed, columns and kind, every ticket stays where that put it.
    The new tickets' own newest share becomes one more window, and new tickets before it train: so train grows, and
    stays earlier than the newest window, while earlier windows lie among the train times. New tickets of placed
    customers and threads go to their side, or are dropped by the codes above; one that links two sides is dropped as
    `straddles_sides`. After `retire_after_days` (counted back from the newest ticket) a held-out group trains, unless
    some of it is in the newest window; the new window is larger by as many tickets. No ticket returns from train, so
    where few customers are new, test shrinks by what retires; without `retire_after_days` it only grows. Split by
    hash, nothing retires.

    Only ids and times are held in memory; texts are read once, while the parts are written.

    Notes: `groups`, `straddling_groups`, `straddling_early` and `straddling_late` (their tickets before and after the
    cut), `dropped_<code>`; `retired` (now) and `new_tickets` when it continues a split, `previous_ignored` when it
    could not; `warn_percolation` (permille of the tickets that are in one group, when over half),
    `warn_unseen_categories` (of test, that train does not have), `warn_test_share` (permille of the rows, when a
    continued split without `retire_after_days` has outgrown `test_fraction`) with `proposed_retire_after_days`.

    Raises:
        DataError: train or test would be empty; TG0220, more rows raise than `limit` allows.
    """
    return keep_sound_rows(
        lambda rows, folder: _split_tickets(rows, split, folder, previous, () if limit is None else limit.stages),
        tickets,
        step=WHERE,
        out=out,
        limit=limit,
    )


def _split_tickets(
    tickets: TicketTable, split: SplitSpec, out: Path, previous: Splits | None, stages: Sequence[TicketTable | Splits]
) -> Splits:
    table = read_columns(tickets.tickets, (*_PLACE, "created_at", *split.group_by))
    owners, created = owners_of(table, split.group_by), _times(table["created_at"])
    by_time = split.by_time and table["created_at"].null_count < table.num_rows
    before = read_previous(previous, split, by_time=by_time)
    known = _known_places(table, before, previous)
    placed = place_tickets(owners=owners, created=created, known=known, split=split, by_time=by_time)
    counts = _count(placed.place)
    groups = owners.connect(owners.first >= 0)[owners.first]
    notes = _notes(placed, known, groups, counts) | _warn_of_test_share(placed, created, known, split)
    if split.stable and previous is not None and before is None:
        notes["previous_ignored"] = 1
    if not counts["train"] or not counts["test"]:
        raise _emptied(stages) or _cannot_split(counts, notes, table.num_rows, continues=before is not None)
    _write_parts(tickets.tickets, placed.place, out)
    n_removed = _write_removed(table, placed, out)
    _write_assignments(table, owners.names.take(_array(groups)), placed, out)
    if n_unseen := write_strata(out):
        notes["warn_unseen_categories"] = n_unseen
    return Splits(
        root=out,
        rows=RowCounts(n_in=table.num_rows, n_out=table.num_rows - n_removed, n_dropped=n_removed),
        n_train=counts["train"],
        n_validation=counts["validation"],
        n_test=counts["test"],
        group_by=split.group_by,
        seed=split.seed,
        cut=_EPOCH + timedelta(microseconds=placed.cut) if by_time else None,
        notes=notes,
    )


def _times(column: pa.ChunkedArray) -> Ints:
    times: Ints = pc.fill_null(column.cast(pa.int64()), NEVER).to_numpy().astype(np.int64)
    return times


def _known_places(table: pa.Table, before: Assignments | None, previous: Splits | None) -> EarlierSplit:
    """What the previous split decided about each ticket."""
    if before is None or previous is None:
        return nothing_known(table.num_rows)
    rows = pc.index_in(table["ticket_id"], value_set=before.table["ticket_id"].combine_chunks())
    is_known = pc.is_valid(rows).to_numpy()
    old = before.table.take(pc.fill_null(rows, 0).combine_chunks())
    names = pc.index_in(old["split"], value_set=_strings(PLACES[: TEST + 1]))
    place = pc.fill_null(names, FREE).to_numpy().astype(np.int64)
    cut = NEVER if previous.cut is None else (previous.cut - _EPOCH) // timedelta(microseconds=1)
    return EarlierSplit(
        is_known=is_known,
        place=np.where(is_known, place, FREE),
        since=np.where(is_known, _times(old["since"]), NEVER),
        retired=is_known & old["retired"].to_numpy(),
        cut=cut,
    )


def _strings(values: tuple[str, ...]) -> pa.Array:
    return pa.array(values, pa.string())


def _array(values: Ints | Flags) -> pa.Array:
    return pa.array(values)


def _count(place: Ints) -> dict[str, int]:
    return dict(zip(PLACES, np.bincount(place, minlength=len(PLACES)).tolist(), strict=True))


def _notes(placed: Placement, known: EarlierSplit, groups: Ints, counts: dict[str, int]) -> dict[str, int]:
    sizes = np.unique(groups, return_counts=True)[1]
    notes = {
        "groups": len(sizes),
        "straddling_groups": placed.straddlers.n_groups,
        "straddling_early": placed.straddlers.n_early,
        "straddling_late": placed.straddlers.n_late,
    }
    notes |= {f"dropped_{code}": counts[code] for code in _REASONS}
    if known.is_known.any():
        notes |= {"retired": placed.n_retired, "new_tickets": int(np.count_nonzero(~known.is_known))}
    if sizes.max(initial=0) > PERCOLATES_FROM * groups.shape[0] and groups.shape[0] > 1:
        notes["warn_percolation"] = int(1000 * sizes.max() // groups.shape[0])
    return notes


def _warn_of_test_share(placed: Placement, created: Ints, known: EarlierSplit, split: SplitSpec) -> dict[str, int]:
    """Warn when windows have added up, and propose the age at which the older ones would be given back to train."""
    is_test = placed.place == TEST
    n_rows, n_test = int(np.count_nonzero(placed.place < EARLY)), int(np.count_nonzero(is_test))
    continues_by_time = placed.cut != NEVER and bool(known.is_known.any())
    too_many = n_test > (split.test_fraction + TOLERATED_TEST_SHARE) * n_rows
    if split.retire_after_days is not None or not continues_by_time or not too_many:
        return {}
    oldest_kept = np.sort(created[is_test])[-max(1, round(split.test_fraction * n_rows))]
    days = -((oldest_kept - int(created.max())) // _DAY)
    return {"warn_test_share": 1000 * n_test // n_rows, "proposed_retire_after_days": max(1, int(days))}


def _emptied(stages: Sequence[TicketTable | Splits]) -> DataError | None:
    """The error if an earlier step has taken most rows: it names the step, and the settings by their reasons."""
    largest = max(stages, key=lambda stage: stage.rows.n_in - stage.rows.n_out, default=None)
    if largest is None or 2 * largest.rows.n_out > largest.rows.n_in:
        return None
    rows, name = largest.rows, largest.root.parent.name  # `store/quality/KEY`
    left = f"`{name}` left {rows.n_out:,} of {rows.n_in:,}"
    return DataError(
        f"too few tickets are left to split; {left}: {top_codes([largest.removed])}",
        code="TG0221",
        where=name,
        hint="change or remove that step or setting; `tunegate data funnel` shows where all rows went",
    )


def _cannot_split(counts: dict[str, int], notes: dict[str, int], n_tickets: int, *, continues: bool) -> DataError:
    message = (
        f"{n_tickets} tickets of {notes['groups']} customers or threads split into {counts['train']} train and "
        f"{counts['test']} test rows; both must have rows"
    )
    hint = "more tickets or customers are needed; `by_time: false` splits by customer alone"
    if notes["straddling_groups"]:
        message += f"; on both sides of the cut: {notes['straddling_groups']}"
        hint += "; `straddlers` decides which tickets on both sides are kept"
    if share := notes.get("warn_percolation"):
        message += f"; {share / 10:.0f} % of the tickets are connected by shared customers and threads"
        hint = "set `group_by` to customer_id or thread_id; joined they hardly separate any tickets here"
    if continues:
        hint += "; `stable: false` starts a new split"
    return DataError(message, code="TG0221", where=WHERE, hint=hint)


def _write_parts(path: Path, place: Ints, out: Path) -> None:
    """Write the three parts in one pass over the tickets."""
    with ExitStack() as opened:
        writers = [opened.enter_context(TicketWriter(out, name=f"{part}.parquet")) for part in PARTS]
        for batch, places in read_batches_with(path, place):
            for number, writer in enumerate(writers):
                writer.add(batch.filter(_array(places == number)))


def _write_removed(table: pa.Table, placed: Placement, out: Path) -> int:
    """Write the rows that are in no part; return their number."""
    gone = placed.place >= EARLY
    codes = _strings(PLACES).take(_array(placed.place[gone]))
    reasons = _strings(tuple(_REASONS.values())).take(pc.index_in(codes, value_set=_strings(tuple(_REASONS))))
    removed = table.select(list(_PLACE)).filter(_array(gone))
    for name, values in (("outcome", pa.repeat("dropped", len(codes))), ("code", codes), ("reason", reasons)):
        removed = removed.append_column(name, values)
    return write_removed(removed, out)


def _write_assignments(table: pa.Table, groups: pa.Array, placed: Placement, out: Path) -> None:
    assignments = {
        "ticket_id": table["ticket_id"],
        "group": groups,
        "split": _strings((*PARTS, "dropped")).take(_array(np.minimum(placed.place, EARLY))),
        "since": pa.array(placed.since, mask=placed.since == NEVER).cast(pa.timestamp("us")),
        "retired": _array(placed.retired),
    }
    write_assignments(pa.table(assignments), out)


@dataclass(frozen=True)
class Assignments:
    """One row per ticket that was split, ordered by ticket_id."""

    table: pa.Table
    """Columns of `schemas.tables.ASSIGNMENTS`."""


def read_previous(previous: Splits | None, split: SplitSpec, *, by_time: bool) -> Assignments | None:
    """Return what the last split decided, or None for another kind of split: seed, columns or `by_time` differ."""
    if previous is None or not split.stable or not previous.assignments.exists():
        return None
    if previous.seed != split.seed or previous.group_by != split.group_by or (previous.cut is not None) != by_time:
        return None
    return Assignments(read_rows(previous.assignments))


def write_assignments(table: pa.Table, out: Path) -> None:
    """Write `out/assignments.parquet`, ordered by ticket_id."""
    write_rows(table.sort_by("ticket_id"), ASSIGNMENTS, out / "assignments.parquet")
