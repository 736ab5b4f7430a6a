"""Make the scores of an arm from a file of results: its values, and metrics of answers against references.

An item that was answered several times has the mean of its answers. The gate reads nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.artifacts import EvalSet, Predictions, ScoredArm, Scores
from schemas.evaluation import EvaluateSpec
from schemas.metrics import MetricTraits, traits_by_name, traits_of
from tasks.assess.fields import score_whole
from tasks.assess.score import score_answers, slice_name, write_scores
from tasks.results.rows import ItemResult, ResultFile, is_scored


def values_of(file: ResultFile, evaluate: EvaluateSpec | None, folder: Path) -> dict[str, dict[str, float]]:
    """Item -> metric -> value, the mean over its repeats; the file's own value of a metric comes first.

    Args:
        evaluate: How answers are scored against references, if each row has both; None is `exact` of the whole
            answer.
        folder: Empty, for temporary files.
    """
    sums: dict[str, dict[str, list[float]]] = {}
    for row in measured(file, evaluate, folder).rows:
        for metric, value in row.values.items():
            sums.setdefault(row.item_id, {}).setdefault(metric, []).append(value)
    return {
        item: {metric: math.fsum(each) / len(each) for metric, each in values.items()} for item, values in sums.items()
    }


def measured(file: ResultFile, evaluate: EvaluateSpec | None, folder: Path) -> ResultFile:
    """The file with the metrics of its answers among its values; arguments as in `values_of`."""
    if not is_scored(file):
        return file
    scored: Mapping[int, Mapping[str, float]]
    scored = _whole_answers(file) if evaluate is None else _scores_of_answers(file, evaluate, folder)
    rows = (replace(row, values={**scored.get(number, {}), **row.values}) for number, row in enumerate(file.rows))
    return replace(file, rows=tuple(rows))


def _whole_answers(file: ResultFile) -> dict[int, dict[str, float]]:
    return {number: score_whole(row.answer or "", row.reference or "") for number, row in enumerate(file.rows)}


def _scores_of_answers(file: ResultFile, evaluate: EvaluateSpec, folder: Path) -> dict[int, dict[str, float]]:
    """Number of the row -> metric -> value, of the metrics that need no model."""
    ids = [f"{number:09}" for number in range(len(file.rows))]
    columns = {name: [row.columns.get(name) for row in file.rows] for name in file.columns}
    items = {**columns, "item_id": ids, "answer": [row.reference for row in file.rows]}
    answers = {
        "item_id": ids,
        "text": [row.answer for row in file.rows],
        "n_new_tokens": [0] * len(ids),
        "finished": [True] * len(ids),
        "loss": [math.nan] * len(ids),
    }
    pq.write_table(pa.Table.from_pydict(items), folder / "items.parquet")
    pq.write_table(pa.Table.from_pydict(answers), folder / "predictions.parquet")
    scores = score_answers(
        folder,
        items=EvalSet(root=folder, n_items=len(ids), n_available=len(ids)),
        predictions=Predictions(root=folder, n_items=len(ids), n_new_tokens=0),
        evaluate=evaluate.model_copy(update={"slices": ()}),
        arm="tuned",
    )
    found: dict[int, dict[str, float]] = {}
    for row in pq.read_table(scores.root / "scores.parquet").to_pylist():
        if row["metric"] not in ("finished", "heldout_loss"):  # a file does not tell them
            found.setdefault(int(row["item_id"]), {})[row["metric"]] = row["value"]
    return found


def write_arm(
    values: Mapping[str, Mapping[str, float]], *, arm: ScoredArm, slices: Sequence[tuple[str, str]], out: Path
) -> Scores:
    """Write the scores of an arm, ordered by item; a metric that an item lacks is NaN."""
    metrics = list(dict.fromkeys(metric for each in values.values() for metric in each))
    rows = [(item, {metric: values[item].get(metric, math.nan) for metric in metrics}) for item in sorted(values)]
    return write_scores(rows, metrics=metrics, slices=slices, arm=arm, out=out)


def write_items(file: ResultFile, columns: Mapping[str, str], out: Path) -> EvalSet:
    """Write `items.parquet`: item_id, and these columns by their new names."""
    rows = _first_rows(file)
    table = {new: [row.columns.get(old) for row in rows] for old, new in columns.items()}
    pq.write_table(pa.Table.from_pydict({"item_id": [row.item_id for row in rows], **table}), out / "items.parquet")
    return EvalSet(root=out, n_items=len(rows), n_available=len(rows))


def slices_of(file: ResultFile, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield item and slice, `column=value`, for each of the columns."""
    for row in _first_rows(file):
        for column in columns:
            yield row.item_id, slice_name(column, row.columns.get(column))


def traits_in(
    values: Sequence[Mapping[str, Mapping[str, float]]], declared: Sequence[MetricTraits]
) -> list[MetricTraits]:
    """The traits of all metrics: as declared or built in, and continuous where a value is neither 0 nor 1.

    Args:
        values: Of each arm, item -> metric -> value.
    """
    seen: dict[str, bool] = {}
    for arm in values:
        for each in arm.values():
            for metric, value in each.items():
                seen[metric] = seen.get(metric, False) or (math.isfinite(value) and value not in (0.0, 1.0))
    known = traits_by_name(declared)
    return [
        traits.model_copy(update={"continuous": traits.continuous or broken})
        for metric, broken in seen.items()
        for traits in (traits_of(metric, known),)
    ]


def _first_rows(file: ResultFile) -> list[ItemResult]:
    first: dict[str, ItemResult] = {}
    for row in file.rows:
        first.setdefault(row.item_id, row)
    return [first[item] for item in sorted(first)]
