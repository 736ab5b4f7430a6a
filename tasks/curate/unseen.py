"""Today's held-out tickets for a candidate that was trained before: without those that it learned something of.

Decontamination drops train rows that give a held-out question away. That is too late for a trained model, so here the
held-out rows go.
"""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.artifacts import RowCounts, Splits
from schemas.curation import DecontaminateSpec
from tasks.curate.leaks import find_leaks
from tasks.curate.rows import write_removed
from tasks.step import as_step

_WORDS = ("subject", "body")
"""Columns of a question, as leaks are compared."""


@as_step("unseen", libraries=("duckdb", "numba", "numpy", "pyarrow", "scipy"))
def leave_out_learned(out: Path, *, learned: Splits, today: Splits, spec: DecontaminateSpec) -> Splits:
    """Write train and validation as the candidate learned them, and today's test rows that none of them gives away.

    A test row that was held out then, with the same words, has been compared; it stays. Of the others those are dropped
    that are in train or validation themselves, share a value of a column that the split kept apart, or are leaked by
    any rule of `find_leaks`; each is in `removed.parquet` with its reason.

    Args:
        learned: The tickets that the candidate learned from, without leaks of the tickets held out then.
        today: The tickets as they are now.
    """
    pool = [learned.train, learned.validation]
    test = pq.read_table(today.test)
    known = _questions(learned.test)
    new = pa.array([known.get(name) != words for name, words in _questions(today.test).items()], pa.bool_())
    fresh = test.filter(new)
    gone: dict[str, tuple[str, str, str | None]] = {}
    trained = {name for part in pool for name in pq.read_table(part, columns=["ticket_id"])["ticket_id"].to_pylist()}
    for name in fresh["ticket_id"].to_pylist():
        if name in trained:
            gone[name] = "leak_item", "the candidate learned from it", name
    for column in learned.group_by:
        owners = {
            value for part in pool for value in pq.read_table(part, columns=[column])[column].to_pylist() if value
        }
        for name, value in zip(fresh["ticket_id"].to_pylist(), fresh[column].to_pylist(), strict=True):
            if value in owners:
                gone.setdefault(name, (f"leak_{column}", f"the candidate learned from its {column}", None))
    while True:  # a pool row is listed with one held-out row, of several that it gives away
        rest = fresh.filter(_not_in(fresh, gone))
        if not rest.num_rows:
            break
        pq.write_table(rest, out / "compared.parquet")
        report = find_leaks(pool=pool, held_out=out / "compared.parquet", spec=spec)
        (out / "compared.parquet").unlink()
        if not report.leaks:
            break
        for leak in report.leaks:
            gone.setdefault(leak.kept_id, (leak.code, "what the candidate learned gives it away", leak.ticket_id))
    places = {row["ticket_id"]: row for row in fresh.select(["ticket_id", "source", "source_line"]).to_pylist()}
    removed: list[dict[str, Any]] = [
        {**places[name], "outcome": "dropped", "code": code, "reason": reason, "kept_id": kept}
        for name, (code, reason, kept) in gone.items()
    ]
    write_removed(removed, out)
    kept = test.filter(_not_in(test, gone))
    pq.write_table(kept, out / "test.parquet", compression="zstd")
    for part in pool:
        shutil.copyfile(part, out / part.name)
    return learned.model_copy(
        update={
            "root": out,
            "digest": "",
            "rows": RowCounts(n_in=test.num_rows, n_out=kept.num_rows, n_dropped=len(removed)),
            "n_test": kept.num_rows,
            "notes": {"fresh_test_rows": fresh.num_rows - len(removed)},
        }
    )


def _questions(path: Path) -> dict[str, tuple[Any, ...]]:
    table = pq.read_table(path, columns=["ticket_id", *_WORDS]).to_pydict()
    return dict(zip(table["ticket_id"], zip(*(table[name] for name in _WORDS), strict=True), strict=True))


def _not_in(table: pa.Table, gone: dict[str, Any]) -> pa.Array:
    return pc.invert(pc.is_in(table["ticket_id"], value_set=pa.array(sorted(gone), pa.string())))
