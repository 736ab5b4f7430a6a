"""Prompts with the nearest train tickets as examples."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from schemas.artifacts import EvalSet, Splits
from schemas.errors import ConfigError, DataError
from schemas.training import PromptSpec
from tasks.assess.evidence import ArmScores, ranked_arms
from tasks.assess.prompts import build_prompts

PROMPT = PromptSpec(system="House.", user="{subject}: {body}", answer="{reply}")
ITEMS = [
    {"ticket_id": "i1", "subject": "Invoice", "body": "charged twice on my invoice", "answer": "a1"},
    {"ticket_id": "i2", "subject": "Parcel", "body": "my parcel never arrived", "answer": "a2"},
]
TRAIN = [
    {
        "ticket_id": "t1",
        "subject": "Invoice",
        "body": "charged twice for one order",
        "reply": "refund",
        "category": "b",
    },
    {
        "ticket_id": "t2",
        "subject": "Parcel",
        "body": "my parcel never arrived at all",
        "reply": "courier",
        "category": "d",
    },
    {"ticket_id": "t3", "subject": "Lamp", "body": "the lamp flickers", "reply": "bulb", "category": "p"},
    {"ticket_id": "t4", "subject": "Parcel", "body": "parcel arrived broken", "reply": "replace", "category": "d"},
]


@pytest.fixture
def prompts(
    make_items: Callable[..., EvalSet], make_splits: Callable[..., Splits], new_folder: Callable[[], Path]
) -> Callable[..., list[list[dict[str, str]]]]:
    """The messages of each item."""

    def run(train: list[dict[str, Any]] = TRAIN, n: int = 2, **more: Any) -> list[list[dict[str, str]]]:
        out = new_folder()
        build_prompts(
            items=make_items(ITEMS), arm="retrieval", prompt=PROMPT, splits=make_splits(train=train), n_examples=n,
            out=out, **{"format": "instruction", **more},
        )  # fmt: skip
        table = pq.read_table(out / "prompts.parquet")
        column = "messages" if "messages" in table.column_names else "text"
        return [json.loads(text) if column == "messages" else text for text in table.column(column).to_pylist()]

    return run


Prompts = Callable[..., Any]


def answers(messages: list[dict[str, str]]) -> list[str]:
    return [turn["content"] for turn in messages if turn["role"] == "assistant"]


def test_each_item_is_shown_its_own_nearest_tickets_the_nearest_last(prompts: Prompts) -> None:
    first, second = prompts()
    assert answers(first)[-1] == "refund"
    assert answers(second)[-1] == "courier"
    assert answers(second)[0] == "replace"
    assert first[0] == {"role": "system", "content": "House."}
    assert first[-1]["content"] == "Invoice: charged twice on my invoice"


def test_the_order_of_train_does_not_matter(prompts: Prompts) -> None:
    assert prompts(TRAIN) == prompts(TRAIN[::-1])


def test_of_equally_similar_tickets_the_first_by_id_is_shown_and_a_question_once(prompts: Prompts) -> None:
    twins = [{**TRAIN[0], "ticket_id": name, "reply": name} for name in ("t9", "t5", "t7")]
    first, _ = prompts([*twins, *TRAIN[1:]], n=2)
    assert answers(first)[-1] == "t5"
    assert answers(first).count("t7") == answers(first).count("t9") == 0


def test_a_held_out_item_its_question_and_an_unanswered_ticket_are_never_shown(prompts: Prompts) -> None:
    leaks = [
        {**ITEMS[0], "reply": "leak"} | {"answer": None},
        {"ticket_id": "t8", "subject": "INVOICE", "body": " charged  twice on my invoice", "reply": "leak"},
        {"ticket_id": "t9", "subject": "Invoice", "body": "charged twice on an invoice", "reply": ""},
    ]
    for row in leaks:
        row.pop("answer", None)
    first, second = prompts([*leaks, *TRAIN], n=3)
    assert "leak" not in answers(first) + answers(second)
    assert "" not in answers(first)


def test_completion_prompts_hold_the_tickets_as_blocks_of_text(prompts: Prompts) -> None:
    prompt = prompts(format="completion")[0]
    assert "charged twice for one order" in prompt
    assert prompt.rstrip().endswith("charged twice on my invoice")


def test_too_few_tickets_or_none_are_told(prompts: Prompts, make_items: Callable[..., EvalSet], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="TG0221"):
        prompts(TRAIN, n=5)
    with pytest.raises(DataError, match="TG0221"):
        prompts([{**row, "subject": "", "body": f"{n} ?"} for n, row in enumerate(TRAIN)])
    with pytest.raises(ConfigError, match="TG0160"):
        build_prompts(items=make_items(ITEMS), arm="retrieval", prompt=PROMPT, format="instruction", out=tmp_path)


def test_retrieval_is_a_prompting_arm_that_a_candidate_must_beat(make_scores: Callable[..., Any]) -> None:
    arms = {name: ArmScores(make_scores(name, {"exact": values})) for name, values in (
        ("zero_shot", [0.0, 0.0]), ("few_shot", [1.0, 0.0]), ("retrieval", [1.0, 1.0]))}  # fmt: skip
    candidate = ArmScores(make_scores("tuned", {"exact": [1.0, 1.0]}))
    assert ranked_arms(arms, candidate, metric="exact", items=None)[0].arm == "retrieval"
