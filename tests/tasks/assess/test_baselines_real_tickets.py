"""The assess stage on real customer questions: items, few-shot prompts and the classifier arms."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import Splits
from schemas.training import PromptSpec
from tasks.assess.baselines import ClassifierSpec, score_classifier
from tasks.assess.items import select_items
from tasks.assess.prompts import build_prompts

NewFolder = Callable[[], Path]


@pytest.fixture(scope="module")
def bitext(shared_data: Path, make_splits: Callable[..., Splits]) -> Splits:
    """4,514 support requests in 11 categories; every fifth is held out."""
    source = shared_data / "bitext_support" / "bitext_support_training_2023-08-18.csv"
    with source.open(encoding="utf-8", newline="") as stream:
        rows: list[dict[str, Any]] = [
            {
                "ticket_id": f"b{n:05d}",
                "body": row["instruction"],
                "reply": row["response"],
                "category": row["category"],
            }
            for n, row in enumerate(csv.DictReader(stream))
        ]
    test = rows[::5]
    asked = {row["body"].casefold() for row in test}
    return make_splits(train=[row for row in rows if row["body"].casefold() not in asked], test=test)


def test_a_classifier_routes_real_requests_far_better_than_the_majority(bitext: Splits, new_folder: NewFolder) -> None:
    items = select_items(splits=bitext, max_items=400, seed=0, answer="{reply}", out=new_folder())
    means = {}
    arms: tuple[Literal["majority", "tfidf"], ...] = ("majority", "tfidf")
    for arm in arms:
        spec = ClassifierSpec(arm=arm, field="category", seed=0)
        scores = score_classifier(items=items, splits=bitext, classifier=spec, out=new_folder())
        means[arm] = scores.means["field_category"]
    assert means["majority"] < 0.35
    assert means["tfidf"] > 0.9


def test_few_shot_examples_of_real_requests_cover_categories_and_no_item(bitext: Splits, new_folder: NewFolder) -> None:
    items = select_items(splits=bitext, max_items=200, seed=0, answer="{reply}", out=new_folder())
    out = new_folder()
    build_prompts(
        items=items, arm="few_shot", prompt=PromptSpec(user="{body}", answer="[{category}] {reply}"),
        format="instruction", splits=bitext, n_examples=8, seed=0, out=out,
    )  # fmt: skip
    rows = pq.read_table(out / "prompts.parquet").to_pylist()
    turns = orjson.loads(rows[0]["messages"])
    shown = [turn["content"] for turn in turns if turn["role"] == "user"][:-1]
    categories = {turn["content"].split("]")[0] for turn in turns if turn["role"] == "assistant"}
    asked = {orjson.loads(row["messages"])[-1]["content"].casefold() for row in rows}
    assert len(rows) == 200
    assert len(categories) == 8
    assert not {text.casefold() for text in shown} & asked
