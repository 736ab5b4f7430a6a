"""Score one training by its answers to the validation items: a rung against its target, a trial by its mean.

`tasks/assess/choose.py` takes the best.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.artifacts import DatasetRef, Scores, TrainedRef
from schemas.choice import Setting, TargetSpec
from schemas.metrics import MetricTraits
from schemas.trials import TrialRef, TrialRow
from tasks.assess.climb import advise, judge_target, mean_of, paired_gain
from tasks.step import as_step

_INTEGERS = ("number", "n_items", "n_examples", "n_trainable", "n_steps", "n_tokens", "memory_bytes")
_NUMBERS = ("value", "bound", "gain", "gain_lower", "gain_upper", "train_loss", "validation_loss")
_COSTS = ("seconds", "cost")


@as_step("trial", libraries=("numpy", "scipy", "pyarrow"))
def weigh_training(
    out: Path,
    *,
    trained: TrainedRef,
    dataset: DatasetRef,
    scores: Scores,
    earlier: Sequence[TrialRef] = (),
    name: str,
    number: int,
    changes: Mapping[str, Setting],
    traits: MetricTraits,
    target: TargetSpec | None = None,
    n_rungs: int = 1,
) -> TrialRef:
    """Write `values.parquet` and return the training's figures.

    Args:
        scores: Of the trained model on the validation items.
        earlier: Earlier rungs that have figures, in order; this one is compared with the last.
        traits: Of the metric that decides.
        target: Of a ladder; None for a sweep.

    Raises:
        GateError: TG0603, an earlier rung answered different items.
    """
    table = pq.read_table(scores.root / "scores.parquet", filters=[("metric", "=", traits.name)]).sort_by("item_id")
    values = dict(zip(table["item_id"].to_pylist(), table["value"].to_pylist(), strict=True))
    kept = {"item_id": pa.array(list(values), pa.string()), "value": pa.array(list(values.values()), pa.float64())}
    pq.write_table(pa.table(kept), out / "values.parquet", compression="zstd")
    numbers = [math.nan if value is None else value for value in values.values()]
    row: dict[str, Any] = {"value": mean_of(numbers), "n_items": len(numbers)}
    if target is not None:
        met, bound, summary = judge_target(numbers, traits=traits, target=target, n_rungs=n_rungs)
        gain = None
        if earlier:
            gain = paired_gain(values, item_values(earlier[-1]), traits=traits, confidence=target.confidence)
        row |= {"met": met, "bound": bound, "summary": summary}
        if gain is not None:
            row |= {"gain": gain.estimate, "gain_lower": gain.lower, "gain_upper": gain.upper}
        if not met:
            row["advice"] = advise(
                climbed=bool(earlier), gain=gain, train_loss=trained.train_loss, validation_loss=trained.validation_loss
            )
    figures = _figures(trained, dataset)
    return TrialRef(root=out, row=TrialRow(name=name, number=number, changes=dict(changes), **figures, **row))


def item_values(trial: TrialRef) -> dict[str, float]:
    """Item id -> value of the metric."""
    table = pq.read_table(trial.root / "values.parquet")
    return dict(zip(table["item_id"].to_pylist(), table["value"].to_pylist(), strict=True))


def _figures(trained: TrainedRef, dataset: DatasetRef) -> dict[str, Any]:
    training = orjson.loads((trained.root / "training.json").read_bytes())
    memory = training.get("predicted_memory") or {}
    return {
        "method": trained.method,
        "base": training["base"]["uri"].split("#")[0],
        "n_examples": dataset.n_train,
        "n_trainable": trained.n_trainable,
        "n_steps": trained.n_steps,
        "n_tokens": trained.n_tokens,
        "train_loss": trained.train_loss,
        "validation_loss": trained.validation_loss,
        "memory_bytes": memory.get("total"),
        "trained": trained.digest,
    }


def write_trials(
    rows: Sequence[TrialRow], path: Path, *, costs: Mapping[str, tuple[float | None, float | None]] | None = None
) -> None:
    """Write one row per training; `changes` is a JSON object.

    Args:
        costs: Name -> seconds of its training and answers, and their price; None writes no such columns.
    """
    fields = [pa.field(name, _type(name)) for name in TrialRow.model_fields]
    records = [
        {
            **row.model_dump(mode="json"),
            "changes": orjson.dumps(row.changes, option=orjson.OPT_SORT_KEYS).decode(),
        }
        for row in rows
    ]
    if costs is not None:
        fields += [pa.field(name, pa.float64()) for name in _COSTS]
        for row in records:
            row |= dict(zip(_COSTS, costs.get(str(row["name"]), (None, None)), strict=True))
    pq.write_table(pa.Table.from_pylist(records, pa.schema(fields)), path, compression="zstd")


def _type(name: str) -> object:
    if name in _INTEGERS:
        return pa.int64()
    if name in _NUMBERS:
        return pa.float64()
    return pa.bool_() if name == "met" else pa.string()
