"""People's labels of answers: which answers need one, and the metric `right` that follows from them.

A comparison depends only on the items on which the compared arms differ: an answer that all of them gave adds the same
to each, whatever it is worth. So only answers that differ need a label, and replacing the labels of equal ones changes
no difference, bound or p-value. A label belongs to an item and an answer, not to an arm: an answer that a champion gave
again is labelled already.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from schemas.artifacts import EvalSet, Predictions, Scores
from schemas.evaluation import EvaluateSpec
from schemas.gates import GatesSpec
from schemas.metrics import RANDOM_PART, RIGHT
from schemas.template import template_columns
from tasks.assess.evidence import LABEL_IDS
from tasks.assess.fields import FieldPattern, normalised
from tasks.assess.items import extra_items
from tasks.step import as_step
from tasks.tickets.draw import hash_rank

LABELLED = "labelled"
"""The step's name: the scores of an arm with the metric `right`."""
_ID_CHARS = 24


def fill_equal(labels: ArrayLike, differs: ArrayLike) -> NDArray[np.float64]:
    """The values of `right`: the labels where the arms differ, 1 where all gave the same answer.

    Broadcasts over leading axes, so that thousands of simulated runs are one call.

    Args:
        labels: 1, 0 or NaN (no label) of each arm's answers, shape `(..., n_arms, n_items)`. Those of items on which no
            arm differs are not used.
        differs: Whether the answers of an item differ, shape `(..., n_items)`.

    >>> fill_equal([[1, 0, 0], [0, 1, 1]], [True, True, False]).tolist()
    [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    """
    chosen: NDArray[np.bool_] = np.asarray(differs, np.bool_)[..., None, :]
    return np.where(chosen, np.asarray(labels, np.float64), 1.0)


@dataclass(frozen=True)
class Question:
    """One item with answers to label."""

    item_id: str
    answers: Mapping[str, str]
    """Id of the label -> answer, once per different answer."""


def label_terms(evaluate: EvaluateSpec, answer: str) -> EvaluateSpec:
    """Return the settings by which answers are compared: without `fields` if more than these is trained.

    Equal fields do not make equal replies.

    Args:
        answer: Template of the trained answers.

    >>> routing = EvaluateSpec(fields=r"\\[(?P<category>\\w+)\\]")
    >>> [label_terms(routing, answer).fields is None for answer in ("[{category}]", "[{category}] {reply}")]
    [False, True]
    """
    more = set(template_columns(answer)) - set(evaluate.field_names())
    return evaluate.model_copy(update={"fields": None}) if more else evaluate


class AnswerKeys:
    """Decides which answers are equal, and names their labels."""

    def __init__(self, evaluate: EvaluateSpec) -> None:
        self._fields = FieldPattern(evaluate.fields) if evaluate.fields else None

    def label_of(self, item_id: str, text: str) -> str:
        """The id of the label of this answer to this item; equal answers have the same.

        Answers are equal if their declared fields are, or without fields if they are after Unicode NFC with white space
        collapsed. The id is a hash: it reveals neither ticket nor answer.
        """
        if self._fields is None:
            what = [normalised(text)]
        else:
            values = (self._fields.value_in(text, name) for name in self._fields.names)
            what = ["" if value is None else f"={value}" for value in values]
        return _label(item_id, what)

    def label_of_reference(self, item: Mapping[str, Any]) -> str | None:
        """The id of the label that an answer like the item's reference has; None without a reference."""
        if self._fields is None:
            wanted = normalised(str(item["answer"] or ""))
            return _label(item["item_id"], [wanted]) if wanted else None
        values = [item.get(name) for name in self._fields.names]
        return None if None in values else _label(item["item_id"], [f"={value}" for value in values])


def _label(item_id: str, parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join([item_id, *parts]).encode("utf-8", "surrogatepass")).hexdigest()[:_ID_CHARS]


