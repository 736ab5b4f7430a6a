"""The classifier arms on the routing field."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from schemas.artifacts import EvalSet, Splits
from schemas.errors import DataError
from tasks.assess.baselines import score_classifier

MakeSplits = Callable[..., Splits]
WORDS = {"billing": "invoice charged twice refund money", "delivery": "parcel late courier tracking address"}


def _tickets(n: int, *, prefix: str, skew: int = 3) -> list[dict[str, Any]]:
    rows = []
    for i in range(n):
        category = "billing" if i % skew else "delivery"
        words = WORDS[category].split()
        body = f"please {words[i % 5]} and {words[(i + 2) % 5]} now {i}"
        rows.append({"ticket_id": f"{prefix}{i:03d}", "subject": None, "body": body, "category": category})
    return rows


@pytest.fixture
def items(make_items: Callable[..., EvalSet]) -> EvalSet:
    return make_items([{**row, "answer": ""} for row in _tickets(30, prefix="i")])


def test_majority_is_right_as_often_as_the_commonest_class_occurs(
    items: EvalSet, make_splits: MakeSplits, tmp_path: Path
) -> None:
    splits = make_splits(train=_tickets(60, prefix="t"))
    scores = score_classifier(items=items, splits=splits, arm="majority", field="category", seed=0, out=tmp_path)
    assert (scores.arm, scores.n_items) == ("majority", 30)
    assert scores.means == {"field_category": pytest.approx(20 / 30)}


def test_words_tell_the_categories_apart(items: EvalSet, make_splits: MakeSplits, tmp_path: Path) -> None:
    splits = make_splits(train=_tickets(60, prefix="t"))
    scores = score_classifier(items=items, splits=splits, arm="tfidf", field="category", seed=0, out=tmp_path)
    assert scores.means == {"field_category": 1.0}


@pytest.mark.parametrize("arm", ["majority", "tfidf"])
def test_the_same_train_rows_give_the_same_bytes(
    arm: Any, items: EvalSet, make_splits: MakeSplits, new_folder: Callable[[], Path]
) -> None:
    folders = [new_folder(), new_folder()]
    for out in folders:
        splits = make_splits(train=_tickets(20, prefix="t"))
        score_classifier(items=items, splits=splits, arm=arm, field="category", seed=5, out=out)
    first, second = ((folder / "scores.parquet").read_bytes() for folder in folders)
    assert first == second
    assert pq.read_table(folders[0] / "slices.parquet").num_rows == 0


def test_one_class_in_train_is_said_of_every_item(items: EvalSet, make_splits: MakeSplits, tmp_path: Path) -> None:
    splits = make_splits(train=[{"ticket_id": "t", "body": "parcel", "category": "delivery"}])
    scores = score_classifier(items=items, splits=splits, arm="tfidf", field="category", seed=0, out=tmp_path)
    assert scores.means == {"field_category": pytest.approx(10 / 30)}


def test_a_tie_of_the_majority_goes_to_the_alphabet(items: EvalSet, make_splits: MakeSplits, tmp_path: Path) -> None:
    train = [{"ticket_id": str(i), "body": "b", "category": c} for i, c in enumerate(("delivery", "billing"))]
    splits = make_splits(train=train)
    scores = score_classifier(items=items, splits=splits, arm="majority", field="category", seed=0, out=tmp_path)
    assert scores.means == {"field_category": pytest.approx(20 / 30)}


def test_an_item_without_the_field_is_never_right(
    make_items: Callable[..., EvalSet], make_splits: MakeSplits, tmp_path: Path
) -> None:
    items = make_items([{"ticket_id": "i", "body": "parcel", "answer": ""}])
    splits = make_splits(train=[{"ticket_id": "t", "body": "b", "category": "None"}])
    scores = score_classifier(items=items, splits=splits, arm="majority", field="category", seed=0, out=tmp_path)
    assert scores.means == {"field_category": 0.0}


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([{"ticket_id": "t", "body": "b"}], "TG0221.*no train row has a category"),
        ([{"ticket_id": "t", "body": "?", "category": "a"}, {"ticket_id": "u", "category": "b"}], "no words"),
    ],
)
def test_train_without_labels_or_words_is_a_data_error(
    train: list[dict[str, Any]], message: str, items: EvalSet, make_splits: MakeSplits, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        score_classifier(
            items=items, splits=make_splits(train=train), arm="tfidf", field="category", seed=0, out=tmp_path
        )
