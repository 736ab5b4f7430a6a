"""The rules of `tunegate study advise`: what each says of its evidence, and which conclusion follows."""

from pathlib import Path
from typing import Any

import pytest

from flows.views.advice import QUESTIONS, RULES, AdviceEvidence, MemoryFit, _of_incumbent, conclude
from schemas.artifacts import GateDecision, TrainedRef
from schemas.costs import CostReport
from schemas.curation_card import LabelConflicts
from schemas.verdicts import Finding
from tasks.assess.ablation import AblationRow, AblationTable
from tasks.assess.economics import Measures, Volume, compute_costs, read_prices
from tasks.assess.judge import Judgement
from tests.support.refs import trained_ref

FITS = {"full": MemoryFit(False, "80 GB"), "lora": MemoryFit(True, "24 GB"), "qlora": MemoryFit(True, "24 GB")}


def judgement(verdict: Any, difference: float = 0.1) -> Judgement:
    return Judgement(
        verdict, "tango", "in words.", 0.6, 0.5, difference, 0.01, 0.2, met=verdict == "PROMOTE", p_harm=1.0,
        if_not_blocked="", won=12, lost=2,
    )  # fmt: skip


def trained(train_loss: float = 0.4) -> TrainedRef:
    return trained_ref(Path("train"), train_loss=train_loss, validation_loss=0.5)


def conflicts(n_conflicting: int) -> LabelConflicts:
    return LabelConflicts(n_checked=3000, n_conflicting=n_conflicting)


def evidence(**change: Any) -> AdviceEvidence:
    plain: dict[str, Any] = {
        "pipeline": "desk", "run_id": "r", "trained": trained(), "verdict": "PROMOTE", "metric": "exact",
        "means": {"tuned": 0.6, "few_shot": 0.5}, "best_prompting": "few_shot", "prompting_meets": "no",
        "limits": ("exact 0.55",), "tuned": judgement("PROMOTE"), "retrieval": judgement("HOLD"),
        "classifier": judgement("PROMOTE"), "n_items": 400, "min_items": 50, "n_train": 3000, "conflicts": conflicts(3),
        "forms": {"format": 1.0}, "fits": FITS,
        "costs": costs(10_000.0),
        "queries": 10_000.0,
    }  # fmt: skip
    return AdviceEvidence(**{**plain, **change})


def costs(queries: float | None) -> CostReport:
    known = Measures(10**9, 2 * 10**9, 100.0, {"tuned": 100.0, "few_shot": 400.0}, {"batch_16_s": 0.16})
    return compute_costs(read_prices(), known, machine="l4", volume=Volume(queries))


def table(gain: Any) -> AblationTable:
    row = AblationRow(arm="raw", description="", gain=gain, difference=0.1, lower=0.05, upper=0.2)
    return AblationTable(
        pipeline="desk", metric="exact", n_items=400, n_steps=9, seed=0, confidence=0.95, items="i", rows=(row,),
        answer="in words.",
    )  # fmt: skip


def says(**change: Any) -> dict[str, str]:
    advice = conclude(evidence(**change))
    return {reason.rule: reason.says for reason in (*advice.reasons, *advice.missing)}


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({}, "lora"),
        ({"prompting_meets": "yes"}, "prompting"),
        ({"prompting_meets": "yes", "best_prompting": "retrieval"}, "retrieval"),
        ({"fits": {**FITS, "lora": MemoryFit(False, "80 GB")}}, "qlora"),
        ({"fits": {**FITS, "lora": MemoryFit(None, "80 GB"), "qlora": MemoryFit(None, "24 GB")}}, "qlora"),
        ({"fits": {**FITS, "lora": MemoryFit(None, "24 GB"), "qlora": MemoryFit(None, "24 GB")}}, "lora"),
        ({"verdict": "HOLD", "n_train": 20_000}, "full"),
        ({"verdict": "HOLD", "n_train": 20_000, "trained": trained(0.1)}, "lora"),  # the examples are learnt already
        ({"verdict": "HOLD", "n_train": 9_999}, "lora"),
        ({"tuned": judgement("BLOCK", -0.1)}, "prompting"),
        ({"tuned": judgement("HOLD")}, "not known"),
        ({"tuned": judgement("HOLD"), "forms": {"format": 0.9}}, "curate"),
        ({"tuned": judgement("HOLD"), "conflicts": conflicts(300)}, "curate"),
        ({"tuned": judgement("HOLD"), "ablation": table("helps")}, "curate"),
        ({"tuned": judgement("HOLD"), "conflicts": conflicts(300), "ablation": table("not shown")}, "not known"),
        ({"tuned": None, "n_train": 50}, "prompting"),
        ({"tuned": None, "verdict": None}, "lora"),
        ({"tuned": None, "fits": {}}, "not known"),
    ],
)
def test_the_conclusion_follows_the_evidence(change: dict[str, Any], answer: str) -> None:
    assert conclude(evidence(**change)).answer == answer


