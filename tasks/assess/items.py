"""Choose the held-out items that every arm answers: the versioned held-out set.

An item without a prompt in some arm is left out for all arms, so that the items are fixed before any model answers.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from schemas.artifacts import EvalSet, Splits
from schemas.errors import ConfigError, DataError
from schemas.training import PromptSpec
from schemas.verdicts import NOTHING_JUDGED, NOTHING_SEEN, JudgedItems, SeenItems
from tasks.assess.spare import most_judged, spare_items
from tasks.curate.row_faults import Entry, FaultLimit
from tasks.step import as_step
from tasks.tickets.draw import draw_order, hash_rank, item_hash
from tasks.tickets.prompts import dump_messages, messages_for, parse_messages, render_text
from tasks.tickets.row_fault import is_row_fault, row_fault

EXTRA = "only_for_slices"
"""Column of `items.parquet` that marks the items of `gates.slices.top_up`; absent without them."""
MAX_READ = 10_000
"""Rows that are read at once, beyond those that are needed."""
ROW_CODES = ("TG0301",)
"""Errors of a single ticket: its conversation is malformed."""


@as_step("items", libraries=("pyarrow",))
def select_items(
    out: Path,
    *,
    splits: Splits,
    max_items: int,
    seed: int,
    answer: str,
    choose: Literal["hash", "newest"] = "hash",
    stratify: str | None = None,
    prompts: tuple[PromptSpec, ...] = (),
    seen: SeenItems = NOTHING_SEEN,
    judged: JudgedItems = NOTHING_JUDGED,
    slices: tuple[str, ...] = (),
    top_up: int = 0,
    one_per: str | None = None,
    at: tuple[int, ...] = (),
    again: SeenItems = NOTHING_SEEN,
    without_share: float = 0.0,
    limit: FaultLimit | None = None,
) -> EvalSet:
    """Write `items.parquet`: the test rows with the `max_items` smallest hashes, ordered by item_id.

    A hash of seed and ticket id decides, so that added or removed tickets do not change the choice among the others.
    If no row has a time, the hash decides within each label of `stratify`, and each label has its share of the items. A
    row whose prompt or reference answer cannot be made is quarantined in `removed.parquet` and replaced by the next;
    without such a row the file is not written. A row with the prompts of an earlier item is passed over.

    Args:
        max_items: Maximum number of items.
        choose: `newest` takes the latest, then by hash; a ticket without `created_at` counts as the oldest.
        stratify: Ticket column with the label to spread where times do not decide; None for none.
        answer: Template of the reference answer; a ticket with its own conversation has its last turn instead.
        prompts: Of every arm that will answer.
        seen: Items that people saw; they are taken only after all others, if those are too few.
        judged: Items that judged candidates before. So many of those that judged the most are exchanged that the
            budget lasts; if no others are left, there are fewer items.
        slices: Ticket columns to top up by value.
        top_up: Further rows are taken, in the same order and beyond `max_items`, until each value of these columns has
            as many items or no row is left. They are marked in the column `only_for_slices`.
        one_per: Ticket column of which each value has at most one item; a row without a value is taken as it is.
        at: Items of the declared looks: the largest of these numbers is taken that there are.
        again: Items that judged this candidate before; they come first.
        without_share: Share of the test rows that `select_calibration_items` takes, 0-1.
        limit: Ends the run if too many rows are faulty.

    Raises:
        DataError: TG0221, the test split is empty; TG0231, a ticket id is duplicated; TG0220, more rows are faulty than
            `limit` allows.
        Exception: if every row raises, the first error.
    """
    if not splits.n_test:
        raise DataError(
            "the test split is empty, so no model can be judged",
            code="TG0221",
            where=str(splits.test),
            hint="give the pipeline more tickets, or raise split.test_fraction",
        )
    ranked = _ranked(splits.test, seed=seed, newest=choose == "newest", stratify=stratify)
    ranked = [name for name in ranked if not _calibrates(name, without_share)]
    hashes = frozenset(seen.hashes)
    shown = {name for name in ranked if item_hash(name, salt=seen.salt) in hashes} if hashes else set[str]()
    ranked.sort(key=lambda name: name in shown)  # stable: only what was seen moves
    before = frozenset(again.hashes)
    first = {name for name in ranked if item_hash(name, salt=again.salt) in before} if before else set[str]()
    ranked.sort(key=lambda name: name not in first)
    if one_per is not None:
        ranked = list(_first_of_each(splits.test, ranked, one_per))
    texts = _Texts(answer, prompts)
    if judged.counts:
        known = dict(judged.counts)
        counts = {name: known.get(item_hash(name, salt=judged.salt), 0) for name in ranked}
        stay = [name for name in ranked[:max_items] if name in first]
        others, most = ranked[len(stay) :], most_judged(judged.budget)
        chosen = stay + spare_items(others, max_items - len(stay), counts=counts, most=most)
        taken, max_items = set(chosen), len(chosen)
        # What replaces a faulty row has judged as few as there are.
        ranked = chosen + sorted((name for name in ranked if name not in taken), key=counts.__getitem__)
    return _take_valid(
        splits.test, ranked, max_items, texts, limit=limit, out=out, shown=shown, at=at,
        more=_TopUp(slices, top_up) if top_up else None,
    )  # fmt: skip


@as_step("validation_items", libraries=("pyarrow",))
def select_validation_items(
    out: Path,
    *,
    splits: Splits,
    max_items: int,
    seed: int,
    answer: str,
    stratify: str | None = None,
    prompts: tuple[PromptSpec, ...] = (),
    limit: FaultLimit | None = None,
) -> EvalSet:
    """Like `select_items`, from the validation split: trainings are chosen by these, never by the test items.

    Raises:
        ConfigError: TG0160, the validation split is empty.
        DataError: TG0220 and TG0231, as in `select_items`.
    """
    if not splits.n_validation:
        raise ConfigError(
            "trainings are compared on the validation split, which is empty",
            code="TG0160",
            where=str(splits.validation),
            hint="raise split.validation_fraction, or give the pipeline more tickets",
        )
    ranked = _ranked(splits.validation, seed=seed, stratify=stratify)
    return _take_valid(splits.validation, ranked, max_items, _Texts(answer, prompts), limit=limit, out=out)


@as_step("calibration_items", libraries=("pyarrow",))
def select_calibration_items(
    out: Path,
    *,
    splits: Splits,
    share: float,
    max_items: int,
    seed: int,
    answer: str,
    prompts: tuple[PromptSpec, ...] = (),
    limit: FaultLimit | None = None,
) -> EvalSet:
    """Like `select_items`, from the share of the test split that no verdict uses; which rows, a hash of the id decides.

    Raises:
        DataError: TG0221, the share has no row; TG0220 and TG0231, as in `select_items`.
    """
    ranked = [name for name in _ranked(splits.test, seed=seed) if _calibrates(name, share)]
    if not ranked:
        raise DataError(
            f"none of the {splits.n_test} test rows is among the share {share} that calibrates",
            code="TG0221",
            where=str(splits.test),
            hint="give the pipeline more tickets, or raise split.test_fraction",
        )
    return _take_valid(splits.test, ranked, max_items, _Texts(answer, prompts), limit=limit, out=out)


def _calibrates(ticket_id: str, share: float) -> bool:
    """Whether a test row is among the share; not by the seed, so that another draw of items mixes nothing up."""
    digest = hashlib.sha256(f"calibration:{ticket_id}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def _ranked(split: Path, *, seed: int, newest: bool = False, stratify: str | None = None) -> list[str]:
    """The ticket ids of the split in the order of preference."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(split, columns=["ticket_id", "created_at", *([stratify] if stratify else [])])
    ids: list[str] = table.column("ticket_id").to_pylist()
    if len(set(ids)) != len(ids):
        raise DataError(
            f"{len(ids) - len(set(ids))} ticket ids are in the {split.stem} split twice",
            code="TG0231",
            where=str(split),
        )
    times: list[int | None] = table.column("created_at").cast(pa.int64()).to_pylist()
    if not newest and any(time is not None for time in times):
        return sorted(ids, key=lambda name: hash_rank(name, seed=seed))
    labels = table.column(stratify).to_pylist() if stratify else [None] * len(ids)
    return [ids[place] for place in draw_order(ids, times, labels, seed=seed)]


