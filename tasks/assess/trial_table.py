"""The table of trainings that were chosen from, as Parquet: `ladder.parquet` or `trials.parquet`.

Written twice: by `tasks/assess/choose.py` without what depends on the machine, and beside a run's record with seconds
and price, by `flows/choice_report.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from schemas.trials import TrialRow

_INTEGERS = ("number", "n_items", "n_examples", "n_trainable", "n_steps", "n_tokens", "memory_bytes")
_NUMBERS = ("value", "bound", "gain", "gain_lower", "gain_upper", "train_loss", "validation_loss")
_COSTS = ("seconds", "cost")


def write_trials(
    rows: Sequence[TrialRow], path: Path, *, costs: Mapping[str, tuple[float | None, float | None]] | None = None
) -> None:
    """Write one row per training; `changes` is a JSON object.

    Args:
        costs: Name -> seconds that its training and answers took, and their price; null writes no such columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [pa.field(name, _type(name)) for name in TrialRow.model_fields]
    told = [
        {**row.model_dump(mode="json"), "changes": orjson.dumps(row.changes, option=orjson.OPT_SORT_KEYS).decode()}
        for row in rows
    ]
    if costs is not None:
        fields += [pa.field(name, pa.float64()) for name in _COSTS]
        for row in told:
            row |= dict(zip(_COSTS, costs.get(str(row["name"]), (None, None)), strict=True))
    pq.write_table(pa.Table.from_pylist(told, pa.schema(fields)), path, compression="zstd")


def _type(name: str) -> object:
    import pyarrow as pa

    if name in _INTEGERS:
        return pa.int64()
    if name in _NUMBERS:
        return pa.float64()
    return pa.bool_() if name == "met" else pa.string()