def find_questions(
    item_ids: Sequence[str], answers: Sequence[Mapping[str, str]], evaluate: EvaluateSpec
) -> tuple[Question, ...]:
    """The items that need labels, in the order of their ids: those on which arms differ, and the random part.

    Items that an arm did not answer, because `gates.interim` stopped it, need none.

    Args:
        answers: Item id -> answer, of each compared arm.
    """
    answered = sorted(set(item_ids).intersection(*answers))
    keys, random = AnswerKeys(evaluate), random_part(answered, evaluate)
    found = []
    for item in answered:
        different = {keys.label_of(item, arm[item]): arm[item] for arm in reversed(answers)}
        if len(different) > 1 or item in random:
            found.append(Question(item, different))
    return tuple(found)


def random_part(item_ids: Sequence[str], evaluate: EvaluateSpec) -> frozenset[str]:
    """The items that are labelled whether their answers differ or not; a hash of the id chooses them."""
    ranked = sorted(item_ids, key=lambda item: hash_rank(f"{RANDOM_PART} {item}", seed=evaluate.seed))
    return frozenset(ranked[: evaluate.random_labels])


@as_step(LABELLED, libraries=("numpy", "pyarrow"))
def add_right(
    out: Path,
    *,
    scores: Scores,
    items: EvalSet,
    mine: Predictions,
    others: tuple[Predictions, ...],
    evaluate: EvaluateSpec,
    labels: Mapping[str, bool],
    with_slices: bool = False,
) -> Scores:
    """Write the arm's scores with the metric `right`; it has no mean, since equal answers are not labelled.

    An answer without a label is NaN. The ids of the labels are in `labels.parquet`, so that the gate knows which arms
    share one. Items of the random part are in the slice `labels=random`.

    Args:
        scores: All other metrics of the arm.
        mine: The arm's answers.
        others: The answers of the arms that it is compared with.
        labels: Id of a label -> whether people accept the answer.
        with_slices: Slices are guarded by `right`, so that items which only slices count need labels too.
    """
    own = read_answers(mine)
    ids = sorted(own)
    judged = sorted(own.keys() - (frozenset() if with_slices else extra_items(items)))
    keys = AnswerKeys(evaluate)
    questions = find_questions(judged, [own, *map(read_answers, others)], evaluate)
    asked = {each.item_id for each in questions}
    names = [keys.label_of(item, own[item]) for item in ids]
    given = [labels.get(name) for name in names]
    values = fill_equal(
        [[math.nan if each is None else float(each) for each in given]], np.array([item in asked for item in ids])
    )[0]
    needed = [(item, name) for item, name in zip(ids, names, strict=True) if item in asked]
    columns = {name: pa.array([row[n] for row in needed], pa.string()) for n, name in enumerate(("item_id", "label"))}
    pq.write_table(pa.table(columns), out / LABEL_IDS, compression="zstd")
    right = pa.table({"item_id": ids, "metric": [RIGHT] * len(ids), "value": pa.array(values)})
    table = pq.read_table(scores.root / "scores.parquet")
    pq.write_table(pa.concat_tables([table, right.cast(table.schema)]), out / "scores.parquet", compression="zstd")
    chosen = sorted(random_part(judged, evaluate))
    members = pq.read_table(scores.root / "slices.parquet")
    part = pa.table(
        {"item_id": pa.array(chosen, pa.string()), "slice": pa.array([RANDOM_PART] * len(chosen), pa.string())}
    )
    pq.write_table(pa.concat_tables([members, part]), out / "slices.parquet", compression="zstd")
    return Scores(root=out, arm=scores.arm, n_items=scores.n_items, means=scores.means)


def slices_count(gates: GatesSpec) -> bool:
    """Whether slices are guarded by `right`."""
    return gates.slices is not None and gates.slices.metric == RIGHT


def read_answers(predictions: Predictions) -> dict[str, str]:
    """Item id -> answer."""
    rows: list[dict[str, Any]] = pq.read_table(
        predictions.root / "predictions.parquet", columns=["item_id", "text"]
    ).to_pylist()
    return {str(row["item_id"]): str(row["text"] or "") for row in rows}
