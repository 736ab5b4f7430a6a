"""Remove rows that leak a test or validation question, and verify that none is left.

`tasks/curate/leaks.py` defines what a leak is. It comes after the split, before which nothing is held out.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifacts import RowCounts, Splits
from schemas.curation import DecontaminateSpec
from schemas.errors import DataError
from tasks.curate.leaks import (
    LEAK_CODES,
    WHERE,
    Leak,
    LeakReport,
    Questions,
    compare_questions,
    fold_questions,
    read_questions,
)
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.rows import TicketWriter, read_batches, write_removed
from tasks.curate.split_strata import write_strata
from tasks.step import as_step
from tasks.storage.warehouse import connect, quote_identifier, quote_text

if TYPE_CHECKING:
    import duckdb

POOL_PARTS = ("train", "validation")
HELD_OUT_PARTS = ("test", "validation")
OWNERS = {"customer_id": "leak_customer", "thread_id": "leak_thread"}
"""Column -> the note that counts train and validation rows which share its value with a test row."""

_REASONS = {
    "leak_exact": "the question is a {part} question",
    "leak_near": "the question is nearly equal to a {part} question",
    "leak_quote": "the question quotes a {part} question",
    "leak_paraphrase": "the question shares several rare pieces with a {part} question",
    "leak_time": "written after the cut from which tickets are held out",
}


@as_step("decontaminate", libraries=("duckdb", "numba", "numpy", "pyarrow", "scipy"))
def decontaminate(out: Path, *, splits: Splits, spec: DecontaminateSpec, limit: FaultLimit | None = None) -> Splits:
    """Drop the train and validation rows that leak a test row, then the train rows that leak a validation row.

    Test rows stay, and so do all validation rows that leak no test row: on them trainings stop and are selected. A row
    that cannot be compared, whether train or held-out, is quarantined: it might leak.

    A row is dropped by the first rule of `compare_questions` that applies, and listed with the held-out ticket
    (kept_id), the score and the longest run of words that both share (shared_run); else by `leak_time` if it was not
    written before the split's cut. Finally the files are read back: they must hold exactly the rows that were compared
    and are not listed.

    Replies are not compared: an agent's template answers train and test tickets alike.

    Notes: `dropped_<code>` per rule; `leaked_test_rows` and `leaked_validation_rows` (those that some removed row
    leaked); `unprotected_test_rows` and `unprotected_validation_rows` (all their word runs are so common that only the
    exact and near rules apply); for each of customer_id and thread_id that the split does not keep apart,
    `leak_customer` or `leak_thread`: train and validation rows that share one with a test row. They stay.

    Raises:
        DataError: a value of a column that the split keeps apart is on two sides, no train row is left, a leak
            remains, or there are too many nearly repeated questions to compare. TG0220, more rows raise than `limit`
            allows.
    """
    return keep_sound_rows(
        lambda rows, folder: _decontaminate(rows, spec, folder), splits, step="decontaminate", out=out, limit=limit
    )


def _decontaminate(splits: Splits, spec: DecontaminateSpec, out: Path) -> Splits:
    notes = _check_sides(splits)
    train, validation = fold_questions(splits.train), fold_questions(splits.validation)
    late = _late_rows(splits)
    reports = _compare(train, validation, fold_questions(splits.test), spec, late)
    found = {leak.ticket_id: (part, leak) for part, report in reports.items() for leak in report.leaks}
    late = [name for name in late if name not in found]
    leaking = found.keys() | set(late)
    listed = {part: _write_without(splits, part, leaking, out) for part in POOL_PARTS}
    shutil.copyfile(splits.test, out / "test.parquet")
    places = {row["ticket_id"]: row for rows in listed.values() for row in rows}
    removed = [_leak_row(leak, part) | places[name] for name, (part, leak) in sorted(found.items())]
    removed += [{"code": "leak_time", "reason": _REASONS["leak_time"]} | places[name] for name in late]
    write_removed([row | {"outcome": "dropped"} for row in removed], out)
    counts = {
        part: n - len(listed[part]) for part, n in (("train", splits.n_train), ("validation", splits.n_validation))
    }
    if counts["train"] < 1:
        raise DataError(
            f"all {splits.n_train} train rows leak test or validation questions; none is left",
            code="TG0221",
            where=WHERE,
            hint="deduplicate before the split, or raise near_threshold, long_threshold and short_threshold",
        )
    codes = Counter(row["code"] for row in removed)
    clean = splits.model_copy(
        update={
            "root": out,
            "digest": "",
            "rows": RowCounts(
                n_in=splits.n_train + splits.n_validation + splits.n_test,
                n_out=counts["train"] + counts["validation"] + splits.n_test,
                n_dropped=len(removed),
            ),
            "n_train": counts["train"],
            "n_validation": counts["validation"],
            "notes": notes
            | {f"dropped_{code}": codes[code] for code in (*LEAK_CODES, "leak_time")}
            | {f"leaked_{part}_rows": n for part, n in _count_leaked(found.values()).items()}
            | {f"unprotected_{part}_rows": report.n_unprotected for part, report in reports.items()},
        }
    )
    check_no_leaks(clean, [*train, *validation], leaking)
    if splits.assignments.exists():
        shutil.copyfile(splits.assignments, clean.assignments)
    write_strata(out)
    return clean


def _compare(
    train: Sequence[Questions],
    validation: Sequence[Questions],
    test: Sequence[Questions],
    spec: DecontaminateSpec,
    late: Sequence[str],
) -> dict[str, LeakReport]:
    """The leaks of test rows, and of the validation rows that stay; a row that leaks both is in the first."""
    of_test = compare_questions(pool=[*train, *validation], held_out=test, spec=spec)
    gone = {leak.ticket_id for leak in of_test.leaks}
    names = pa.array(sorted(gone.union(late)), pa.string())
    held_out = [batch.without(names) for batch in validation]
    of_validation = compare_questions(pool=train, held_out=held_out, spec=spec)
    leaks = tuple(leak for leak in of_validation.leaks if leak.ticket_id not in gone)
    return {"test": of_test, "validation": replace(of_validation, leaks=leaks)}


def _leak_row(leak: Leak, part: str) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(leak, name) for name in ("code", "kept_id", "score", "shared_run")}
    return row | {"reason": _REASONS[leak.code].format(part=part)}


def _count_leaked(found: Iterable[tuple[str, Leak]]) -> dict[str, int]:
    counts = Counter(part for part, _ in {(part, leak.kept_id) for part, leak in found})
    return {part: counts[part] for part in HELD_OUT_PARTS}


def check_no_leaks(splits: Splits, compared: Sequence[Questions], leaking: Set[str]) -> None:
    """Read the files back to verify the removal.

    They must hold, row by row and word by word, what was compared without the leaking rows. The rules judge each row by
    itself, so the rows need not be compared again.

    Raises:
        DataError: a leaking row is still there, or a row or a text that was not compared.
    """
    files = (splits.train, splits.validation)
    if _hold_the_rest(files, compared, leaking):
        return
    there = [name for path in files for ids, _ in read_questions(path) for name in ids.to_pylist()]
    left = leaking & set(there)
    raise DataError(
        f"train and validation are not what was compared without the leaks: {len(left)} leaking rows are still there, "
        f"{len(there)} rows are left of {sum(map(len, compared))}, of which {len(leaking)} leak",
        code="TG0231",
        where=WHERE,
        hint="remove the stored split and run again; if it happens again, decontamination has a bug",
    )


def _hold_the_rest(files: Sequence[Path], compared: Sequence[Questions], leaking: Set[str]) -> bool:
    """Compare batch by batch, so that no second copy of all questions is in memory."""
    all_ids = pa.chunked_array([batch.ids for batch in compared], pa.string())
    all_questions = pa.chunked_array([batch.questions for batch in compared], pa.string())
    stays = pc.invert(pc.is_in(all_ids, value_set=pa.array(sorted(leaking), pa.string())))
    rows = pc.indices_nonzero(stays).to_numpy()
    start = 0
    for batch in (batch for path in files for batch in read_questions(path)):
        there = rows[start : start + len(batch[0])].tolist()
        if len(there) < len(batch[0]):
            return False
        start += len(there)
        if not there:
            continue
        first, n_rows = there[0], there[-1] + 1 - there[0]
        for read, all_compared in zip(batch, (all_ids, all_questions), strict=True):
            wanted = all_compared.slice(first, n_rows).filter(stays.slice(first, n_rows))
            if not wanted.equals(pa.chunked_array([read])):
                return False
    return start == len(rows)


def _check_sides(splits: Splits) -> dict[str, int]:
    """Check in the files that grouping columns are kept apart; count what the other columns share with test.

    Raises:
        DataError: a value of a grouping column is in two parts.
    """
    files = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    notes = {}
    with connect(readable=tuple(files.values())) as connection:
        union = " UNION ALL ".join(
            f"SELECT '{part}' AS part, {', '.join(OWNERS)} FROM read_parquet({quote_text(str(path))})"
            for part, path in files.items()
        )
        connection.execute(f"CREATE TEMP TABLE rows_of_parts AS {union}").fetchall()
        for column, note in OWNERS.items():
            name = quote_identifier(column)
            if column not in splits.group_by:
                notes[note] = _count(
                    connection,
                    f"SELECT count(*) FROM rows_of_parts WHERE part <> 'test' AND {name} <> '' "
                    f"AND {name} IN (SELECT {name} FROM rows_of_parts WHERE part = 'test')",
                )
                continue
            n_both = _count(
                connection,
                f"SELECT count(*) FROM (SELECT {name} FROM rows_of_parts WHERE {name} <> '' "
                f"GROUP BY {name} HAVING count(DISTINCT part) > 1)",
            )
            if n_both:
                raise DataError(
                    f"{n_both} values of {column} are in more than one of train, validation and test",
                    code="TG0231",
                    where=WHERE,
                    hint="remove the stored split and run again; if it happens again, the split has a bug",
                )
    return notes


def _late_rows(splits: Splits) -> list[str]:
    if splits.cut is None:
        return []
    pool = (splits.train, splits.validation)
    with connect(readable=pool) as connection:
        union = " UNION ALL ".join(f"SELECT * FROM read_parquet({quote_text(str(path))})" for path in pool)
        found = connection.execute(
            f"SELECT ticket_id FROM ({union}) WHERE created_at >= $cut ORDER BY ticket_id", {"cut": splits.cut}
        ).fetchall()
    return [name for (name,) in found]


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(connection.execute(query).fetchall()[0][0])


def _write_without(splits: Splits, part: str, leaking: set[str], out: Path) -> list[dict[str, Any]]:
    """Write the part without these tickets; return id and place of those that were in it."""
    names = pa.array(sorted(leaking), pa.string())
    rows: list[dict[str, Any]] = []
    with TicketWriter(out, name=f"{part}.parquet", is_read_next=False) as writer:
        for batch in read_batches(getattr(splits, part)):
            leaks = pc.is_in(batch["ticket_id"], value_set=names)
            writer.add(batch.filter(pc.invert(leaks)))
            rows += batch.select(["ticket_id", "source", "source_line"]).filter(leaks).to_pylist()
    return rows
