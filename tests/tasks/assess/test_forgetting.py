"""The suite of general questions, its scores, and the question whether the candidate has forgotten."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from schemas.artifacts import CheckEvidence, GateDecision, Predictions, PromptSet, Scores
from schemas.checks import ForgettingSpec
from schemas.errors import GateError
from schemas.gates import GateRule, GatesSpec
from tasks.assess.gate import JudgedArms, decide
from tasks.assess.plan_gate import plan_gate
from tasks.assess.suite import build_suite, is_right, read_suite, score_suite
from tasks.assess.suites.general.make import FAMILIES, make_items
from tests.support.project import PROJECT

HALF = GateRule(metric="exact", value_threshold=0.5)
NewFolder = Callable[[], Path]
ONLY: dict[str, Any] = {"contamination": None, "round_trip": None}


def test_the_suite_on_disk_is_what_its_script_makes() -> None:
    items = read_suite("general")
    assert items == make_items()
    assert len(items) >= 400
    assert len({item["item_id"] for item in items}) == len({item["question"] for item in items}) == len(items)
    assert min(Counter(item["kind"] for item in items).values()) >= 60
    assert {item["kind"] for item in items} == set(FAMILIES)


def test_every_wanted_answer_is_right_and_an_empty_one_never() -> None:
    for item in read_suite("general"):
        re.compile(item["pattern"])
        assert is_right(item["answer"], item["pattern"]), item
        assert not is_right("", item["pattern"]), item
        assert not is_right("I do not know.", item["pattern"]), item


def test_the_folder_says_under_what_terms_and_which_version() -> None:
    folder = PROJECT / "tasks" / "assess" / "suites" / "general"
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", (folder / "VERSION").read_text())


def build(out: Path, **change: Any) -> PromptSet:
    return build_suite(**{"suite": "general", "max_items": 30, "seed": 0, "format": "instruction", "out": out} | change)


def test_fewer_items_are_some_of_the_same_and_completion_has_no_turns(new_folder: NewFolder) -> None:
    def ids(**change: Any) -> set[str]:
        return set(pq.read_table(build(new_folder(), **change).root / "prompts.parquet")["item_id"].to_pylist())

    assert ids() < ids(max_items=60) < ids(max_items=None)
    assert ids() != ids(seed=1)
    table = pq.read_table(build(new_folder(), format="completion").root / "prompts.parquet")
    assert table["text"].to_pylist()[0].startswith("Question: ")
    assert table["text"].to_pylist()[0].endswith("\nAnswer:")


def test_answers_are_scored_by_pattern_and_must_be_complete(
    new_folder: NewFolder, make_predictions: Callable[..., Predictions]
) -> None:
    suite = build(new_folder())
    rows = pq.read_table(suite.root / "prompts.parquet").to_pylist()
    answered = [{"item_id": row["item_id"], "text": row["answer"] if at else "?"} for at, row in enumerate(rows)]
    scores = score_suite(suite=suite, predictions=make_predictions(answered), arm="tuned", out=new_folder())
    assert scores.means == {"general": 29 / 30}
    assert pq.read_table(scores.root / "scores.parquet")["value"].to_pylist() == [0.0] + [1.0] * 29
    with pytest.raises(GateError, match="TG0603"):
        score_suite(suite=suite, predictions=make_predictions(answered[1:]), arm="tuned", out=new_folder())


@pytest.fixture
def judge(make_scores: Callable[..., Scores], new_folder: NewFolder) -> Callable[..., GateDecision]:
    def run(
        candidate: list[float] | None, base: list[float], *, kl: float | None = 0.1, evidence: bool = True, **spec: Any
    ) -> GateDecision:
        values = {"kl": kl, "tokens": 500.0}
        divergence = CheckEvidence(root=new_folder(), check="divergence", n_items=24, values=values)
        return decide(
            judged=JudgedArms(
                candidate=make_scores("tuned", {"exact": [1.0] * 100}),
                champion=None,
                baselines=(),
                checks=(divergence,) if evidence else (),
                suite=()
                if candidate is None
                else (make_scores("tuned", {"general": candidate}), make_scores("zero_shot", {"general": base})),
            ),
            gates=GatesSpec(rules=(HALF,), forgetting=ForgettingSpec(**spec), **ONLY),
            out=new_folder(),
        )

    return run


def test_a_loss_within_the_margin_passes_a_large_one_blocks_and_few_items_hold(
    judge: Callable[..., GateDecision],
) -> None:
    base = [1.0] * 300 + [0.0] * 300
    same = judge(base, base)
    assert [(each.part, each.decides) for each in same.findings[1:]] == [("forgetting", False), ("forgetting", True)]
    assert same.verdict == "PROMOTE"
    assert "1 rule and 1 check are met." in same.reason
    assert judge([1.0] * 297 + [0.0] * 303, base).verdict == "PROMOTE"
    assert judge([1.0] * 272 + [0.0] * 328, base).verdict == "HOLD"
    destroyed = judge([0.0] * 600, base)
    assert destroyed.verdict == "BLOCK"
    assert "general is 0.000 against 0.500 of its base on 600 items" in destroyed.reason
    assert judge(base[290:310], base[290:310]).verdict == "HOLD"


def test_what_is_missing_or_tells_nothing_is_an_error(judge: Callable[..., GateDecision]) -> None:
    base = [1.0] * 300 + [0.0] * 300
    assert judge(None, base).verdict == "ERROR"
    assert judge(base[:-1], base).verdict == "ERROR"
    assert judge([float("nan"), *base[1:]], base).verdict == "ERROR"
    assert judge(base, base, evidence=False).verdict == "ERROR"
    assert judge(base, base, kl=None).verdict == judge(base, base, kl=float("nan"), kl_max=1.0).verdict == "ERROR"
    weak = judge([0.0] * 600, [1.0] * 60 + [0.0] * 540)
    assert weak.verdict == "ERROR"
    assert "below 0.2 it cannot show a loss" in weak.reason


def test_a_declared_limit_of_divergence_decides(judge: Callable[..., GateDecision]) -> None:
    base = [1.0] * 300 + [0.0] * 300
    assert judge(base, base, kl=0.2, kl_max=0.3).verdict == "PROMOTE"
    far = judge(base, base, kl=0.31, kl_max=0.3)
    assert far.verdict == "BLOCK"
    assert "KL is 0.3100 nats per token on 24 texts, and at most 0.3 is allowed" in far.reason


def test_the_plan_says_how_many_items_the_margin_needs() -> None:
    gates = GatesSpec(rules=(HALF,), forgetting=ForgettingSpec(max_items=120))
    row = plan_gate(gates, traits={}, n_items=500, seen={}, n_suite=len(read_suite("general")))[-1]
    assert (row.needed, row.at_hand, row.underpowered) == (248, 120, True)
