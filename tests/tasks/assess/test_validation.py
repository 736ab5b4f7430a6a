"""Answers given during training become curves, scored by the code that scores the test items."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import Splits, TrainedRef
from schemas.errors import TrainingError
from schemas.evaluation import EvaluateSpec
from tasks.assess.validation import score_validation
from tests.support.refs import trained_ref

TICKETS = [
    {"ticket_id": "a", "body": "Where?", "reply": "Here. [billing]", "category": "billing"},
    {"ticket_id": "b", "body": "When?", "reply": "Friday. [delivery]", "category": "delivery"},
    {"ticket_id": "c", "body": "Not asked", "reply": "x [billing]", "category": "billing"},
]
EVALUATE = EvaluateSpec(fields=r"\[(?P<category>[a-z]+)\]", metrics=({"uses": "macro_f1", "field": "category"},))  # type: ignore[arg-type]


@pytest.fixture
def splits(make_splits: Callable[..., Splits]) -> Splits:
    return make_splits(validation=TICKETS)


def _trained(root: Path, rows: list[dict[str, Any]]) -> TrainedRef:
    full = [{"n_new_tokens": 3, "finished": True, "loss": 1.5} | row for row in rows]
    pq.write_table(pa.Table.from_pylist(full), root / "validation_answers.parquet")
    curve = [{"step": step, "loss": 2.0, "validation_loss": 1.9 if step % 2 == 0 else None} for step in range(1, 5)]
    pq.write_table(pa.Table.from_pylist(curve), root / "curves.parquet")
    return trained_ref(root, n_steps=4)


def test_each_validation_is_a_point_of_each_metric(splits: Splits, new_folder: Callable[[], Path]) -> None:
    answers = [
        {"step": 2, "item_id": "a", "text": "Here. [billing]"},
        {"step": 2, "item_id": "b", "text": "Friday. [billing]"},
        {"step": 4, "item_id": "a", "text": "Here. [billing]"},
        {"step": 4, "item_id": "b", "text": "Friday. [delivery]"},
    ]
    out = new_folder()
    scored = score_validation(
        splits=splits,
        trained=_trained(new_folder(), answers),
        evaluate=EVALUATE,
        metrics=("field_category", "exact", "macro_f1_category", "heldout_loss"),
        answer="{reply}",
        out=out,
    )
    rows = pq.read_table(out / "curves.parquet").to_pylist()
    assert [row["validation_field_category"] for row in rows] == [None, 0.5, None, 1.0]
    assert [row["validation_exact"] for row in rows] == [None, 0.5, None, 1.0]
    assert rows[1]["validation_macro_f1_category"] == pytest.approx(1 / 3)
    assert rows[3]["validation_heldout_loss"] == 1.5
    assert [row["validation_loss"] for row in rows] == [None, 1.9, None, 1.9]
    assert (scored.n_items, scored.n_validations, scored.last["exact"]) == (2, 2, 1.0)


def test_an_answer_to_no_ticket_of_the_split_is_an_error(splits: Splits, new_folder: Callable[[], Path]) -> None:
    trained = _trained(new_folder(), [{"step": 2, "item_id": "z", "text": "?"}])
    with pytest.raises(TrainingError, match=r"TG0407.*1 validation tickets were answered, but only 0 of them"):
        score_validation(
            splits=splits, trained=trained, evaluate=EVALUATE, metrics=("exact",), answer="{reply}", out=new_folder()
        )