def count_available(splits: Splits, one_per: str | None, without_share: float = 0.0) -> int:
    """Count the test tickets that can be items, as `select_items` takes them."""
    import pyarrow.parquet as pq

    if one_per is None and not without_share:
        return splits.n_test
    names: list[str] = pq.read_table(splits.test, columns=["ticket_id"]).column("ticket_id").to_pylist()
    names = [name for name in names if not _calibrates(name, without_share)]
    if one_per is None:
        return len(names)
    return sum(1 for _ in _first_of_each(splits.test, names, one_per))


def _first_of_each(split: Path, ranked: Sequence[str], column: str) -> Iterator[str]:
    """Yield the first row of each value, and every row without one."""
    import pyarrow.parquet as pq

    table = pq.read_table(split, columns=["ticket_id", column])
    values = dict(zip(table["ticket_id"].to_pylist(), table[column].to_pylist(), strict=True))
    taken: set[str] = set()
    for name in ranked:
        if values[name] not in taken:
            yield name
        if values[name] is not None:
            taken.add(values[name])


@dataclass(frozen=True)
class _Texts:
    """The templates that every item has to fill."""

    answer: str
    prompts: tuple[PromptSpec, ...]

    def fill(self, row: dict[str, Any]) -> tuple[tuple[str, ...], str]:
        """Return the prompts of the row, and its reference answer.

        Raises:
            Exception: what some arm would raise on the row, in either format.
        """
        filled = [(dump_messages(messages_for(prompt, row)), render_text(prompt.user, row)) for prompt in self.prompts]
        return tuple(text for each in filled for text in each), reference_answer(self.answer, row)