def test_nothing_recorded_supposes_nothing_and_names_a_command_for_each_gap() -> None:
    advice = conclude(AdviceEvidence(pipeline="desk"))
    assert advice.answer == "not known"
    assert advice.reasons == ()
    assert {reason.rule for reason in advice.missing} == RULES.keys() - {"incumbent"}  # there is none
    assert all(reason.get for reason in advice.missing)
    asked = conclude(AdviceEvidence(pipeline="desk", has_incumbent=True))
    assert asked.missing[0].get == "tunegate run desk"
    assert len(asked.missing) == len(RULES)


def finding(verdict: Any, *, method: str = "tango", rule: str = "exact improves on endpoint (ft:old)") -> Finding:
    return Finding(
        rule=rule, metric="exact", verdict=verdict, n_items=400, candidate=0.7, reference=0.6, method=method,
        reason="in words."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "findings", "says", "answer"),
    [
        ("PROMOTE", [finding("PROMOTE"), finding("PROMOTE", method="count")], "leave", "own model"),
        ("BLOCK", [finding("BLOCK"), finding("PROMOTE", method="count")], "stay", "endpoint"),
        ("HOLD", [finding("HOLD")], "more items", "lora"),
        ("HOLD", [finding("PROMOTE"), finding("HOLD", method="count")], "more items", "lora"),  # its answers are cut
        ("BLOCK", [finding("PROMOTE"), finding("BLOCK", rule="style at least 0.9")], "more items", "lora"),
        ("ERROR", [finding("ERROR")], "more items", "lora"),
    ],
)
def test_an_endpoint_is_left_only_by_a_verdict_that_compared_with_it(
    verdict: Any, findings: list[Finding], says: Any, answer: str
) -> None:
    decision = GateDecision(
        root=Path("gate"), verdict=verdict, reason="", findings=tuple(findings), n_items=400, champion_version=None
    )
    found, why = _of_incumbent(decision)
    assert found == says
    assert "endpoint (ft:old)" in why
    advice = conclude(evidence(has_incumbent=True, incumbent=found, incumbent_evidence=why))
    assert advice.answer == answer
    assert "evaluate.endpoint" not in advice.sentence, "it is declared already"
    assert _of_incumbent(None) == (None, "")
    plain = decision.model_copy(update={"findings": (finding("PROMOTE", rule="exact improves on champion"),)})
    assert _of_incumbent(plain) == (None, "")


def test_prompting_that_is_good_enough_comes_first_and_the_gain_is_still_reported() -> None:
    advice = conclude(evidence(prompting_meets="yes"))
    assert "+0.100" in advice.sentence


def test_the_cheap_api_is_named_where_it_costs_less_than_the_cards_and_an_unmeasured_card_is_no_answer() -> None:
    assert says()["cost"] == "API"
    assert "before you rent" in conclude(evidence()).sentence
    (cost,) = (reason for reason in conclude(evidence(costs=costs(1e9), queries=1e9)).reasons if reason.rule == "cost")
    assert cost.says == "own model"
    assert "own model, batches of 16, on l4 needs 8 cards" in cost.evidence
    assert "4,672.00 a month" in cost.evidence
    (cost,) = (reason for reason in conclude(evidence(card="h100")).reasons if reason.rule == "cost")
    assert (cost.says, "one h100 costs 2,920.00 a month" in cost.evidence) == ("API", True)
    assert says(costs=costs(1e9), queries=1e9, card="h100")["cost"] == "missing"
    assert says(costs=costs(None), queries=None)["cost"] == says(costs=None)["cost"] == "missing"


def test_few_items_and_no_limits_are_reported() -> None:
    assert says(n_items=10)["items"] == "more items"
    assert "too few to promote" in conclude(evidence(n_items=10)).sentence
    assert says(limits=(), prompting_meets=None)["prompting"] == "missing"
    assert says(prompting_meets="not shown")["prompting"] == "more items"
    assert says(forms={})["form"] == "missing"
    assert says(conflicts=None)["quality"] == "missing"
    assert says(classifier=judgement("HOLD"))["classifier"] == "enough"
    nothing_fits = {name: MemoryFit(False, None) for name in FITS}
    assert says(fits=nothing_fits)["memory"] == "smaller base"


def test_every_rule_declares_its_threshold_its_source_and_what_would_change_it() -> None:
    assert list(QUESTIONS) == list(RULES)
    for name, rule in RULES.items():
        assert all(rule[what] for what in ("question", "threshold", "source", "change", "missing", "get")), name
