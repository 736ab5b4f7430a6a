"""The classifier arms on the routing field."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import DatasetRef, EvalSet, Splits
from schemas.errors import DataError
from tasks.assess.baselines import ClassifierSpec, score_classifier

MakeSplits = Callable[..., Splits]
MAJORITY = ClassifierSpec(arm="majority", field="category", seed=0)
TFIDF = MAJORITY.model_copy(update={"arm": "tfidf"})
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
    scores = score_classifier(items=items, splits=splits, classifier=MAJORITY, out=tmp_path)
    assert (scores.arm, scores.n_items) == ("majority", 30)
    assert scores.means == {"field_category": pytest.approx(20 / 30)}


def test_words_tell_the_categories_apart(items: EvalSet, make_splits: MakeSplits, tmp_path: Path) -> None:
    splits = make_splits(train=_tickets(60, prefix="t"))
    scores = score_classifier(items=items, splits=splits, classifier=TFIDF, out=tmp_path)
    assert scores.means == {"field_category": 1.0}


@pytest.mark.parametrize("classifier", [MAJORITY, TFIDF])
def test_the_same_train_rows_give_the_same_bytes(
    classifier: ClassifierSpec, items: EvalSet, make_splits: MakeSplits, new_folder: Callable[[], Path]
) -> None:
    folders = [new_folder(), new_folder()]
    for out in folders:
        splits = make_splits(train=_tickets(20, prefix="t"))
        score_classifier(items=items, splits=splits, classifier=classifier, out=out)
    first, second = ((folder / "scores.parquet").read_bytes() for folder in folders)
    assert first == second
    assert pq.read_table(folders[0] / "slices.parquet").num_rows == 0


def test_one_class_in_train_is_said_of_every_item(items: EvalSet, make_splits: MakeSplits, tmp_path: Path) -> None:
    splits = make_splits(train=[{"ticket_id": "t", "body": "parcel", "category": "delivery"}])
    scores = score_classifier(items=items, splits=splits, classifier=TFIDF, out=tmp_path)
    assert scores.means == {"field_category": pytest.approx(10 / 30)}


def test_a_tie_of_the_majority_goes_to_the_alphabet(items: EvalSet, make_splits: MakeSplits, tmp_path: Path) -> None:
    train = [{"ticket_id": str(i), "body": "b", "category": c} for i, c in enumerate(("delivery", "billing"))]
    splits = make_splits(train=train)
    scores = score_classifier(items=items, splits=splits, classifier=MAJORITY, out=tmp_path)
    assert scores.means == {"field_category": pytest.approx(20 / 30)}


def test_an_item_without_the_field_is_never_right(
    make_items: Callable[..., EvalSet], make_splits: MakeSplits, tmp_path: Path
) -> None:
    items = make_items([{"ticket_id": "i", "body": "parcel", "answer": ""}])
    splits = make_splits(train=[{"ticket_id": "t", "body": "b", "category": "None"}])
    scores = score_classifier(items=items, splits=splits, classifier=MAJORITY, out=tmp_path)
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
        score_classifier(items=items, splits=make_splits(train=train), classifier=TFIDF, out=tmp_path)


def test_where_answers_have_the_label_exact_is_that_of_its_most_common_answer(
    make_items: Callable[..., EvalSet], make_splits: MakeSplits, new_folder: Callable[[], Path]
) -> None:
    """A classifier that names the label answers like any arm, so that no choice of the metric leaves it out."""
    train = [{**row, "reply": ("Soon.", "Soon.", "Never.")[i % 3]} for i, row in enumerate(_tickets(60, prefix="t"))]
    wanted = [{**row, "reply": ("Soon.", "Never.")[i % 2]} for i, row in enumerate(_tickets(30, prefix="i"))]

    def exact(template: str, pattern: str | None = None) -> float:
        items = make_items([{**row, "answer": template.format(**row)} for row in wanted])
        spec = TFIDF.model_copy(update={"answer": template, "pattern": pattern})
        scores = score_classifier(items=items, splits=make_splits(train=train), classifier=spec, out=new_folder())
        assert scores.means["field_category"] == 1.0
        return scores.means["exact"]

    assert exact("[{category}]") == 1.0
    assert exact("[{category}] {reply}") == 0.5
    assert exact("[{category}] {reply}", r"\A\[(?P<category>[a-z]+)\]") == 1.0  # `exact` is about the fields alone


def _encoded(root: Path, ids: list[str]) -> DatasetRef:
    (root / "train").mkdir()
    table = pa.table({"ticket_id": ids})
    with pa.OSFile(str(root / "train" / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    return DatasetRef(
        root=root, n_train=len(ids), n_validation=0, n_tokens=1, n_supervised=1, n_dropped=0, max_tokens=1
    )


def test_a_classifier_of_the_examples_learns_from_these_tickets_alone(
    items: EvalSet, make_splits: MakeSplits, new_folder: Callable[[], Path]
) -> None:
    train = _tickets(60, prefix="t")
    splits, spec = make_splits(train=train), TFIDF.model_copy(update={"arm": "tfidf_examples"})
    ids = [row["ticket_id"] for row in train if row["category"] == "delivery"]
    one_label = score_classifier(
        items=items, splits=splits, classifier=spec, dataset=_encoded(new_folder(), ids[:4]), out=new_folder()
    )
    assert (one_label.arm, one_label.n_examples) == ("tfidf_examples", 4)
    assert one_label.means == {"field_category": pytest.approx(10 / 30)}
    assert score_classifier(items=items, splits=splits, classifier=spec, out=new_folder()).n_examples == 60
    # Such examples are no fault of the data: the arm is shown, and a run does not end for it.
    none = score_classifier(
        items=items, splits=splits, classifier=spec, dataset=_encoded(new_folder(), ["other"]), out=new_folder()
    )
    assert (none.n_examples, none.means) == (0, {"field_category": 0.0})
