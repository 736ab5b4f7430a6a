"""Certificates of a run, and what they route: from which probability on an arm's label needs no person.

Planning tickets are of the validation split, and also fit the one number that makes likelihoods probabilities.
Calibration tickets are a share of the test split that no verdict uses; whatever is certified was tested on these alone.
Then each arm routes the gate's items by its certified threshold, so that rules can compare what is routed.
`tasks/assess/certify.py` has the statistics.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.artifacts import (
    CertifiedRef,
    CurvePoint,
    EvalSet,
    LabelSet,
    ModelArm,
    Predictions,
    ScoredArm,
    Scores,
    Splits,
)
from schemas.errors import DataError
from schemas.evaluation import AbstainSpec
from schemas.metrics import COVERAGE, REVIEW_COST, ROUTED_ACCURACY
from tasks.assess.baselines import ClassifierSpec
from tasks.assess.certify import Answered, certify
from tasks.assess.fields import FieldPattern
from tasks.assess.items import extra_items
from tasks.assess.label_probability import all_finite, fit_temperature, label_probability
from tasks.assess.retrieval import fit_labels, fit_words, question_text
from tasks.step import as_step
from tasks.storage.files import write_json

ROUTED = "routed"
"""The step's name: the scores of an arm with the metrics of what it routes."""
UNKNOWN_EXAMPLES = "contamination unknown: what the model learned is not declared, perhaps these tickets"
"""Added to the sentence of a certificate."""
N_POINTS = 50
"""Points of the curve at most."""


@dataclass(frozen=True)
class _LabelledAnswers:
    """Of one arm to one set of tickets."""

    logs: list[list[float] | None]
    """Per ticket one number per label, whose softmax is a probability once it is divided by the temperature."""
    written: list[int]
    """Place of the answer's label; unused where `logs` is None."""
    truth: list[int | None]
    """Place of the right label; None if it is none of the set."""
    clusters: NDArray[np.int64] | None
    answer_logs: list[float | None] | None = None
    """Mean log-likelihood of each whole answer; None of a classifier."""

    def right(self) -> list[bool]:
        return [
            each is not None and place == true
            for each, place, true in zip(self.logs, self.written, self.truth, strict=True)
        ]

    def agreement(self) -> float | None:
        """As of `CertifiedRef`."""
        pairs = [(logs, place) for logs, place in zip(self.logs, self.written, strict=True) if logs is not None]
        if self.answer_logs is None or not pairs:
            return None
        return sum(logs[place] == max(logs) for logs, place in pairs) / len(pairs)

    def separation(self) -> float | None:
        """As of `CertifiedRef`: the share of such pairs, a tie as half of one (Mann and Whitney's U)."""
        found: dict[bool, list[float]] = {True: [], False: []}
        for log, logs, right in zip(self.answer_logs or [], self.logs, self.right(), strict=False):
            if log is not None and logs is not None:
                found[right].append(log)
        if not (found[True] and found[False]):
            return None
        gaps = np.subtract.outer(found[True], found[False])
        return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())

    def answered(self, temperature: float) -> Answered:
        confidence = [
            -np.inf if each is None else label_probability(each, place, temperature)
            for each, place in zip(self.logs, self.written, strict=True)
        ]
        return Answered(np.array(confidence, np.float64), np.array(self.right(), np.bool_), self.clusters)

    def temperature(self) -> float:
        """The one of `TEMPERATURES` that makes the right labels likeliest; 1 if no answer has a right one."""
        pairs = [(logs, true) for logs, true in zip(self.logs, self.truth, strict=True) if logs and true is not None]
        if not pairs:
            return 1.0
        return fit_temperature(np.array([each for each, _ in pairs]), np.array([true for _, true in pairs]))


@as_step("labels", libraries=("pyarrow",))
def collect_labels(out: Path, *, splits: Splits, field: str, pattern: str) -> LabelSet:
    """Write the labels of the field in train, sorted.

    Raises:
        DataError: TG0221, train has fewer than two.
    """
    values = pq.read_table(splits.train, columns=[field]).column(field).drop_null().unique().to_pylist()
    labels = tuple(sorted({str(value) for value in values}))
    if len(labels) < 2:
        raise DataError(
            f"train has {len(labels)} values of {field}, so there is nothing to be sure of",
            code="TG0221",
            where=str(splits.train),
            hint="set evaluate.abstain.field to a field with several values, or remove evaluate.abstain",
        )
    write_json(out / "labels.json", list(labels))
    return LabelSet(root=out, field=field, pattern=pattern, labels=labels)


