"""Find the nearest train tickets of each held-out item, as examples for its prompt.

TF-IDF and cosine similarity by scikit-learn, learnt only from train.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from schemas.artifacts import Splits
from schemas.errors import DataError

BATCH_ROWS = 2_000
BLOCK_ITEMS = 64
"""Items compared with all of train at once: 51 MB for 100,000 tickets."""


@dataclass(frozen=True)
class _Candidate:
    ticket_id: str
    question: str
    text: str


def nearest_examples(
    items: Sequence[Mapping[str, Any]],
    splits: Splits,
    *,
    n_examples: int,
    question: Callable[[dict[str, Any]], str],
    answered: Callable[[dict[str, Any]], bool],
) -> dict[str, list[dict[str, Any]]]:
    """Item id -> its `n_examples` most similar train tickets, the most similar last, next to the question.

    Excluded: held-out tickets, tickets with the question of an item or of a nearer ticket, and tickets without an
    answer. Of equally similar tickets, the first by id.

    Args:
        question: Returns a ticket's normalised question: equal texts are the same question.
        answered: Returns whether the ticket has an answer.

    Raises:
        DataError: TG0221, too few tickets are suitable, or train has no words.
    """
    known = {str(row["item_id"]) for row in items}
    questions = {question(dict(row)) for row in items}
    candidates: dict[str, _Candidate] = {}
    for batch in pq.ParquetFile(splits.train).iter_batches(BATCH_ROWS):
        for row in batch.to_pylist():
            if row["ticket_id"] not in known and answered(row) and (words := question(row)) not in questions:
                candidates[row["ticket_id"]] = _Candidate(row["ticket_id"], words, question_text(row))
    pool = [candidates[ticket_id] for ticket_id in sorted(candidates)]
    n_questions = len({candidate.question for candidate in pool})
    if n_questions < n_examples:
        raise DataError(
            f"retrieval prompts need {n_examples} examples, and only {n_questions} train questions are suitable",
            code="TG0221",
            where=str(splits.train),
            hint="lower evaluate.few_shot_examples, or remove retrieval from evaluate.arms",
        )
    nearest = _nearest(pool, [question_text(row) for row in items], n_examples)
    wanted = sorted({ticket_id for ids in nearest for ticket_id in ids})
    rows = pq.read_table(splits.train, filters=[("ticket_id", "in", wanted)]).to_pylist()
    by_id: dict[str, dict[str, Any]] = {row["ticket_id"]: row for row in rows}
    return {
        str(item["item_id"]): [by_id[ticket_id] for ticket_id in reversed(ids)]
        for item, ids in zip(items, nearest, strict=True)
    }


def question_text(row: Mapping[str, Any]) -> str:
    """Subject and body."""
    return f"{row['subject'] or ''}\n{row['body'] or ''}"


def fit_words(texts: Sequence[str]) -> tuple[Any, Any]:
    """A TF-IDF vectorizer of words and word pairs with logarithmic counts, and the texts as its vectors.

    Raises:
        DataError: TG0221, the texts have no words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=100_000)
    try:
        return vectorizer, vectorizer.fit_transform(texts)
    except ValueError:
        raise DataError("subject and body of train have no words to learn from", code="TG0221") from None


def fit_labels(features: Any, labels: Sequence[str], *, seed: int) -> Any:
    """A linear support vector machine over the vectors of `fit_words`; at least two labels.

    On few examples it is right more often than a logistic regression, on thousands as often, in a tenth of its time.
    """
    from sklearn.svm import LinearSVC

    return LinearSVC(random_state=seed).fit(features, labels)


def _nearest(pool: Sequence[_Candidate], texts: Sequence[str], n_examples: int) -> list[list[str]]:
    """Ticket ids per text, the most similar first."""
    vectorizer, train = fit_words([candidate.text for candidate in pool])
    found: list[list[str]] = []
    for start in range(0, len(texts), BLOCK_ITEMS):
        block = vectorizer.transform(texts[start : start + BLOCK_ITEMS])
        # Rounded: the last digits of sums depend on the order in which a library adds.
        for similarity in np.round((block @ train.T).toarray(), 9):
            ids: list[str] = []
            seen: set[str] = set()
            for index in np.argsort(-similarity, kind="stable"):  # the pool is ordered by id
                candidate = pool[int(index)]
                if candidate.question not in seen:
                    seen.add(candidate.question)
                    ids.append(candidate.ticket_id)
                if len(ids) == n_examples:
                    break
            found.append(ids)
    return found
