"""Settings that are valid alone but do not fit together."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.evaluation import EvaluateSpec
from tests.support.specs import conflicts, pipeline_spec


def faults(**sections: Any) -> list[tuple[str, tuple[str | int, ...]]]:
    return [(fault.message, fault.at) for fault in conflicts(lambda: pipeline_spec(**sections))]


def test_a_gate_judges_a_metric_that_scoring_yields() -> None:
    rules = [{"metric": metric, "value_threshold": 0.5} for metric in ("exact", "style", "field_category")]
    assert faults(gates={"rules": rules}) == [
        ("gate on unknown metric 'style'", ("gates", "rules", 1, "metric")),
        ("gate on unknown metric 'field_category'", ("gates", "rules", 2, "metric")),
    ]
    evaluate = {"fields": "(?P<category>x)", "style": [{"name": "a", "pattern": "x"}]}
    assert pipeline_spec(gates={"rules": rules}, evaluate=evaluate).gates.rules[2].metric == "field_category"


@pytest.mark.parametrize("value", ["product", "channel=mail", "=x", ""])
def test_a_gate_judges_a_slice_that_is_declared(value: str) -> None:
    rule = {"metric": "exact", "value_threshold": 0.5, "slice": value}
    ((message, at),) = faults(gates={"rules": [rule]})
    assert message == f"slice {value!r} is not `column=value` of a column in evaluate.slices"
    assert at == ("gates", "rules", 0, "slice")


@pytest.mark.parametrize(
    ("column", "hint"),
    [("channel", "add channel to evaluate.slices"), ("chanel", "did you mean `channel`?"),
     ("queue", "allowed: product, channel, category, priority")],
)  # fmt: skip
def test_slices_are_guarded_by_columns_that_tickets_have(column: str, hint: str) -> None:
    gates = {"rules": [{"metric": "exact", "value_threshold": 0.5}], "slices": {"by": ["product", column]}}
    (fault,) = conflicts(lambda: pipeline_spec(gates=gates))
    assert (fault.message, fault.hint) == (f"the items are not sliced by {column}", hint)
    assert fault.at == ("gates", "slices", "by", 1)


def test_a_slice_value_may_hold_an_equals_sign() -> None:
    rule = {"metric": "exact", "value_threshold": 0.5, "slice": "product=a=b"}
    assert pipeline_spec(gates={"rules": [rule]}).gates.rules[0].slice == "product=a=b"


def test_a_limit_on_what_people_label_needs_a_random_part() -> None:
    limit = {"metric": "right", "value_threshold": 0.5}
    evaluate = {"labels": "differing", "random_labels": 200}
    ((message, at),) = faults(gates={"rules": [limit]}, evaluate=evaluate)
    assert message == "people label only answers that differ, which says nothing about how many are right"
    assert at == ("gates", "rules", 0, "slice")
    limit["slice"] = "labels=random"
    assert pipeline_spec(gates={"rules": [limit]}, evaluate=evaluate).gates.rules[0].slice == "labels=random"
    for without in ({"labels": "differing"}, {}):
        assert faults(gates={"rules": [limit]}, evaluate=without)
    with pytest.raises(ValidationError, match="`random_labels` needs `labels: differing`"):
        pipeline_spec(evaluate={"random_labels": 200})


def test_the_routing_field_is_one_of_the_scored_fields() -> None:
    evaluate = {"fields": "(?P<priority>x)"}
    assert faults(evaluate=evaluate) == [
        ("routing_field 'category' is not a named group of evaluate.fields", ("evaluate", "routing_field"))
    ]
    assert pipeline_spec(evaluate={**evaluate, "routing_field": None})
    assert pipeline_spec(evaluate={**evaluate, "routing_field": "priority"})


def test_a_completion_has_no_system_message() -> None:
    train = {"base_model": "m", "format": "completion", "prompt": {"system": "be kind"}}
    assert faults(train=train) == [("format completion has no system message", ("train", "prompt", "system"))]
    assert pipeline_spec(train={**train, "prompt": {}})


@pytest.mark.parametrize(("settings", "n_items"), [
    ({}, 400), ({"answer_minutes": 15, "answers_per_minute": 110}, 825), ({"max_items": 900}, 900),
    ({"answer_minutes": 15, "answers_per_minute": 110, "max_items": 40}, 40),
    ({"answer_minutes": 15, "answers_per_minute": 110, "max_items": 2000}, 825),
    ({"answer_minutes": 0.1, "answers_per_minute": 1}, 1),
])  # fmt: skip
def test_minutes_and_pace_decide_how_many_items_two_arms_answer(settings: dict[str, float], n_items: int) -> None:
    evaluate = EvaluateSpec.model_validate(settings)
    assert evaluate.max_items == n_items
    assert EvaluateSpec.model_validate(evaluate.model_dump()) == evaluate


@pytest.mark.parametrize(("pace", "fault"), [(None, "needs `answers_per_minute`"), (-1, "greater than 0")])
def test_minutes_need_a_pace(pace: float | None, fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        EvaluateSpec.model_validate({"answer_minutes": 15, "answers_per_minute": pace})


def test_contradictions_are_reported_together() -> None:
    rule = {"metric": "exakt", "value_threshold": 0.5, "slice": "x"}
    train = {"base_model": "m", "format": "completion", "prompt": {"system": "be kind"}}
    assert len(faults(gates={"rules": [rule]}, train=train, evaluate={"fields": "(?P<priority>x)"})) == 4


@pytest.mark.parametrize("part", ["system", "user", "answer"])
def test_a_prompt_names_ticket_columns_only(part: str) -> None:
    with pytest.raises(ValidationError, match="is not a ticket column"):
        pipeline_spec(train={"base_model": "m", "prompt": {part: "{customer}"}})


CORPUS = {"paths": ["help"]}
BEAT_IT = {"metric": "exact", "change_threshold": {"against": "best_baseline", "mode": "improve"}}


@pytest.mark.parametrize(
    ("evaluate", "user", "rules", "message", "at"),
    [
        ({"arms": ["rag"]}, "{body}", [BEAT_IT], "the arm rag needs a corpus", ("evaluate", "arms")),
        ({}, "{passages} {body}", [BEAT_IT], "`{passages}` needs a corpus", ("train", "prompt")),
        ({"corpus": CORPUS}, "{body}", [BEAT_IT], "no prompt shows passages of the corpus", ("evaluate", "corpus")),
        (
            {"corpus": CORPUS, "arms": ["rag"]}, "{body}", [{"metric": "exact", "value_threshold": 0.5}],
            "the tuned model must beat the arm rag, and no rule on a metric of quality compares with it",
            ("gates", "rules"),
        ),
        (
            {"corpus": CORPUS, "arms": ["rag"]}, "{body}", [{**BEAT_IT, "metric": "finished"}],
            "the tuned model must beat the arm rag, and no rule on a metric of quality compares with it",
            ("gates", "rules"),
        ),
    ],
)  # fmt: skip
def test_a_corpus_has_a_use_and_the_arm_rag_is_judged(
    evaluate: dict[str, Any], user: str, rules: list[dict[str, Any]], message: str, at: tuple[str, ...]
) -> None:
    train = {"base_model": "m", "prompt": {"user": user}}
    assert faults(evaluate=evaluate, train=train, gates={"rules": rules}) == [(message, at)]
    assert pipeline_spec(
        evaluate={"corpus": CORPUS, "arms": ["rag"]}, train={"base_model": "m", "prompt": {"user": user}},
        gates={"rules": [BEAT_IT]},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("train", {"prompt": {"answer": "{passages}"}}, "belongs into system or user"),
        ("train", {"prompt": {"user": "{subject} {passages} {body}"}}, "is between ticket columns"),
        ("evaluate", {"corpus": {"paths": ["help.pdf"]}, "arms": ["rag"]}, "'help.pdf' ends with .pdf; allowed: md"),
    ],
)
def test_passages_and_articles_have_their_place(section: str, values: dict[str, Any], message: str) -> None:
    sections = {"train": {"base_model": "m"}, "evaluate": {}}
    sections[section] |= values
    with pytest.raises(ValidationError, match=message):
        pipeline_spec(**sections)


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("61 5 * * 1", "no time matches '61 5 * * 1': [61 5 * * 1] is not acceptable, out of range; allowed"),
        ("0 5 * * 9", "out of range"),
        ("0 0 31 2 *", "failed to find next date"),
        ("0 0 1-5/0 * *", "no time matches"),
        ("R 5 * * *", "is random or hashed, which Prefect does not support"),
        ("H 5 * * *", "no time matches"),
        ("0 5 * *", "string_pattern_mismatch"),
    ],
)  # fmt: skip
def test_a_schedule_without_a_next_time_is_refused(cron: str, message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        pipeline_spec(schedule={"cron": cron})


@pytest.mark.parametrize("cron", ["0 5 * * 1", " @weekly ", "0 0 29 2 *", "*/15 8-18 * jan,JUL mon-fri", "0 0 L * *"])
def test_a_schedule_that_prefect_accepts_is_accepted(cron: str) -> None:
    from prefect._internal.schemas.validators import validate_cron_string

    assert pipeline_spec(schedule={"cron": cron}).schedule.cron == cron
    assert validate_cron_string(cron.strip()) == cron.strip()


def test_looks_fit_the_items_and_a_hold_is_only_resumed_at_declared_looks() -> None:
    rules = [{"metric": "exact", "value_threshold": 0.5}]
    gates = {"rules": rules, "looks": {"at": [248, 496]}}
    assert faults(gates=gates) == [
        ("the last look takes 496 held-out items, and evaluate.max_items is 400", ("gates", "looks", "at")),
    ]
    assert pipeline_spec(gates=gates, evaluate={"max_items": 496}).n_items(300) == 248
    topped = {**gates, "slices": {"by": ["category"], "top_up": 50}}
    assert faults(gates=topped, evaluate={"max_items": 496, "slices": ["category"]}) == [
        (
            "looks at declared items cannot be combined with further items for small slices",
            ("gates", "slices", "top_up"),
        )
    ]
    at = ("schedule", "resume_hold")
    assert faults(gates={"rules": rules}, schedule={"resume_hold": True}) == [
        ("no look is declared to resume a HOLD with", at)
    ]
    assert faults(
        gates=gates, evaluate={"max_items": 496}, schedule={"resume_hold": True}, place={"finetune": "cards"}
    ) == [("a HOLD is not resumed on a work pool", at)]
