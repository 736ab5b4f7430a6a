"""Whether labels can be learned from the text, and whether a count of words is enough: a probe before any training.

The classifier of the arm `tfidf` (`tasks/assess/baselines.py`), cross-validated on a sample in a second. Only counts
leave this module, never a text or a label.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import DataError
from schemas.gates import MAX_MARGIN
from tasks.assess.retrieval import fit_labels, fit_words, question_text
from tasks.assess.wrong_references import WrongShare, count_contradicted, share_of_labels
from tasks.curate.split_placing import owners_of

MAX_TICKETS = 1_500
"""Tickets of a probe."""
MIN_TICKETS = 50
"""Tickets below which a probe says nothing."""
MAX_CHARACTERS = 600
"""Of a text: the first ones, so that long texts take no longer than two seconds."""
N_FOLDS = 4
"""Parts of the tickets; each is judged by a classifier that learned from the others."""
_ERRORS = 2.0
"""Standard errors by which a classifier must be right more often than the commonest label."""
_SEED = 0
Folds = NDArray[np.int64]


@dataclass(frozen=True)
class Probe:
    """How often a classifier that has not seen a ticket names its label."""

    n_tickets: int
    n_labels: int
    right: float
    """Share of the tickets, 0-1."""
    majority: float
    """Share of the commonest label, 0-1."""
    n_sure: int = 0
    """Tickets of which the classifier is surest; of these labels it contradicts `n_contradicted`."""
    n_contradicted: int = 0

    @property
    def is_predictable(self) -> bool:
        """Whether the text says more of the label than that one is the commonest."""
        error = math.sqrt(self.majority * (1 - self.majority) / self.n_tickets)
        return self.right > self.majority + _ERRORS * error

    @property
    def gain(self) -> float:
        """Share of what the commonest label gets wrong that the classifier gets right; at most 1."""
        return (self.right - self.majority) / (1 - self.majority) if self.majority < 1 else 0.0

    @property
    def is_enough(self) -> bool:
        """Whether a model can gain no more than the smallest loss that the usual gate looks for."""
        return self.is_predictable and self.right >= 1 - MAX_MARGIN

    @property
    def wrong(self) -> WrongShare | None:
        """Estimated share of wrong labels; None with too few tickets, or if the text says nothing of the label."""
        return share_of_labels(self.n_sure, self.n_contradicted) if self.is_predictable else None

    @property
    def figures(self) -> str:
        """In a few words."""
        return f"TF-IDF is right in {self.right:.2f}, the commonest label in {self.majority:.2f}"

    def finding(self, label: str) -> str:
        """What a user should know before a training; empty where a model has something to gain."""
        if self.is_enough:
            return (
                f"TF-IDF already reaches {self.right:.2f} of these labels ({label}; the commonest has "
                f"{self.majority:.2f}): routing needs no language model"
            )
        if self.is_predictable:
            return ""
        return (
            f"{label} is not predictable from the text: TF-IDF reaches {self.right:.2f} against a majority of "
            f"{self.majority:.2f}, in {self.n_tickets:,} tickets"
        )


def probe_labels(tickets: pa.Table, labels: Mapping[str, Sequence[str | None]]) -> dict[str, Probe]:
    """Cross-validate a classifier of each of these labels; a label that too few tickets have gets no probe.

    Tickets of one customer or thread are judged by classifiers that learned from none of them, and of texts that differ
    only in numbers and case one counts.

    Args:
        tickets: Columns `subject` and `body`, and `customer_id` and `thread_id` if there are such.
        labels: Name -> label of each ticket, null or empty for none.
    """
    texts = [question_text(row)[:MAX_CHARACTERS] for row in tickets.select(["subject", "body"]).to_pylist()]
    rows = _sample(texts)
    if len(rows) < MIN_TICKETS:
        return {}
    try:
        _, features = fit_words([texts[row] for row in rows])
    except DataError:  # texts without a word
        return {}
    folds = _folds(tickets.take(rows))
    found = {}
    for name, values in labels.items():
        known = np.array([index for index, row in enumerate(rows) if values[row]], np.int64)
        named = np.array([str(values[rows[index]]) for index in known])
        if len(known) >= MIN_TICKETS and len(set(named.tolist())) > 1:
            found[name] = _probe(features[known], named, folds[known])
    return found


def _sample(texts: Sequence[str]) -> list[int]:
    """The rows to read: one of each text, spread over all."""
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(" ".join(re.sub(r"\d+", "0", text.casefold()).split()), row)
    rows = [row for form, row in first.items() if form]
    spread = sorted(rows, key=lambda row: crc32(b"%d" % row))[:MAX_TICKETS]
    return sorted(spread)


def _folds(tickets: pa.Table) -> Folds:
    """The fold of each ticket: that of its customer and thread, the largest groups first, each in the smallest fold."""
    names = [name for name in ("customer_id", "thread_id") if name in tickets.column_names]
    ids = pa.array(map(str, range(tickets.num_rows)))
    columns = {"ticket_id": ids, **{name: pc.cast(tickets[name], pa.string()) for name in names}}
    owners = owners_of(pa.table(columns), names)
    group = owners.connect(np.ones(tickets.num_rows, np.bool_))[owners.first]
    sizes = Counter(group.tolist())
    if max(sizes.values()) > tickets.num_rows / 2:  # one customer, as of a shared address, has nearly all
        group, sizes = np.arange(tickets.num_rows, dtype=np.int64), Counter(range(tickets.num_rows))
    filled = [0] * N_FOLDS
    fold_of: dict[int, int] = {}
    for each, size in sorted(sizes.items(), key=lambda pair: (-pair[1], crc32(b"%d" % pair[0]))):
        fold_of[each] = min(range(N_FOLDS), key=filled.__getitem__)
        filled[fold_of[each]] += size
    return np.array([fold_of[each] for each in group.tolist()], np.int64)


def _probe(features: Any, labels: NDArray[np.str_], folds: Folds) -> Probe:
    agrees, confidence = np.zeros(len(labels), np.bool_), np.zeros(len(labels))
    for fold in range(N_FOLDS):
        learned, judged = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if not len(learned) or not len(judged):
            continue
        known: list[str] = labels[learned].tolist()
        if len(set(known)) == 1:
            agrees[judged] = labels[judged] == known[0]
            continue
        classifier = fit_labels(features[learned], known, seed=_SEED)
        scores = classifier.decision_function(features[judged])
        if scores.ndim == 1:  # two labels
            scores = np.stack([-scores, scores], axis=1)
        ordered = np.sort(scores, axis=1)
        confidence[judged] = ordered[:, -1] - ordered[:, -2]
        agrees[judged] = classifier.classes_[scores.argmax(axis=1)] == labels[judged]
    n_sure, n_contradicted = count_contradicted(confidence, agrees)
    counts = Counter(labels.tolist())
    return Probe(
        n_tickets=len(labels),
        n_labels=len(counts),
        right=float(agrees.mean()),
        majority=max(counts.values()) / len(labels),
        n_sure=n_sure,
        n_contradicted=n_contradicted,
    )
