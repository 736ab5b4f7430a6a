"""Answers become numbers: fields, form, style, overlap."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.artifacts import EvalSet, Predictions
from schemas.errors import GateError
from schemas.evaluation import EvaluateSpec, StyleRule
from schemas.metrics import MacroF1Metric
from tasks.assess.fields import FieldPattern, score_whole
from tasks.assess.items import EXTRA
from tasks.assess.score import score_answers
from tasks.assess.style import HouseStyle, first_sentence, last_line

ROUTING = r"\[(?P<category>[a-z-]+) \| (?P<priority>[a-z]+) \| (?P<reference>NB-\d{5})\]"
ITEM = {"category": "billing", "priority": "high", "reference": "NB-12345"}
GOOD = "I am sorry about the invoice. We will correct it today.\n[billing | high | NB-12345]\nNorthbeam Care"


def test_an_answer_with_all_fields_right_is_exact() -> None:
    scores = FieldPattern(ROUTING).score(GOOD, ITEM)
    assert set(scores.values()) == {1.0}
    assert list(scores) == ["exact", "format", "field_category", "field_priority", "field_reference"]


def test_one_wrong_field_costs_exact_and_itself_only() -> None:
    scores = FieldPattern(ROUTING).score(GOOD.replace("high", "low"), ITEM)
    assert scores == {
        "exact": 0.0, "format": 1.0, "field_category": 1.0, "field_priority": 0.0, "field_reference": 1.0
    }  # fmt: skip


def test_an_answer_without_the_pattern_has_nothing_right() -> None:
    assert set(FieldPattern(ROUTING).score("Sorry. [billing, high]", ITEM).values()) == {0.0}


def test_an_answer_that_offers_two_values_has_neither() -> None:
    scores = FieldPattern(ROUTING).score(GOOD + "\n[returns | high | NB-12345]", ITEM)
    assert scores["format"] == scores["exact"] == scores["field_category"] == 0.0
    assert scores["field_priority"] == 1.0


def test_repeating_the_right_line_is_right_but_not_in_form() -> None:
    scores = FieldPattern(ROUTING).score(GOOD + "\n" + GOOD, ITEM)
    assert (scores["exact"], scores["format"]) == (1.0, 0.0)


def test_a_ticket_without_the_value_is_never_right() -> None:
    pattern = FieldPattern(r"<(?P<category>[a-z]*)(?P<priority>!)?>")
    assert pattern.score("<None>", {"category": None, "priority": None})["field_category"] == 0.0
    assert pattern.score("<a>", {"category": "a", "priority": None}) == {
        "exact": 0.0, "format": 1.0, "field_category": 1.0, "field_priority": 0.0
    }  # fmt: skip


def test_whole_answers_are_compared_after_unicode_and_white_space_normalisation() -> None:
    assert score_whole("caf\u0065\u0301  au\nlait ", "café au lait")["exact"] == 1.0
    assert score_whole("Card_arrival", "card_arrival") == {"exact": 0.0, "format": 1.0}
    assert score_whole(" \n", "") == {"exact": 0.0, "format": 0.0}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Sorry for that. We look.", "Sorry for that."),
        ('He said "no!" Then left.', 'He said "no!"'),
        ("It weighs 3.5 kg today", "It weighs 3.5 kg today"),
        ("Thanks…  Later.", "Thanks…"),
        ("Hi Ann,\n\nsorry to hear that! Bye.", "Hi Ann,\n\nsorry to hear that!"),
        ("Hi Ann,\nsorry. Bye.", "Hi Ann,\nsorry."),
        ("Dear customer\n\nsorry. Bye.", "Dear customer"),
        ("抱歉。我们会处理。", "抱歉。"),
        ("هل وصلت؟ شكرا.", "هل وصلت؟"),
        ("הגיעה? תודה.", "הגיעה?"),
        ("  \n Sorry.\n", "Sorry."),
        ("", ""),
    ],
)
def test_the_first_sentence(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


def test_the_last_line_is_the_last_that_is_not_blank() -> None:
    assert last_line("a\r\n b \r\n\r\n  ") == "b"
    assert last_line("") == ""


STYLE = (
    StyleRule(name="acknowledges_first", scope="first_sentence", pattern=r"(?i)\b(sorry|thank you)\b"),
    StyleRule(name="signature", scope="last_line", pattern=r"^Northbeam Care$"),
    StyleRule(name="no_blame", pattern=r"(?i)your fault", expect="absent"),
)


def test_good_style_holds_every_rule() -> None:
    assert set(HouseStyle(STYLE).score(GOOD).values()) == {1.0}


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("We look. Sorry.\nNorthbeam Care", "style_acknowledges_first"),
        ("Sorry.\nNorthbeam Care\nP.S. Bye", "style_signature"),
        ("Sorry. It is YOUR fault.\nNorthbeam Care", "style_no_blame"),
    ],
)
def test_each_broken_rule_breaks_style_and_itself(text: str, broken: str) -> None:
    scores = HouseStyle(STYLE).score(text)
    assert [name for name, value in scores.items() if value == 0.0] == ["style", broken]


def test_an_empty_answer_holds_no_rule_of_style() -> None:
    assert set(HouseStyle(STYLE).score(" \n").values()) == {0.0}


@given(st.text(max_size=300))
def test_no_text_breaks_the_scoring(text: str) -> None:
    scores = {**FieldPattern(ROUTING).score(text, ITEM), **HouseStyle(STYLE).score(text), **score_whole(text, text)}
    assert set(scores.values()) <= {0.0, 1.0}
    assert first_sentence(text) in text
    assert last_line(text) in text


def test_an_endless_answer_is_scored_by_its_beginning() -> None:
    endless = GOOD + "\n" + "a" * 3_000_000 + "[returns | low | NB-00000]"
    assert FieldPattern(ROUTING).score(endless, ITEM)["exact"] == 1.0
    assert HouseStyle(STYLE).score(endless)["style_signature"] == 0.0


EVALUATE = EvaluateSpec(fields=ROUTING, style=STYLE, slices=("product", "channel"))


@pytest.fixture
def answered(make_items: Callable[..., EvalSet], make_predictions: Callable[..., Predictions]) -> Any:
    items = make_items(
        [
            {"ticket_id": "b", "product": "Lamp", "channel": "mail", "answer": GOOD, **ITEM},
            {"ticket_id": "a", "product": None, "channel": "chat", "answer": GOOD, **ITEM},
        ]
    )
    predictions = make_predictions(
        [
            {"item_id": "a", "text": GOOD, "finished": True, "loss": 0.5},
            {"item_id": "b", "text": "No.", "finished": False, "loss": 1.5},
        ]
    )
    return items, predictions


def test_every_declared_metric_gets_a_value_per_item_and_a_mean(answered: Any, tmp_path: Path) -> None:
    items, predictions = answered
    scores = score_answers(items=items, predictions=predictions, evaluate=EVALUATE, arm="tuned", out=tmp_path)
    table = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    assert [row["metric"] for row in table if row["item_id"] == "a"] == list(EVALUATE.metric_names())
    assert list(scores.means) == list(EVALUATE.metric_names())
    assert scores.means["exact"] == scores.means["style"] == scores.means["finished"] == 0.5
    assert scores.means["heldout_loss"] == 1.0
    values = {(row["item_id"], row["metric"]): row["value"] for row in table}
    assert values["a", "chrf"] == 1.0
    assert 0 <= values["b", "chrf"] < 0.1


def test_items_that_only_the_slices_count_are_scored_but_in_no_mean(answered: Any, tmp_path: Path) -> None:
    items, predictions = answered
    table = pq.read_table(items.root / "items.parquet")
    extra = pa.array([name == "b" for name in table["item_id"].to_pylist()])
    pq.write_table(table.append_column(EXTRA, extra), items.root / "items.parquet")
    evaluate = EVALUATE.model_copy(update={"metrics": (MacroF1Metric(uses="macro_f1", field="category"),)})
    scores = score_answers(items=items, predictions=predictions, evaluate=evaluate, arm="tuned", out=tmp_path)
    assert (scores.n_items, scores.means["exact"], scores.means["macro_f1_category"]) == (2, 1.0, 1.0)
    values = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    assert {row["item_id"]: row["value"] for row in values if row["metric"] == "exact"} == {"a": 1.0, "b": 0.0}


def test_slices_name_column_and_value_and_the_missing_value(answered: Any, tmp_path: Path) -> None:
    items, predictions = answered
    score_answers(items=items, predictions=predictions, evaluate=EVALUATE, arm="tuned", out=tmp_path)
    assert [tuple(row.values()) for row in pq.read_table(tmp_path / "slices.parquet").to_pylist()] == [
        ("a", "product=(none)"), ("a", "channel=chat"), ("b", "product=Lamp"), ("b", "channel=mail")
    ]  # fmt: skip


@pytest.mark.parametrize("loss", [math.nan, math.inf, None])
def test_a_loss_that_is_no_number_stays_none_and_takes_the_mean_with_it(
    loss: float | None, make_items: Callable[..., EvalSet], make_predictions: Callable[..., Predictions], tmp_path: Path
) -> None:
    items = make_items([{"ticket_id": "a", "answer": "x"}, {"ticket_id": "b", "answer": "x"}])
    predictions = make_predictions(
        [{"item_id": "a", "text": "x", "loss": loss}, {"item_id": "b", "text": "x", "loss": 1.0}]
    )
    scores = score_answers(items=items, predictions=predictions, evaluate=EvaluateSpec(), arm="tuned", out=tmp_path)
    assert "heldout_loss" not in scores.means
    assert scores.means["exact"] == 1.0
    values = {
        row["item_id"]: row["value"]
        for row in pq.read_table(tmp_path / "scores.parquet").to_pylist()
        if row["metric"] == "heldout_loss"
    }
    assert math.isnan(values["a"])
    assert values["b"] == 1.0


@pytest.mark.parametrize("ids", [["a"], ["a", "b", "c"], ["a", "a"], ["a", "c"], []])
def test_answers_to_other_items_are_refused(
    ids: list[str], make_items: Callable[..., EvalSet], make_predictions: Callable[..., Predictions], tmp_path: Path
) -> None:
    items = make_items([{"ticket_id": "a", "answer": "x"}, {"ticket_id": "b", "answer": "x"}])
    predictions = make_predictions([{"item_id": item_id} for item_id in ids])
    with pytest.raises(GateError, match="TG0603"):
        score_answers(items=items, predictions=predictions, evaluate=EvaluateSpec(), arm="tuned", out=tmp_path)


@pytest.mark.parametrize(
    "answer",
    ["包裹明天送达，感谢您。", "荷物は明日届く予定です。", "พัสดุจะถึงพรุ่งนี้ค่ะ", "ستصل الشحنة غدا.", "החבילה תגיע מחר."],
)
def test_answers_of_any_script_are_scored_by_their_characters(
    answer: str, make_items: Callable[..., EvalSet], make_predictions: Callable[..., Predictions],
    new_folder: Callable[[], Path],
) -> None:  # fmt: skip
    def scored(text: str) -> dict[str, float]:
        items, said = (
            make_items([{"ticket_id": "a", "answer": answer}]),
            make_predictions([{"item_id": "a", "text": text}]),
        )
        return dict(
            score_answers(items=items, predictions=said, evaluate=EvaluateSpec(), arm="tuned", out=new_folder()).means
        )

    right, part, wrong = scored(answer), scored(answer[: len(answer) * 2 // 3]), scored("Sorry.")
    assert (right["exact"], part["exact"]) == (1.0, 0.0)
    assert right["chrf"] == pytest.approx(1.0)
    assert wrong["chrf"] < 0.1 < part["chrf"] < 1.0


def test_chrf_agrees_with_sacrebleu(
    make_items: Callable[..., EvalSet], make_predictions: Callable[..., Predictions], tmp_path: Path
) -> None:
    import sacrebleu

    hypothesis, reference = "We are sorry for the late parcel.", "I am sorry that the parcel is late."
    items = make_items([{"ticket_id": "a", "answer": reference}])
    predictions = make_predictions([{"item_id": "a", "text": hypothesis}])
    scores = score_answers(items=items, predictions=predictions, evaluate=EvaluateSpec(), arm="tuned", out=tmp_path)
    assert scores.means["chrf"] == pytest.approx(sacrebleu.sentence_chrf(hypothesis, [reference]).score / 100)
