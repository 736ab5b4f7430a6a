"""`make bench-abstain`: how often a threshold misses its target, certified and chosen as usual, on real questions.

A classifier learns from three fifths of a set, 500 further questions plan the tests, the rest is the population: each
resampling draws its calibration questions from it with replacement, and what a threshold keeps is counted on all of
it, so the truth is known exactly. `certified` is `tasks.assess.certify`; `naive` is the lowest threshold at which the
calibration questions themselves keep the target. QUICK=1: the settings of the bars alone. RECORD=1: write
`results/abstain.md`. The sets are outside the repository (TUNEGATE_DATA, default ../shared/data); without them the
benchmark ends with a message. `out_of_scope.py` has the tickets that no label fits.
"""

import csv
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import PROJECT, Bench, report, table
from benchmarks.out_of_scope import N_PARTS, Setting, measure
from tasks.assess.certify import Answered, certify
from tasks.curate.label_suspects import ALPHA

SETS = {
    "banking77": ("banking77/train.csv", "text", "category"),
    "bitext": ("bitext_support/bitext_support_training_2023-08-18.csv", "instruction", "intent"),
}
"""Set -> file, column of the question, column of the label."""
N_PLANNING = 500
N_RESAMPLINGS = 1000
SIZES, TARGETS = (200, 500, 1000), (0.9, 0.95, 0.98)
BAR_SIZE, BAR_TARGET = 1000, 0.95
BAR_MISSED, BAR_COVERAGE = 0.05, 0.79
CONFIDENCE = 0.95
BAR_REVIEWED = {
    "banking77": {"left_out": 0.55, "languages": 0.90, "gibberish": 0.95},
    "bitext": {"left_out": 0.10, "languages": 0.85, "gibberish": 0.70},
}
"""Least share of tickets out of scope that the certified threshold sends to review; set after the first measurement."""
OUTSIDE = (
    f"Tickets that no label fits: share that goes to review at a target of {BAR_TARGET}, {BAR_SIZE} for calibration."
)
OUTSIDE_NAMES = ["set", "rule", "coverage", "accuracy", "left-out classes", "other languages", "gibberish"]


@dataclass(frozen=True)
class Found:
    """One way to choose a threshold, over all resamplings; shares 0-1."""

    missed: float
    """Resamplings whose threshold keeps less than the target on the population."""
    coverage: float
    """Mean share of the population that is routed; 0 where nothing is certified."""
    nothing: float
    """Resamplings without a threshold."""


def main() -> None:
    """Resample every setting of both sets."""
    bench = Bench.begin("abstain", "scikit-learn", "scipy", "numpy")
    data = Path(os.environ.get("TUNEGATE_DATA") or PROJECT.parent / "shared" / "data")
    if not all((data / path).exists() for path, _, _ in SETS.values()):
        sys.exit(f"abstain: the sets {', '.join(SETS)} are not below {data}; set TUNEGATE_DATA")
    figures: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    outside: dict[str, dict[str, dict[str, float]]] = {}
    rows: list[list[object]] = []
    outside_rows: list[list[object]] = []
    head: list[str] = []
    setting = Setting(N_PLANNING, BAR_SIZE, BAR_TARGET, CONFIDENCE, fit, naive_threshold)
    for name, (path, text, label) in SETS.items():
        questions = read_set(data / path, text, label)
        planning, population = answered(*questions)
        head.append(f"{name}: {len(population):,} questions, {population.right.mean():.1%} of them answered rightly")
        figures[name] = {}
        for target in (BAR_TARGET,) if bench.quick else TARGETS:
            for size in (BAR_SIZE,) if bench.quick else SIZES:
                report(f"{name}, target {target}, {size} calibration questions")
                found = resample(planning, population, size=size, target=target)
                figures[name][f"{target}/{size}"] = {way: each.__dict__ for way, each in found.items()}
                rows += [
                    [name, target, size, way, f"{each.missed:.3f}", f"{each.coverage:.3f}", f"{each.nothing:.3f}"]
                    for way, each in found.items()
                ]
        report(f"{name}, out of scope")
        outside[name] = measure(questions, data, setting, n_parts=1 if bench.quick else N_PARTS)
        outside_rows += [
            [name, rule, *(f"{each:.3f}" for each in found.values())] for rule, found in outside[name].items()
        ]
    certified = [each["certified"] for settings in figures.values() for each in settings.values()]
    violations = max(each["missed"] for each in certified)
    coverage = figures["banking77"][f"{BAR_TARGET}/{BAR_SIZE}"]["certified"]["coverage"]
    reviewed = all(
        outside[name]["certified"][group] >= least
        for name, bars in BAR_REVIEWED.items()
        for group, least in bars.items()
    )
    last = {
        "violations": violations,
        "coverage_1000": coverage,
        "within_bar": violations <= BAR_MISSED and coverage >= BAR_COVERAGE and reviewed,
        "n_resamplings": N_RESAMPLINGS,
        "sets": figures,
        "out_of_scope": outside,
    }
    names = ["set", "target", "calibration", "threshold", "target missed", "coverage", "nothing certified"]
    body = f"{table(names, rows)}\n\n{OUTSIDE}\n\n{table(OUTSIDE_NAMES, outside_rows)}"
    bench.finish("Route or review", body, last, head="; ".join(head) + ".")


