"""Check for train/test leakage: the gate's own check, whatever curation did.

Compares the encoded examples, which training really read, with the held-out items: by id, text, customer, thread and
time. Texts are compared as in decontamination (`tasks/curate/leaks.py`). `flows/gate_checks.py` adds the step;
`tasks/assess/measured_checks.py` judges the counts.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.artifacts import CheckEvidence, DatasetRef, EvalSet, Splits
from schemas.checks import ContaminationSpec
from schemas.curation import DecontaminateSpec
from schemas.errors import GateError
from tasks.step import as_step

if TYPE_CHECKING:
    from tasks.curate.leaks import LeakReport

REASONS = {
    "leak_unknown": "trained on, but not in the train split",
    "leak_item": "is a held-out item itself",
    "leak_exact": "has the words of a held-out question",
    "leak_near": "has nearly the words of a held-out question",
    "leak_quote": "quotes a held-out question",
    "leak_paraphrase": "shares several rare pieces with a held-out question",
    "leak_customer_id": "has the customer of a held-out item",
    "leak_thread_id": "is in the thread of a held-out item",
    "leak_time": "was not written before the cut, or has no time",
}
"""Code -> description, in the order of the checks; a ticket is listed under the first that applies."""
N_EXAMPLES = 5


@as_step("contamination", libraries=("duckdb", "numba", "numpy", "pyarrow", "scipy"))
def check_contamination(
    out: Path,
    *,
    dataset: DatasetRef,
    splits: Splits,
    items: EvalSet,
    spec: ContaminationSpec,
    decontaminate: DecontaminateSpec,
    planted_ids: tuple[str, ...] = (),
) -> CheckEvidence:
    """Write `evidence.parquet` (ticket_id, code, kept_id: the held-out ticket, score; no text) and count the tickets.

    Args:
        dataset: The training examples.
        splits: Has the texts of their tickets, and the columns that the split keeps apart.
        decontaminate: Lengths of n-grams and what counts as boilerplate; its thresholds are not used.
        planted_ids: Ids of examples that are not tickets.

    Raises:
        GateError: TG0603, the encoded examples cannot be read, or their number is wrong.
    """
    trained = frozenset(_trained_ids(dataset)) - frozenset(planted_ids)
    held_out = pq.read_table(items.root / "items.parquet")
    rows = _rows_of(splits, trained)
    found: dict[str, tuple[str, str | None, float]] = {}

    def note(ticket_id: str, code: str, kept_id: str | None = None, score: float = 1.0) -> None:
        found.setdefault(ticket_id, (code, kept_id, score))

    for name in trained & set(held_out["item_id"].to_pylist()):
        note(name, "leak_item", name)
    for name in trained - set(rows["ticket_id"].to_pylist()):
        note(name, "leak_unknown")
    report = _text_leaks(splits, items, spec, decontaminate)
    for leak in report.leaks:
        if leak.ticket_id in trained:
            note(leak.ticket_id, leak.code, leak.kept_id, leak.score)
    for column in splits.group_by if spec.same is None else spec.same:
        for name, kept in _shared(rows, held_out, column):
            note(name, f"leak_{column}", kept)
    for name in _late(rows, splits, spec):
        note(name, "leak_time")
    order = sorted(found)
    table = pa.table(
        {
            "ticket_id": pa.array(order, pa.string()),
            "code": pa.array([found[name][0] for name in order], pa.string()),
            "kept_id": pa.array([found[name][1] for name in order], pa.string()),
            "score": pa.array([found[name][2] for name in order], pa.float64()),
        }
    )
    pq.write_table(table, out / "evidence.parquet", compression="zstd")
    codes = Counter(code for code, _, _ in found.values())
    return CheckEvidence(
        root=out,
        check="contamination",
        n_items=items.n_items,
        values={"trained": float(len(trained)), "unprotected": float(report.n_unprotected)}
        | {code: float(codes[code]) for code in REASONS},
        examples=tuple(order[:N_EXAMPLES]),
    )


def _trained_ids(dataset: DatasetRef) -> list[str]:
    """Ids in the Arrow files that training maps into memory."""
    ids: list[str] = []
    try:
        for path in sorted((dataset.root / "train").glob("*.arrow")):
            with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
                for batch in stream:
                    ids += batch.column("ticket_id").to_pylist()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise GateError(
            f"the encoded examples cannot be read ({type(error).__name__})", code="TG0603", where=str(dataset.root)
        ) from None
    if len(ids) != dataset.n_train:
        raise GateError(
            f"there are {len(ids)} encoded examples, but the training used {dataset.n_train}",
            code="TG0603",
            where=str(dataset.root),
        )
    return ids


def _rows_of(splits: Splits, trained: frozenset[str]) -> pa.Table:
    table = pq.read_table(splits.train, columns=["ticket_id", "customer_id", "thread_id", "created_at"])
    return table.filter(pc.is_in(table["ticket_id"], value_set=pa.array(sorted(trained), pa.string())))


def _text_leaks(
    splits: Splits, items: EvalSet, spec: ContaminationSpec, decontaminate: DecontaminateSpec
) -> LeakReport:
    from tasks.curate.leaks import find_leaks

    limits = {
        "near_threshold": spec.near_threshold,
        "long_threshold": spec.quote_threshold,
        "short_threshold": spec.paraphrase_threshold,
    }
    # The same pool as in decontamination, since it decides how rare an n-gram is; untrained tickets are left out later.
    return find_leaks(
        pool=[splits.train, splits.validation],
        held_out=items.root / "items.parquet",
        spec=decontaminate.model_copy(update=limits),
    )


def _shared(rows: pa.Table, held_out: pa.Table, column: str) -> list[tuple[str, str]]:
    """Trained tickets that share a value of the column with an item, each with the first such item."""
    owners: dict[str, str] = {}
    for value, name in zip(held_out[column].to_pylist(), held_out["item_id"].to_pylist(), strict=True):
        if value:
            owners.setdefault(value, name)
    pairs = zip(rows["ticket_id"].to_pylist(), rows[column].to_pylist(), strict=True)
    return [(name, owners[value]) for name, value in pairs if value in owners]


def _late(rows: pa.Table, splits: Splits, spec: ContaminationSpec) -> list[str]:
    if splits.cut is None or not spec.time_order:
        return []
    cut = splits.cut.replace(tzinfo=None)
    pairs = zip(rows["ticket_id"].to_pylist(), rows["created_at"].to_pylist(), strict=True)
    return [name for name, written in pairs if written is None or not written.replace(tzinfo=None) < cut]
