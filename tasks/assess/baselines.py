"""Baselines that need no language model: predict the routing field by majority class, or by TF-IDF and regression.

They take seconds and learn only from train. Called by `flows/assess.py`.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from schemas.artifacts import EvalSet, Scores, Splits
from schemas.errors import DataError
from tasks.assess.retrieval import fit_words, question_text
from tasks.assess.score import write_scores
from tasks.step import as_step


@as_step("classifier", libraries=("scikit-learn", "numpy", "pyarrow"))
def score_classifier(
    out: Path, *, items: EvalSet, splits: Splits, arm: Literal["majority", "tfidf"], field: str, seed: int
) -> Scores:
    """Predict `field` of every item and write the scores of the single metric `field_<field>`.

    `majority` predicts train's most common value (of equals, the first in the alphabet). `tfidf` is a multinomial
    logistic regression on words and word pairs of subject and body, with logarithmic counts. An item whose field is
    null is never right.

    Raises:
        DataError: TG0221, no train row has the field, or train has no words to learn from.
    """
    rows: list[dict[str, Any]] = pq.read_table(
        items.root / "items.parquet", columns=["item_id", "subject", "body", field]
    ).to_pylist()
    train: list[dict[str, Any]] = pq.read_table(splits.train, columns=["subject", "body", field]).to_pylist()
    train = [row for row in train if row[field] is not None]
    if not train:
        raise DataError(
            f"no train row has a {field} to learn from",
            code="TG0221",
            where=str(splits.train),
            hint="set evaluate.routing_field to a column the source fills, or to null",
        )
    labels = [str(row[field]) for row in train]
    if arm == "majority" or len(set(labels)) == 1:
        counts = Counter(labels)
        predicted = [min(counts, key=lambda value: (-counts[value], value))] * len(rows)
    else:
        predicted = _predict(
            [question_text(row) for row in train], labels, [question_text(row) for row in rows], seed=seed
        )
    metric = f"field_{field}"
    scored = [
        (str(row["item_id"]), {metric: float(row[field] is not None and str(row[field]) == guess)})
        for row, guess in zip(rows, predicted, strict=True)
    ]
    return write_scores(scored, metrics=(metric,), slices=(), arm=arm, out=out)


def _predict(texts: Sequence[str], labels: Sequence[str], questions: Sequence[str], *, seed: int) -> list[str]:
    from sklearn.linear_model import LogisticRegression

    vectorizer, features = fit_words(texts)
    model = LogisticRegression(C=10.0, max_iter=2000, random_state=seed)
    model.fit(features, labels)
    return [str(value) for value in model.predict(vectorizer.transform(questions))]
