"""Find labels that a classifier which has not seen the ticket holds for unlikely, and list them.

Confident learning decides which of them are errors. Source: Northcutt, Jiang, Chuang, "Confident Learning: Estimating
Uncertainty in Dataset Labels", JAIR 2021; cleanlab is its implementation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.curation_steps import LabelCheckStep
from tasks.curate.label_conflicts import Findings
from tasks.curate.rows import read_batches, read_columns
from tasks.curate.similarity.shingles import BATCH_ROWS, ShingleSets, shingle_sets

CODE = "label_suspect"
N_FOLDS = 5
"""Parts of the tickets; each is judged by a classifier that learned from the others."""
MAX_LEARNED = 20_000
"""Tickets that the classifiers learn from. All tickets are judged."""
MIN_OF_CLASS = 200
"""Tickets of each label that are among them, where there are as many."""
NEWER_SHARE = 4
"""Known tickets for each newer one that the classifiers learn from."""
MAX_FEATURES = 50_000
"""Words and pairs of words that count: the commonest in the tickets learned from."""
ALPHA, N_EPOCHS = 3e-5, 5
"""Regularisation and passes of the gradient descent. On banking77 the classifiers are right as often as by a full
logistic regression (.878 and .879 of the unchanged labels) in a quarter of its time."""
_NOTHING = np.uint64(0)
Probabilities = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class _Classes:
    """The labels that can be checked."""

    names: list[str]
    labels: Labels
    """Per ticket its class, or -1 where it has no label, no word, or a label of fewer than `N_FOLDS` questions."""
    rank: NDArray[np.int64]
    """Per ticket the number of its question among those of its class. Copies of a question share it, so that a
    classifier never judges a ticket whose copy it has learned from."""


def find_suspects(tickets: Path, step: LabelCheckStep, out: Path) -> Findings:
    """Judge each label by a classifier of the other tickets, and write `label_suspects.parquet`.

    The classifier is a logistic regression over words and pairs of words of subject and body, each weighted by its
    rarity. `label_conflict` is 1 for suspects, else 0. Unchecked are tickets without a label or a word, and labels of
    fewer than `N_FOLDS` different questions.

    `label_suspects.parquet`: ticket_id, field, value, confidence (probability of this value), suggested (the likeliest
    value), suggested_confidence; the least likely value first.
    """
    table = read_columns(tickets, ("ticket_id", step.field))
    judged = judge_labels((tickets,), table[step.field])
    listed = judged.listed(table.rename_columns(["ticket_id", "value"]))
    field = pa.repeat(pa.scalar(step.field), listed.num_rows)
    pq.write_table(listed.add_column(1, "field", field), out / "label_suspects.parquet", compression="zstd")
    suspects = np.zeros(table.num_rows, bool)
    suspects[judged.rows] = judged.suspects
    notes = {"label_suspects": listed.num_rows, "unchecked_labels": table.num_rows - len(judged.rows)}
    return Findings(_per_ticket(suspects, step), CODE, notes)


@dataclass(frozen=True)
class JudgedLabels:
    """What a classifier of the other tickets says of each label that could be checked."""

    names: tuple[str, ...]
    """The labels, in the order of their numbers."""
    rows: NDArray[np.int64]
    """Places of the checked tickets."""
    labels: Labels
    """Of each of them, the number of its label."""
    probabilities: Probabilities
    """(rows, labels)"""
    suspects: NDArray[np.bool_]
    """Of each of them, whether its label is likely to be wrong."""

    def certainty(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """How much likelier the first label of each checked ticket is than the second, and whether it is its own."""
        if self.probabilities.shape[1] < 2:
            return np.zeros(0), np.zeros(0, np.bool_)
        ordered = np.sort(self.probabilities, axis=1).astype(np.float64)
        return ordered[:, -1] - ordered[:, -2], self.probabilities.argmax(axis=1) == self.labels

    def listed(self, tickets: pa.Table) -> pa.Table:
        """Return the rows of the suspects, the least likely label first, then by ticket_id.

        Further columns: confidence (probability of the label), suggested (the likeliest label), suggested_confidence.
        """
        places = np.flatnonzero(self.suspects)
        probabilities = self.probabilities[places]
        likeliest = probabilities.argmax(axis=1) if len(places) else places
        added = {
            "confidence": _share(probabilities, self.labels[places]),
            "suggested": pa.array(self.names, pa.string()).take(pa.array(likeliest)),
            "suggested_confidence": _share(probabilities, likeliest),
        }
        table = tickets.take(self.rows[places])
        for name, values in added.items():
            table = table.append_column(name, pa.array(values))
        return table.sort_by([("confidence", "ascending"), ("ticket_id", "ascending")])


def _share(probabilities: Probabilities, classes: Labels) -> NDArray[np.float64]:
    return probabilities[np.arange(len(classes)), classes].astype(np.float64).round(6)


def judge_labels(
    tickets: Sequence[Path], values: pa.ChunkedArray, *, newer: NDArray[np.bool_] | None = None
) -> JudgedLabels:
    """Judge each label by a classifier that has not seen its ticket.

    Args:
        tickets: Files of ticket tables, one after the other.
        values: Label of each of their rows.
        newer: Tickets whose labels are less certain than the others': the classifier learns from at most a quarter as
            many of them, unless that leaves it fewer than two labels to learn.
    """
    words, pairs = (_word_runs(tickets, n) for n in (1, 2))
    classes = _classes_of(values, words.keys)
    rows = np.flatnonzero(classes.labels >= 0)
    labels, rank = classes.labels[rows], classes.rank[rows]
    probabilities = np.zeros((len(rows), len(classes.names)), np.float32)
    suspects = np.zeros(len(rows), bool)
    if len(classes.names) > 1:
        learned = choose_learned(labels, rank, newer=None if newer is None else newer[rows])
        probabilities = _out_of_fold((words.take(rows), pairs.take(rows)), labels, rank, learned)
        suspects = find_label_errors(probabilities, labels)
    return JudgedLabels(tuple(classes.names), rows, labels, probabilities, suspects)


def _per_ticket(suspects: NDArray[np.bool_], step: LabelCheckStep) -> pa.Table:
    drops = pa.array(suspects & (step.action != "flag"))
    nothing = pa.scalar(None, pa.string())
    reason = f"a classifier of the other tickets finds the {step.field} unlikely"
    return pa.table(
        {
            "label_conflict": suspects.astype(np.int64),
            "code": pc.if_else(drops, pa.scalar(CODE), nothing),
            "reason": pc.if_else(drops, pa.scalar(reason), nothing),
            "cluster_id": pa.nulls(len(suspects), pa.string()),
        }
    )


def _word_runs(tickets: Sequence[Path], n_words: int) -> ShingleSets:
    """The distinct runs of `n_words` words in each question."""

    def text_of(batch: pa.RecordBatch) -> pa.Array:
        texts = [pc.fill_null(column, "").cast(pa.large_string()) for column in batch.columns]
        return pc.binary_join_element_wise(*texts, pa.scalar(" ", pa.large_string()))

    return shingle_sets(_batches(tickets), n_words=n_words, text_of=text_of)


def _batches(tickets: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    for path in tickets:
        for group in read_batches(path, ("subject", "body")):
            yield from group.to_batches(max_chunksize=BATCH_ROWS)


def _classes_of(values: pa.ChunkedArray, keys: Any) -> _Classes:
    """Number the labels in alphabetical order, and the questions of each by their keys."""
    names = pc.unique(values).drop_null().sort()
    labels = pc.fill_null(pc.index_in(values, value_set=names), -1).to_numpy().astype(np.int64)
    labels[(keys == _NOTHING).all(axis=1)] = -1
    order = np.lexsort((keys[:, 1], keys[:, 0], labels))
    same_class = np.diff(labels[order], prepend=-2) == 0
    same = same_class & (np.diff(keys[order], axis=0, prepend=keys[:1]) == _NOTHING).all(axis=1)
    number = np.cumsum(~same)
    first_of_class = np.maximum.accumulate(np.where(same_class, 0, number))
    rank = np.empty(len(labels), np.int64)
    rank[order] = number - first_of_class
    n_questions = np.zeros(len(names) + 1, np.int64)
    np.maximum.at(n_questions, labels, rank + 1)
    kept = np.flatnonzero(n_questions[: len(names)] >= N_FOLDS)
    new_number = np.full(len(names) + 1, -1, np.int64)
    new_number[kept] = np.arange(len(kept))
    return _Classes(names.take(pa.array(kept)).to_pylist(), new_number[labels], rank)


def choose_learned(
    labels: Labels, rank: NDArray[np.int64], *, newer: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Return the rows to learn from: of each class the questions of lowest rank, in proportion but for small classes.

    Args:
        labels: (rows,) class of each row.
        rank: (rows,) number of its question in the class.
        newer: Of these at most a quarter as many as of the others, in proportion, whatever their labels. They count as
            the others where that leaves some fold fewer than two classes to learn.
    """
    if newer is None:
        counts, place = np.bincount(labels), _place_in_class(labels, rank)
        quota = np.ceil(counts * min(1.0, MAX_LEARNED / max(1, len(labels))))
        return np.flatnonzero(place < np.maximum(quota, np.minimum(counts, MIN_OF_CLASS))[labels])
    old, new = np.flatnonzero(~newer), np.flatnonzero(newer)
    known = old[choose_learned(labels[old], rank[old])]
    # Each class gets its share of the limit, rounded to the nearest (the method of Webster), and never more in all.
    part = (_place_in_class(labels[new], rank[new]) + 0.5) / np.bincount(labels[new])[labels[new]]
    some = new[np.lexsort((labels[new], part))[: len(known) // NEWER_SHARE]]
    chosen = np.sort(np.concatenate([known, some]))
    in_folds = np.unique(labels[chosen] * N_FOLDS + rank[chosen] % N_FOLDS) // N_FOLDS
    return chosen if (np.bincount(in_folds) > 1).sum() > 1 else choose_learned(labels, rank)


def _place_in_class(labels: Labels, rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the rows of each class in the order of their ranks, from 0."""
    order, counts = np.lexsort((rank, labels)), np.bincount(labels)
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels[order]]
    return place


@dataclass(frozen=True)
class _Vocabulary:
    """The words and pairs of words that count."""

    hashes: Any
    """uint64, ascending."""
    rarities: Any
    """float32: ln((1 + N) / (1 + df)) + 1, N tickets learned from, df those that hold it."""

    def features(self, sets: Sequence[ShingleSets]) -> Any:
        """Return the rarities of what each text holds, scaled to length 1, as a scipy matrix (texts, features)."""
        from scipy.sparse import csr_matrix
        from sklearn.preprocessing import normalize

        rows, columns = [], []
        for each in sets:
            hashes = _hashes(each)
            places = np.minimum(np.searchsorted(self.hashes, hashes), max(len(self.hashes) - 1, 0))
            known = self.hashes[places] == hashes if len(self.hashes) else np.zeros(len(hashes), bool)
            rows.append(np.repeat(np.arange(len(each), dtype=np.int32), each.sizes)[known])
            columns.append(places[known].astype(np.int32))
        row, column = np.concatenate(rows), np.concatenate(columns)
        shape = (len(sets[0]), len(self.hashes))
        matrix = csr_matrix((self.rarities[column], (row, column)), shape=shape, dtype=np.float32)
        return normalize(matrix, copy=False)


def _learn_vocabulary(sets: Sequence[ShingleSets]) -> _Vocabulary:
    """Take what at least two texts hold, at most the `MAX_FEATURES` commonest."""
    hashes, frequencies = np.unique(np.concatenate([_hashes(each) for each in sets]), return_counts=True)
    hashes, frequencies = hashes[frequencies > 1], frequencies[frequencies > 1]
    commonest = np.sort(np.argsort(-frequencies, kind="stable")[:MAX_FEATURES])
    rarities = np.log((1 + len(sets[0])) / (1 + frequencies[commonest])) + 1
    return _Vocabulary(hashes[commonest], rarities.astype(np.float32))


def _hashes(sets: ShingleSets) -> Any:
    """Return the hashes of these texts, text by text."""
    n_hashes = int(sets.sizes.sum(dtype=np.int64))
    ends = np.cumsum(sets.sizes, dtype=np.int64)
    return sets.hashes[np.arange(n_hashes) + np.repeat(sets.starts - (ends - sets.sizes), sets.sizes)]


def _out_of_fold(
    sets: Sequence[ShingleSets], labels: Labels, rank: NDArray[np.int64], learned: NDArray[np.int64]
) -> Probabilities:
    """Return the probabilities of all classes for each text, by a classifier that has not learned from its fold."""
    from sklearn.linear_model import SGDClassifier

    folds = rank % N_FOLDS
    some = [each.take(learned) for each in sets]
    vocabulary = _learn_vocabulary(some)
    features = vocabulary.features(some)
    models = []
    for fold in range(N_FOLDS):
        others = folds[learned] != fold
        model = SGDClassifier(loss="log_loss", alpha=ALPHA, max_iter=N_EPOCHS, tol=None, random_state=0)
        models.append(model.fit(features[others], labels[learned][others]))
    probabilities = np.zeros((len(labels), int(labels.max()) + 1), np.float32)
    # In batches: the features of all texts would take several times the memory of their hashes.
    for start in range(0, len(labels), BATCH_ROWS):
        texts = np.arange(start, min(start + BATCH_ROWS, len(labels)))
        features = vocabulary.features([each.take(texts) for each in sets])
        for fold, model in enumerate(models):
            mine = folds[texts] == fold
            if mine.any():
                # A label of few newer tickets may be in none of the other folds.
                probabilities[np.ix_(texts[mine], model.classes_)] = model.predict_proba(features[mine])
    return probabilities


def find_label_errors(probabilities: Probabilities, labels: Labels) -> NDArray[np.bool_]:
    """Return which rows are likely to have a wrong label.

    A row counts as a confident member of the likeliest class whose threshold its probability reaches; the threshold of
    a class is the mean probability of the class over the rows labelled with it, so a classifier that is unsure of a
    class does not fill or empty it. The rows that are confident members of another class than their label estimate the
    number of errors. That many rows are returned: those whose own label is least likely next to the likeliest one.

    cleanlab's default ranks by the difference of the two probabilities, per pair of classes. On banking77 with 3 %
    flipped labels, the list that has 80 % of the flips has precision .54 by the difference and .94 by the ratio.

    Args:
        probabilities: (rows, classes), each row from a classifier that has not seen it.
        labels: (rows,) class of each row.
    """
    rows = np.arange(len(labels))
    likeliest = probabilities.max(axis=1)
    ratio = probabilities[rows, labels] / np.maximum(likeliest, np.finfo(np.float32).tiny)
    errors = np.zeros(len(labels), bool)
    errors[np.argsort(ratio, kind="stable")[: _count_errors(probabilities, labels)]] = True
    # A label that is the likeliest one is never an error.
    suspects: NDArray[np.bool_] = errors & (ratio < 1)
    return suspects


def _count_errors(probabilities: Probabilities, labels: Labels) -> int:
    n_classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=n_classes)
    own = probabilities[np.arange(len(labels)), labels]
    thresholds = np.bincount(labels, weights=own, minlength=n_classes) / np.maximum(counts, 1)
    thresholds[counts == 0] = np.inf  # a class without rows has no members
    joint = _confident_joint(probabilities, labels, thresholds)
    members = joint.sum(axis=1)
    wrong = members - joint.diagonal()
    # Many rows (a third on banking77) are no confident member of any class. Counting no errors among them finds too
    # few, counting as many as among the others (as cleanlab does) too many where classes are hard to tell apart: with
    # 3 % flipped labels precision and recall are .82 and .89 or .55 and .97 on banking77, 1.0 and .75 or .97 and .95 on
    # Bitext. Half as many is between them on both.
    return round(float((wrong + counts * wrong / members).sum() / 2))


def _confident_joint(probabilities: Probabilities, labels: Labels, thresholds: Any) -> NDArray[np.int64]:
    """Rows by given label and by the class that they are confident members of; (classes, classes)."""
    n_classes = probabilities.shape[1]
    reached = np.where(probabilities >= thresholds - 1e-6, probabilities, -1.0)
    confident = reached.argmax(axis=1)
    members = reached.max(axis=1) >= 0
    pairs = labels[members] * n_classes + confident[members]
    joint = np.bincount(pairs, minlength=n_classes * n_classes).reshape(n_classes, n_classes)
    # A class without a confident member of its own keeps its rows.
    joint[np.arange(n_classes), np.arange(n_classes)] = np.maximum(joint.diagonal(), 1)
    return joint
