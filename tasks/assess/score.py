"""Score every answer of one arm on the held-out items: one number per item and metric.

`tasks/assess/gate.py` compares the arms.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import tasks.assess.metrics  # noqa: F401  registers the kinds of metrics
from schemas.artifacts import CheckEvidence, EvalSet, ModelArm, Predictions, ScoredArm, Scores
from schemas.errors import GateError
from schemas.evaluation import Arm, EvaluateSpec
from tasks.assess.fields import MAX_SCORED_CHARS, FieldPattern, score_whole
from tasks.assess.items import extra_items
from tasks.assess.metric import Answers, Score, kind_of
from tasks.assess.style import HouseStyle
from tasks.step import as_step

SCORES = pa.schema([("item_id", pa.string()), ("metric", pa.string()), ("value", pa.float64())])
SLICES = pa.schema([("item_id", pa.string()), ("slice", pa.string())])
NO_VALUE = "(none)"
"""Slice value of items with null in the column."""


@as_step("scores", libraries=("pyarrow", "sacrebleu"))
def score_answers(
    out: Path,
    *,
    items: EvalSet,
    predictions: Predictions,
    evaluate: EvaluateSpec,
    arm: ModelArm | Arm,
    floor: CheckEvidence | None = None,
) -> Scores:
    """Write `scores.parquet` and `slices.parquet`; return the means over all items but those of `gates.slices.top_up`.

    Metrics are those of `evaluate.scored_names()`, 0 or 1 per item except:

    - `chrf`: character n-gram F-score (n = 1-6, beta = 2) of the whole answer against the reference answer, 0-1.
    - `macro_f1_<field>`, `bleu`, `rouge_*`, and user metrics that are declared `continuous`.
    - `heldout_loss`: nats per token of the reference answer, from the predictions.

    A value that is not finite becomes NaN, and its metric has no mean: a gate on it ends in ERROR.

    If the run stopped before the last item (`Predictions.n_planned`), only the answered items are scored.

    Args:
        floor: Of `set_reply_floor`; without it a metric `reply` that has no floor of its own has no value.

    Raises:
        GateError: TG0603, items and predictions do not have the same ids, once each.

    Source: Popović (2015), "chrF: character n-gram F-score for automatic MT evaluation"; sacrebleu's defaults.
    """
    rows: list[dict[str, Any]] = pq.read_table(items.root / "items.parquet").to_pylist()
    answers: list[dict[str, Any]] = pq.read_table(predictions.root / "predictions.parquet").to_pylist()
    answered = {row["item_id"] for row in answers}
    if predictions.n_planned == len(rows) and len(answers) < len(rows):
        rows = [row for row in rows if row["item_id"] in answered]
    _check_same_ids([row["item_id"] for row in rows], [row["item_id"] for row in answers], arm)
    by_id = {row["item_id"]: row for row in answers}
    score_item = _ItemScorer(evaluate)
    rows.sort(key=lambda row: str(row["item_id"]))
    extra = extra_items(items)
    score_all = partial(_score_together, answers=by_id, evaluate=evaluate, items=items, predictions=predictions)
    together = score_all(rows, floor=floor)
    if extra:  # a metric over all answers must not know them
        planned = [row for row in rows if str(row["item_id"]) not in extra]
        together |= score_all(planned, floor=floor)
    scored = [
        (str(item["item_id"]), score_item(item, by_id[item["item_id"]]) | together[str(item["item_id"])])
        for item in rows
    ]
    slices = [(str(item["item_id"]), slice_name(column, item[column])) for item in rows for column in evaluate.slices]
    written = write_scores(scored, metrics=evaluate.scored_names(), slices=slices, arm=arm, out=out, extra=extra)
    return written.model_copy(update={"n_replies_cut": predictions.n_replies_cut})


def slice_name(column: str, value: object) -> str:
    """The name of a slice, on one line: a line break in its value is a space.

    >>> slice_name("product", None), slice_name("product", "a\\nb")
    ('product=(none)', 'product=a b')
    """
    return f"{column}={NO_VALUE if value is None else ' '.join(str(value).splitlines())}"


def write_scores(
    scored: Sequence[tuple[str, Mapping[str, float]]],
    *,
    metrics: Sequence[str],
    slices: Sequence[tuple[str, str]],
    arm: ScoredArm,
    out: Path,
    extra: frozenset[str] = frozenset(),
) -> Scores:
    """Write both files of a `Scores` directory, in the given order of items.

    Args:
        extra: Ids of items that are not counted in the means.
    """
    values = [{"item_id": item_id, "metric": name, "value": item[name]} for item_id, item in scored for name in metrics]
    pq.write_table(pa.Table.from_pylist(values, SCORES), out / "scores.parquet", compression="zstd")
    members = [{"item_id": item_id, "slice": name} for item_id, name in slices]
    pq.write_table(pa.Table.from_pylist(members, SLICES), out / "slices.parquet", compression="zstd")
    means = {name: _mean([item[name] for item_id, item in scored if item_id not in extra]) for name in metrics}
    return Scores(
        root=out, arm=arm, n_items=len(scored), means={name: mean for name, mean in means.items() if mean is not None}
    )


class _ItemScorer:
    """All metrics of one answer."""

    def __init__(self, evaluate: EvaluateSpec) -> None:
        from sacrebleu.metrics.chrf import CHRF

        self._fields = FieldPattern(evaluate.fields) if evaluate.fields else None
        self._style = HouseStyle(evaluate.style)
        kinds = ((metric.traits().name, metric, kind_of(metric).per_answer) for metric in evaluate.metrics)
        self._declared: dict[str, Score] = {name: make(metric) for name, metric, make in kinds if make is not None}
        self._chrf = CHRF()

    def __call__(self, item: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, float]:
        text, wanted = str(answer["text"] or ""), str(item["answer"] or "")
        loss = answer["loss"]
        start = text[:MAX_SCORED_CHARS]
        overlap = self._chrf.sentence_score(start, [wanted]).score / 100
        return {
            **(self._fields.score(text, item) if self._fields else score_whole(text, wanted)),
            **self._style.score(text),
            "chrf": float(overlap),
            "finished": float(bool(answer["finished"])),
            **{name: score(start, item) for name, score in self._declared.items()},
            "heldout_loss": float(loss) if loss is not None and math.isfinite(loss) else math.nan,
        }


def _score_together(
    rows: Sequence[Mapping[str, Any]],
    *,
    answers: Mapping[str, Mapping[str, Any]],
    evaluate: EvaluateSpec,
    items: EvalSet,
    predictions: Predictions,
    floor: CheckEvidence | None,
) -> dict[str, dict[str, float]]:
    """Item -> values of the metrics over all answers together."""
    given = Answers(
        items=rows,
        texts={str(row["item_id"]): str(answers[row["item_id"]]["text"] or "") for row in rows},
        fields=FieldPattern(evaluate.fields) if evaluate.fields else None,
        items_file=items.root / "items.parquet",
        predictions_file=predictions.root / "predictions.parquet",
        cut=frozenset(str(row["item_id"]) for row in rows if not answers[row["item_id"]]["finished"]),
        floor=None if floor is None else floor.values["floor"],
    )
    found: dict[str, dict[str, float]] = {item: {} for item in given.texts}
    for metric in evaluate.metrics:
        score = kind_of(metric).together
        if score is None:
            continue
        values = score(metric, given)
        for item in found:  # an item that the user's SQL omits has no value, which the gate reports
            found[item][metric.traits().name] = values.get(item, math.nan)
    return found


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    mean = math.fsum(listed) / len(listed) if listed else math.nan
    return mean if math.isfinite(mean) else None


def _check_same_ids(items: list[Any], answers: list[Any], arm: str) -> None:
    missing, foreign = len(set(items) - set(answers)), len(set(answers) - set(items))
    repeated = len(answers) - len(set(answers)) + len(items) - len(set(items))
    if missing or foreign or repeated or not items:
        raise GateError(
            f"the answers of arm {arm} do not match the held-out set: {missing} of {len(items)} items unanswered, "
            f"{foreign} answers to other items, {repeated} repeated",
            code="TG0603",
            hint="generate the answers again for this held-out set",
        )