@as_step("certificate", libraries=("numpy", "scipy", "pyarrow"))
def certify_answers(
    out: Path,
    *,
    arm: ModelArm,
    labels: LabelSet,
    planning: EvalSet,
    planned: Predictions,
    calibration: EvalSet,
    calibrated: Predictions,
    abstain: AbstainSpec,
    cluster_by: str | None = None,
    is_unknown: bool = False,
) -> CertifiedRef:
    """Certify a model by its answers and the likelihoods of their labels; writes `certificate.json`.

    Args:
        planned: Answers to the planning tickets, with likelihoods.
        calibrated: Answers to the calibration tickets, with likelihoods.
        cluster_by: `gates.cluster_by`: tickets of one value count as one observation.
        is_unknown: Nobody says what the model learned, which the sentence then says.
    """
    return _write(
        out,
        arm,
        _read_answers(labels, planning, planned, cluster_by),
        _read_answers(labels, calibration, calibrated, cluster_by),
        abstain,
        remark=UNKNOWN_EXAMPLES if is_unknown else "",
    )


@as_step("certificate", libraries=("scikit-learn", "numpy", "scipy", "pyarrow"))
def certify_classifier(
    out: Path,
    *,
    classifier: ClassifierSpec,
    splits: Splits,
    planning: EvalSet,
    calibration: EvalSet,
    abstain: AbstainSpec,
    cluster_by: str | None = None,
) -> CertifiedRef:
    """Certify the classifier of the arm tfidf in the same way, by its margins; writes `certificate.json`.

    Raises:
        DataError: TG0221, train has no words to learn from.
    """
    planned, calibrated = _classified(classifier, splits, planning, calibration, cluster_by=cluster_by)
    return _write(out, classifier.arm, planned, calibrated, abstain)


@as_step(ROUTED, libraries=("numpy", "pyarrow"))
def route_answers(
    out: Path,
    *,
    scores: Scores,
    items: EvalSet,
    predictions: Predictions,
    labels: LabelSet,
    certificate: CertifiedRef,
    review_minutes: float | None = None,
) -> Scores:
    """Write a model's scores with the metrics of what it routes of the gate's items (`ROUTING_METRICS`).

    Without a certified threshold it routes nothing.

    Args:
        scores: All other metrics of the arm.
        predictions: Its answers to the items, with likelihoods.
        certificate: Of the same model and labels.
        review_minutes: `evaluate.abstain.review_minutes`; None for no `review_cost`.
    """
    answers = _read_answers(labels, items, predictions, None)
    return _write_routed(out, scores, items, answers, certificate, review_minutes)


@as_step(ROUTED, libraries=("scikit-learn", "numpy", "pyarrow"))
def route_classifier(
    out: Path,
    *,
    scores: Scores,
    items: EvalSet,
    splits: Splits,
    classifier: ClassifierSpec,
    certificate: CertifiedRef,
    review_minutes: float | None = None,
) -> Scores:
    """The same of the classifier of the arm tfidf.

    Raises:
        DataError: TG0221, train has no words to learn from.
    """
    [answers] = _classified(classifier, splits, items)
    return _write_routed(out, scores, items, answers, certificate, review_minutes)


def _write_routed(
    out: Path,
    scores: Scores,
    items: EvalSet,
    answers: _LabelledAnswers,
    certificate: CertifiedRef,
    review_minutes: float | None,
) -> Scores:
    tickets = answers.answered(certificate.temperature)
    threshold = np.inf if certificate.threshold is None else certificate.threshold
    routed = tickets.confidence >= threshold
    values = {COVERAGE: routed.astype(np.float64), ROUTED_ACCURACY: np.where(routed & ~tickets.right, 0.0, 1.0)}
    if review_minutes is not None:
        values[REVIEW_COST] = np.where(routed, 0.0, review_minutes)
    ids, extra = [row["item_id"] for row in _items(items)], extra_items(items)
    table = pq.read_table(scores.root / "scores.parquet")
    new = [
        pa.table({"item_id": ids, "metric": [name] * len(ids), "value": numbers}).cast(table.schema)
        for name, numbers in values.items()
    ]
    pq.write_table(pa.concat_tables([table, *new]), out / "scores.parquet", compression="zstd")
    shutil.copyfile(scores.root / "slices.parquet", out / "slices.parquet")
    counted = np.array([name not in extra for name in ids], np.bool_)
    shown = {name: counted & routed if name == ROUTED_ACCURACY else counted for name in values}
    means = {name: float(numbers[shown[name]].mean()) for name, numbers in values.items() if shown[name].any()}
    return scores.model_copy(update={"root": out, "digest": "", "means": scores.means | means})


