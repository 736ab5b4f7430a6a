"""Find the held-out items on which a candidate did worst, with question, reference answer and answers.

The only module here that returns ticket text: for a person to read, never for a log or an error.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.artifacts import EvalSet, Predictions, Scores
from schemas.errors import GateError
from schemas.metrics import MetricTraits


@dataclass(frozen=True)
class AnsweredArm:
    """Scores and answers of one arm."""

    scores: Scores
    predictions: Predictions | None
    """None for a classifier, which names labels and writes no text."""


@dataclass(frozen=True)
class WorstItem:
    """One item, for a person to read."""

    item_id: str
    slices: tuple[str, ...]
    candidate: float
    reference: float | None
    question: str
    wanted: str
    candidate_answer: str
    reference_answer: str | None
    cited: tuple[str, ...] = ()
    """Ids of the passages that fit it."""


def worst_items(
    *,
    items: EvalSet,
    candidate: AnsweredArm,
    reference: AnsweredArm | None,
    traits: MetricTraits,
    slice_name: str | None,
    n_items: int,
) -> tuple[WorstItem, ...]:
    """The items with the largest loss against the reference, or without one the worst values; then by item id.

    Only items that are worse than the reference, or without one not right.

    Args:
        traits: Of the metric to compare.

    Raises:
        GateError: TG0603, the files cannot be read, or the metric was not scored.
    """
    metric = traits.name
    ours = _values(candidate.scores, metric)
    theirs = _values(reference.scores, metric) if reference is not None else {}
    slices = _slices(candidate.scores)
    sign = 1.0 if traits.higher_is_better else -1.0
    best = math.inf if traits.continuous else max(sign, 0.0)

    def loss(item: str) -> float:
        return sign * (theirs[item] - ours[item]) if theirs else best - sign * ours[item]

    chosen = [
        item
        for item in ours
        if (not theirs or item in theirs) and (slice_name is None or slice_name in slices.get(item, ()))
    ]
    worst = sorted(
        (item for item in chosen if loss(item) > 0),
        key=lambda item: (-(loss(item) if theirs else -sign * ours[item]), item),
    )[:n_items]
    rows = {row["item_id"]: row for row in _rows(items.root / "items.parquet", worst)}
    answers, other = _texts(candidate, worst), _texts(reference, worst)
    return tuple(
        WorstItem(
            item_id=item,
            slices=slices.get(item, ()),
            candidate=ours[item],
            reference=theirs.get(item),
            question="\n\n".join(part for part in (rows[item].get("subject"), rows[item].get("body")) if part),
            wanted=rows[item]["answer"] or "",
            candidate_answer=answers.get(item) or "",
            reference_answer=other.get(item),
            cited=tuple(rows[item].get("cited") or ()),
        )
        for item in worst
        if item in rows
    )


def _values(scores: Scores, metric: str) -> dict[str, float]:
    """Item -> value, only finite ones."""
    rows = _read(scores.root / "scores.parquet", [("metric", "==", metric)])
    if not rows:
        raise GateError(
            f"arm {scores.arm} has no scores of {metric}",
            code="TG0603",
            hint=f"scored metrics: {', '.join(scores.means) or 'none'}",
        )
    return {row["item_id"]: row["value"] for row in rows if row["value"] is not None and math.isfinite(row["value"])}


def _slices(scores: Scores) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for row in _read(scores.root / "slices.parquet", None):
        found[row["item_id"]] = (*found.get(row["item_id"], ()), row["slice"])
    return found


def _texts(arm: AnsweredArm | None, item_ids: list[str]) -> dict[str, str]:
    """Item -> answer; empty without any."""
    if arm is None or arm.predictions is None:
        return {}
    return {row["item_id"]: row["text"] for row in _rows(arm.predictions.root / "predictions.parquet", item_ids)}


def _rows(path: Path, item_ids: list[str]) -> list[dict[str, Any]]:
    return _read(path, [("item_id", "in", item_ids)]) if item_ids else []


def _read(path: Path, filters: Any) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, filters=filters).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise GateError(f"{path.name} cannot be read ({type(error).__name__})", code="TG0603") from None
    return rows