@dataclass(frozen=True)
class _TopUp:
    """How many items each value of these columns needs."""

    columns: tuple[str, ...]
    least: int

    def missing(self, split: Path, ranked: list[str], taken: Sequence[str]) -> Iterator[str]:
        """Yield the rows that are missing, in the order of preference."""
        import pyarrow.parquet as pq

        table = pq.read_table(split, columns=["ticket_id", *self.columns]).to_pydict()
        keys = {
            name: [(column, table[column][row]) for column in self.columns]
            for row, name in enumerate(table["ticket_id"])
        }
        counts = Counter(key for name in taken for key in keys[name])
        for name in ranked:
            if any(counts[key] < self.least for key in keys[name]):
                counts.update(keys[name])
                yield name


def _take_valid(
    split: Path,
    ranked: list[str],
    max_items: int,
    texts: _Texts,
    *,
    limit: FaultLimit | None,
    out: Path,
    shown: Set[str] = frozenset(),
    at: Sequence[int] = (),
    more: _TopUp | None = None,
) -> EvalSet:
    """Write the first `max_items` rows that fill every template, and those that `more` adds.

    Args:
        shown: Rows that people saw.
        at: Of these numbers of items, the largest that is reached.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    answers: dict[str, str] = {}
    asked: set[tuple[str, ...]] = set()
    faulty: list[Entry] = []
    repeated: list[str] = []
    first: Exception | None = None
    tables: list[pa.Table] = []
    tried: set[str] = set()

    def take(some: Sequence[str], most: int) -> None:
        nonlocal first
        tables.append(pq.read_table(split, filters=[("ticket_id", "in", list(some))]))
        rows = {row["ticket_id"]: row for row in tables[-1].to_pylist()}
        for name in some:
            if len(answers) == most:
                break
            tried.add(name)
            try:
                prompts, answer = texts.fill(rows[name])
            except Exception as error:
                if not is_row_fault(error, ROW_CODES):
                    raise
                first = first or error
                faulty.append(_quarantined(rows[name], error))
                continue
            # Every model answers equal prompts equally: a second one proves nothing, and bounds would count it.
            if not prompts or prompts not in asked:
                answers[name] = answer
                asked.add(prompts)
            else:
                repeated.append(name)
        if limit is not None and faulty:
            limit.check(more=faulty)

    while len(answers) < max_items and len(tried) < len(ranked):
        # Of many rows with equal prompts more are read at once each time.
        size = max(max_items - len(answers), min(len(tried), MAX_READ))
        take(ranked[len(tried) : len(tried) + size], max_items)
    if not answers and first is not None:
        raise first
    n_taken = max((size for size in at if size <= len(answers)), default=len(answers))
    for name in list(answers)[n_taken:]:
        del answers[name]
        tried.discard(name)
    planned = set(answers)
    while more is not None:  # a row that is quarantined is replaced by the next of its slices
        left = [name for name in ranked if name not in tried]
        if not (wanted := list(more.missing(split, left, list(answers)))):
            break
        take(wanted, len(ranked))
    table = pa.concat_tables(tables)
    table = table.filter(pc.is_in(table["ticket_id"], value_set=pa.array(answers, pa.string()))).sort_by("ticket_id")
    ids = table.column("ticket_id")
    table = table.append_column("item_id", ids)
    table = table.append_column("answer", pa.array([answers[name] for name in ids.to_pylist()], pa.string()))
    if more is not None:
        table = table.append_column(EXTRA, pa.array([name not in planned for name in ids.to_pylist()], pa.bool_()))
    pq.write_table(table.combine_chunks(), out / "items.parquet", compression="zstd")
    if faulty:
        from tasks.curate.rows import write_removed

        write_removed(faulty, out)
    return EvalSet(
        root=out, n_items=len(answers), n_available=len(ranked), n_fresh=len(set(ranked) - tried - shown),
        n_quarantined=len(faulty), n_repeated=len(repeated),
    )  # fmt: skip


def extra_items(items: EvalSet) -> frozenset[str]:
    """Ids of the items that only the slices count (`gates.slices.top_up`)."""
    import pyarrow.parquet as pq

    path = items.root / "items.parquet"
    if EXTRA not in pq.read_schema(path).names:
        return frozenset()
    table = pq.read_table(path, columns=["item_id", EXTRA]).to_pydict()
    return frozenset(str(item) for item, extra in zip(table["item_id"], table[EXTRA], strict=True) if extra)


def _quarantined(row: dict[str, Any], error: Exception) -> Entry:
    code, reason = row_fault(error, "items")
    places = {name: row[name] for name in ("ticket_id", "source", "source_line")}
    return {**places, "outcome": "quarantined", "code": code, "reason": reason}


def reference_answer(template: str, row: dict[str, Any]) -> str:
    """The reference answer of a ticket: the last turn of its own conversation, or the filled template."""
    own = row.get("messages")
    return parse_messages(str(own))[-1]["content"] if own else render_text(template, row)
