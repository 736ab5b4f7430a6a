"""Baselines that need no language model: predict the routing field by majority class, or by TF-IDF and a classifier.

They take seconds and learn only from train.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from schemas.artifacts import DatasetRef, EvalSet, Scores, Splits
from schemas.errors import DataError
from schemas.spec import Spec
from schemas.template import PASSAGES, template_columns
from tasks.assess.fields import FieldPattern, score_whole
from tasks.assess.retrieval import fit_labels, fit_words, question_text
from tasks.assess.score import write_scores
from tasks.step import as_step
from tasks.tickets.encoded import encoded_ids
from tasks.tickets.prompts import render_text


class ClassifierSpec(Spec):
    """Which classifier predicts what, and what it answers."""

    arm: Literal["majority", "tfidf", "tfidf_examples"]
    """majority: train's most common value (of equals, the first in the alphabet). tfidf and tfidf_examples: a
    linear classifier (`fit_labels`) of words and word pairs of subject and body, with logarithmic counts."""
    field: str
    """The ticket column that is predicted."""
    seed: int
    answer: str = ""
    """Template of the answers, if they have the field. The classifier then answers with the most common train answer of
    the predicted value, and `exact` compares that as it does any other. Empty for no answers."""
    pattern: str | None = None
    """`evaluate.fields`, which `exact` is about."""


@as_step("classifier", libraries=("scikit-learn", "numpy", "pyarrow"))
def score_classifier(
    out: Path, *, items: EvalSet, splits: Splits, classifier: ClassifierSpec, dataset: DatasetRef | None = None
) -> Scores:
    """Predict the field of every item; write the scores of `field_<field>`, and of `exact` if answers have the field.

    An item with null as field is never right.

    Args:
        dataset: Learn only from the train tickets among these examples; None learns from all.

    Raises:
        DataError: TG0221, no train row has the field, or train has no words to learn from.
    """
    field = classifier.field
    compared = FieldPattern(classifier.pattern).names if classifier.pattern else ()
    inserted = (name for name in template_columns(classifier.answer) if name != PASSAGES)
    rows = _read(items.root / "items.parquet", "item_id", "subject", "body", "answer", field, *compared)
    train = _read(splits.train, "ticket_id", "subject", "body", field, *inserted)
    taught = None if dataset is None else frozenset(encoded_ids(dataset.root / "train"))
    train = [row for row in train if row[field] is not None and (taught is None or row["ticket_id"] in taught)]
    if not train and dataset is None:
        raise DataError(
            f"no train row has a {field} to learn from",
            code="TG0221",
            where=str(splits.train),
            hint="set evaluate.routing_field to a column the source fills, or to null",
        )
    guesses = _guesses(train, rows, classifier, must_learn=dataset is None)
    answers = _answers(train, field, classifier.answer) if classifier.answer else {}
    right = f"field_{field}"
    scored: list[tuple[str, dict[str, float]]] = []
    for row, guess in zip(rows, guesses, strict=True):
        scores = {right: float(row[field] is not None and str(row[field]) == guess)}
        if classifier.answer:
            scores["exact"] = _exact(answers.get(guess, ""), row, classifier.pattern)
        scored.append((str(row["item_id"]), scores))
    metrics = (right, "exact") if classifier.answer else (right,)
    written = write_scores(scored, metrics=metrics, slices=(), arm=classifier.arm, out=out)
    return written.model_copy(update={"n_examples": len(train)})


def _read(path: Path, *columns: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path, columns=list(dict.fromkeys(columns))).to_pylist()
    return found


def _guesses(
    train: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], spec: ClassifierSpec, *, must_learn: bool
) -> list[str]:
    """The value predicted for each row; without `must_learn` a few tickets without a word leave the majority."""
    labels = [str(row[spec.field]) for row in train]
    if spec.arm != "majority" and len(set(labels)) > 1:
        try:
            return _predict([question_text(row) for row in train], labels, [question_text(row) for row in rows], spec)
        except DataError:
            if must_learn:
                raise
    return [_commonest(Counter(labels)) if labels else ""] * len(rows)


def _commonest(counts: Counter[str]) -> str:
    return min(counts, key=lambda value: (-counts[value], value))


def _answers(train: Sequence[Mapping[str, Any]], field: str, template: str) -> dict[str, str]:
    """Label -> the most common answer of its tickets: the label itself if answers have nothing else."""
    counts: dict[str, Counter[str]] = {}
    for row in train:
        counts.setdefault(str(row[field]), Counter())[render_text(template, row).strip()] += 1
    return {label: _commonest(each) for label, each in counts.items()}


def _exact(answer: str, item: Mapping[str, Any], pattern: str | None) -> float:
    scores = score_whole(answer, str(item["answer"] or "")) if pattern is None else None
    return (scores or FieldPattern(pattern or "").score(answer, item))["exact"]


def _predict(texts: Sequence[str], labels: Sequence[str], questions: Sequence[str], spec: ClassifierSpec) -> list[str]:
    vectorizer, features = fit_words(texts)
    model = fit_labels(features, labels, seed=spec.seed)
    return [str(value) for value in model.predict(vectorizer.transform(questions))]