def _classified(
    classifier: ClassifierSpec, splits: Splits, *sets: EvalSet, cluster_by: str | None = None
) -> list[_LabelledAnswers]:
    """Teach the classifier with all train tickets, and let it label each of the sets."""
    field = classifier.field
    train = [row for row in _rows(splits.train, "subject", "body", field) if row[field] is not None]
    vectorizer, features = fit_words([question_text(row) for row in train])
    model = fit_labels(features, [str(row[field]) for row in train], seed=classifier.seed)
    names = [str(name) for name in model.classes_]
    found = []
    for items in sets:
        rows = _items(items, "subject", "body", field, cluster_by)
        margins = model.decision_function(vectorizer.transform([question_text(row) for row in rows]))
        margins = np.column_stack([-margins, margins]) if margins.ndim == 1 else margins
        logs: list[list[float] | None] = margins.tolist()
        truth = [_place(row[field], names) for row in rows]
        found.append(_LabelledAnswers(logs, margins.argmax(axis=1).tolist(), truth, _clusters(rows, cluster_by)))
    return found


def _read_answers(
    labels: LabelSet, items: EvalSet, predictions: Predictions, cluster_by: str | None
) -> _LabelledAnswers:
    rows = _items(items, labels.field, cluster_by)
    answers = {
        row["item_id"]: row
        for row in _rows(predictions.root / "predictions.parquet", "item_id", "text", "answer_log", "label_logs")
    }
    pattern = FieldPattern(labels.pattern)
    given = [answers[row["item_id"]]["label_logs"] for row in rows]
    logs = [each if all_finite(each) else None for each in given]
    values = [pattern.value_in(answers[row["item_id"]]["text"], labels.field) for row in rows]
    return _LabelledAnswers(
        logs,
        [_place(value, labels.labels) or 0 for value in values],
        [_place(row[labels.field], labels.labels) for row in rows],
        _clusters(rows, cluster_by),
        [answers[row["item_id"]]["answer_log"] for row in rows],
    )


def _write(
    out: Path,
    arm: ScoredArm,
    planning: _LabelledAnswers,
    calibration: _LabelledAnswers,
    abstain: AbstainSpec,
    *,
    remark: str = "",
) -> CertifiedRef:
    temperature = planning.temperature()
    tickets = calibration.answered(temperature)
    found = certify(planning.answered(temperature), tickets, target=abstain.target, confidence=abstain.confidence)
    ref = CertifiedRef(
        root=out,
        arm=arm,
        field=abstain.field,
        target=abstain.target,
        confidence=abstain.confidence,
        temperature=temperature,
        threshold=found.threshold,
        coverage=found.coverage,
        n_calibration=found.n_calibration,
        n_clusters=found.n_clusters,
        n_routed=found.n_routed,
        n_right=found.n_right,
        n_more=found.n_more,
        sentence="; ".join(filter(None, (found.sentence(), remark))),
        curve=risk_coverage(tickets),
        agreement=calibration.agreement(),
        separation=calibration.separation(),
    )
    write_json(out / "certificate.json", ref.model_dump(mode="json", exclude={"root", "digest"}))
    return ref


def risk_coverage(tickets: Answered) -> tuple[CurvePoint, ...]:
    """Accuracy of the surest tickets over their share, at most `N_POINTS`; tickets that are never routed are left out.

    >>> tickets = Answered(np.array([0.9, 0.5, -np.inf]), np.array([True, False, False]))
    >>> [(round(point.coverage, 2), point.accuracy) for point in risk_coverage(tickets)]
    [(0.33, 1.0), (0.67, 0.5)]
    """
    falling = np.argsort(-tickets.confidence, kind="stable")[: int(np.isfinite(tickets.confidence).sum())]
    accuracy = np.cumsum(tickets.right[falling]) / np.arange(1, len(falling) + 1)
    ends = [
        place
        for place, row in enumerate(falling)
        if place + 1 == len(falling) or tickets.confidence[falling[place + 1]] < tickets.confidence[row]
    ]
    step = -(-len(ends) // N_POINTS) if ends else 1
    return tuple(
        CurvePoint(coverage=(end + 1) / len(tickets), accuracy=float(accuracy[end])) for end in ends[::-1][::step][::-1]
    )


def _place(value: object, labels: Sequence[str]) -> int | None:
    return labels.index(str(value)) if value is not None and str(value) in labels else None


def _items(items: EvalSet, *columns: str | None) -> list[dict[str, Any]]:
    return _rows(items.root / "items.parquet", "item_id", *(name for name in columns if name is not None))


def _rows(path: Path, *columns: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path, columns=list(dict.fromkeys(columns))).to_pylist()
    return found


def _clusters(rows: Sequence[dict[str, Any]], column: str | None) -> NDArray[np.int64] | None:
    """Number of each row's cluster; a row without a value is its own."""
    if column is None:
        return None
    numbers: dict[tuple[str, str], int] = {}
    return np.array(
        [
            numbers.setdefault(
                ("item", row["item_id"]) if row[column] is None else ("value", str(row[column])), len(numbers)
            )
            for row in rows
        ],
        np.int64,
    )
