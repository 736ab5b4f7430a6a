"""What MLflow shows of a run's data: counts of labels, and a table of the held-out items without their text.

Only columns of the PII class `none` (`schemas/tables.py`) are shown as they are. Ids of tickets are pseudonyms, so an
item is named by the sha256 of its row: who has the row can find the item, the hash gives nothing away.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import orjson
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.artifacts import EvalSet, Scores
from schemas.tables import SliceColumn
from tasks.storage.files import write_json

LABELS: tuple[str, ...] = get_args(SliceColumn)
MAX_VALUES = 50
"""Of a label column, in a dataset's profile."""
ITEM = "item_sha256"
SHOWN_ARMS = {"tuned": "", "champion": "champion/"}
"""Arm -> what its metrics' columns begin with."""


def count_labels(table: Path) -> dict[str, dict[str, int]]:
    """Label column -> its most frequent values -> rows; empty columns are left out."""
    found = {}
    for column in _labels_of(table):
        counts = pc.value_counts(pq.read_table(table, columns=[column])[column].combine_chunks()).to_pylist()
        known = [(str(each["values"]), each["counts"]) for each in counts if each["values"] is not None]
        if known:
            found[column] = dict(sorted(known, key=lambda each: (-each[1], each[0]))[:MAX_VALUES])
    return found


def write_items(path: Path, *, items: EvalSet, scores: Sequence[Scores]) -> None:
    """Write a row per held-out item: its hash, its reference labels, and the candidate's and champion's scores.

    An item that an arm did not answer, and a score that is not finite, have null. The form is that of
    `MlflowClient.log_table`.
    """
    rows = {str(row["item_id"]): row for row in _read_items(items.root / "items.parquet")}
    values: dict[str, dict[str, float]] = {}
    for arm in scores:
        prefix = SHOWN_ARMS.get(arm.arm)
        if prefix is None:
            continue
        scored = pq.read_table(arm.root / "scores.parquet").to_pylist()
        for each in scored:
            values.setdefault(f"{prefix}{each['metric']}", {})[str(each["item_id"])] = each["value"]
    labels = _labels_of(items.root / "items.parquet")
    data = [
        [_hash_of(row), *(row[label] for label in labels), *(_finite(values[name].get(item)) for name in values)]
        for item, row in rows.items()
    ]
    write_json(path, {"columns": [ITEM, *labels, *values], "data": sorted(data, key=lambda row: str(row[0]))})


def _read_items(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def _labels_of(table: Path) -> list[str]:
    names = set(pq.read_schema(table).names)
    return [label for label in LABELS if label in names]


def _hash_of(row: dict[str, Any]) -> str:
    return sha256(orjson.dumps(row, default=str, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _finite(value: float | None) -> float | None:
    return value if value is not None and value - value == 0 else None