def read_set(path: Path, text: str, label: str) -> tuple[list[str], list[str]]:
    """Questions and labels in an order that is always the same."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    random.Random(0).shuffle(rows)  # noqa: S311 (a draw, not a secret)
    return [row[text] for row in rows], [row[label] for row in rows]


def answered(texts: Sequence[str], labels: Sequence[str]) -> tuple[Answered, Answered]:
    """Planning questions and population, answered by a logistic regression over TF-IDF of words and characters.

    The probability of its label is the confidence. The regression is fitted as in `label_check`.
    """
    n_train = round(0.6 * len(texts))
    features, model = fit(texts[:n_train], labels[:n_train])
    probabilities = model.predict_proba(features.transform(texts[n_train:]))
    confidence = probabilities.max(axis=1)
    right = model.classes_[probabilities.argmax(axis=1)] == np.array(labels[n_train:])
    return (
        Answered(confidence[:N_PLANNING], right[:N_PLANNING]),
        Answered(confidence[N_PLANNING:], right[N_PLANNING:]),
    )


def fit(texts: Sequence[str], labels: Sequence[str]) -> tuple[Any, Any]:
    """Features and classifier that learned these questions."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_union

    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    model = SGDClassifier(loss="log_loss", alpha=ALPHA, max_iter=10, tol=None, random_state=0)
    model.fit(features.fit_transform(texts), labels)
    return features, model


def resample(planning: Answered, population: Answered, *, size: int, target: float) -> dict[str, Found]:
    """Choose a threshold both ways on each resampling."""
    draw = np.random.default_rng(0)
    chosen: dict[str, list[float | None]] = {"certified": [], "naive": []}
    for _ in range(N_RESAMPLINGS):
        rows = draw.integers(0, len(population), size)
        calibration = Answered(population.confidence[rows], population.right[rows])
        chosen["certified"].append(certify(planning, calibration, target=target, confidence=CONFIDENCE).threshold)
        chosen["naive"].append(naive_threshold(calibration, target))
    return {way: summary(thresholds, population, target) for way, thresholds in chosen.items()}


def naive_threshold(calibration: Answered, target: float) -> float | None:
    """The lowest confidence at which the calibration questions at it or above keep the target."""
    falling = np.argsort(-calibration.confidence, kind="stable")
    share = np.cumsum(calibration.right[falling]) / np.arange(1, len(calibration) + 1)
    kept = np.nonzero(share >= target)[0]
    return float(calibration.confidence[falling][kept[-1]]) if len(kept) else None


def summary(thresholds: Sequence[float | None], population: Answered, target: float) -> Found:
    """Count on the population what the thresholds keep."""
    missed, covered = 0, 0.0
    for threshold in thresholds:
        if threshold is not None:
            routed = population.confidence >= threshold
            missed += bool(population.right[routed].mean() < target)
            covered += float(routed.mean())
    n = len(thresholds)
    return Found(missed / n, round(covered / n, 4), sum(each is None for each in thresholds) / n)


if __name__ == "__main__":
    main()
