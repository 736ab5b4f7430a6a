"""The gate against an endpoint that is to be replaced: what takes whose place, and that it fails closed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import CheckEvidence, GateDecision, Predictions, Scores
from schemas.evaluation import TokenPrices
from schemas.gates import GatesSpec
from tasks.assess.endpoint_arm import inspect_answers
from tasks.assess.gate import GateContext, JudgedArms, decide
from tasks.assess.limits import gate_warnings

NO_WORSE = {"metric": "exact", "change_threshold": {"against": "endpoint", "mode": "no_worse", "margin": 0.05}}
BETTER = {"metric": "exact", "change_threshold": {"against": "endpoint", "mode": "improve"}}
NAME = "ft:old"
WHOLE: dict[str, float | None] = {"empty": 0.0, "cut": 0.0, "allowed": 0.0}
Judge = Callable[..., GateDecision]


def right(n_right: int, n_items: int = 400) -> list[float]:
    return [1.0] * n_right + [0.0] * (n_items - n_right)


@pytest.fixture
def judge(make_scores: Callable[..., Scores], new_folder: Callable[[], Path]) -> Judge:
    """Decide on `exact` of the candidate and other arms, given as lists of values."""

    def run(
        candidate: list[float], *rules: Any, evidence: dict[str, float | None] | None = WHOLE, asked: bool = True,
        slices: list[str] | None = None, gates: dict[str, Any] | None = None, **arms: list[float] | None,
    ) -> GateDecision:  # fmt: skip
        champion = arms.pop("champion", None)
        checks = [] if evidence is None else [
            CheckEvidence(root=new_folder(), check="endpoint", n_items=400, values=evidence)
        ]  # fmt: skip
        return decide(
            judged=JudgedArms(
                candidate=make_scores("tuned", {"exact": candidate}, slices=slices or []),
                champion=None if champion is None else make_scores("champion", {"exact": champion}),
                baselines=tuple(make_scores(arm, {"exact": values}) for arm, values in arms.items() if values),
                checks=tuple(checks),
            ),
            gates=GatesSpec.model_validate({
                "rules": rules or [NO_WORSE], "contamination": None, "round_trip": None,
                "compare": {"metric": "exact"}, **(gates or {}),
            }),
            context=GateContext(
                champion_version=champion and "3", anchor_version=champion and "3", endpoint=NAME, endpoint_asked=asked
            ),
            out=new_folder(),
        )  # fmt: skip

    return run


def verdicts(decision: GateDecision) -> dict[str, str]:
    return {each.rule: each.verdict for each in decision.findings if each.decides}


@pytest.mark.parametrize(
    ("rule", "ours", "theirs", "verdict"),
    [
        (NO_WORSE, 300, 300, "PROMOTE"),
        (NO_WORSE, 297, 300, "PROMOTE"),  # worse, and within the margin
        (NO_WORSE, 285, 300, "HOLD"),
        (NO_WORSE, 240, 300, "BLOCK"),
        (BETTER, 300, 300, "HOLD"),
        (BETTER, 320, 300, "PROMOTE"),
        (BETTER, 280, 300, "BLOCK"),
    ],
)
def test_without_a_champion_the_endpoint_is_what_a_candidate_is_compared_with(
    rule: Any, ours: int, theirs: int, verdict: str, judge: Judge
) -> None:
    decision = judge(right(ours), rule, endpoint=right(theirs))
    assert decision.verdict == verdict
    words = "is at most 0.05 worse than" if rule is NO_WORSE else "improves on"
    compared, whole = list(verdicts(decision))
    assert compared.startswith(f"exact {words} endpoint ({NAME})")
    assert whole == f"endpoint ({NAME}) answers every item whole"
    assert f"of endpoint ({NAME}) on 400 items" in decision.findings[1].reason
    assert decision.best_baseline is None


def test_it_is_no_baseline_and_the_baselines_stay(judge: Judge) -> None:
    best = {"metric": "exact", "change_threshold": {"against": "best_baseline", "mode": "improve"}}
    met = judge(right(300), NO_WORSE, best, endpoint=right(300), zero_shot=right(100))
    assert (met.verdict, met.best_baseline) == ("PROMOTE", "zero_shot")
    assert judge(right(300), NO_WORSE, best, endpoint=right(300), zero_shot=right(350)).verdict == "BLOCK"
    assert judge(right(300), best, endpoint=right(300), zero_shot=right(100)).verdict == "HOLD"  # a baseline there


def test_a_champion_is_compared_with_as_well(judge: Judge) -> None:
    found = judge(right(300), endpoint=right(300), champion=right(300))
    assert found.verdict == "HOLD", "gates.compare asks for a gain on the champion"
    assert verdicts(found)[
        "exact is better than champion (version 3), and at most 0.05 worse at the confidence (gates.compare)"
    ] == "HOLD"  # fmt: skip


def test_a_margin_that_lets_a_worse_model_pass_does_not_take_the_champions_place(judge: Judge) -> None:
    wide = {"metric": "exact", "change_threshold": {"against": "endpoint", "mode": "no_worse", "margin": 0.5}}
    assert judge(right(200), wide, endpoint=right(300)).verdict == "ERROR"  # nothing else is there to compare with
    assert judge(right(200), wide, endpoint=right(300), zero_shot=right(200)).verdict == "HOLD"
    [warning] = [
        each
        for each in gate_warnings(GatesSpec.model_validate({"rules": [wide]}), traits={}, n_items=400)
        if "endpoint" in each
    ]
    assert "by a margin of at most 0.05: until there is a champion" in warning


def test_no_slice_may_be_worse_than_it(judge: Judge) -> None:
    slices = ["product=Lamp"] * 200 + ["product=Desk"] * 200
    ours = [1.0] * 200 + [0.0] * 100 + [1.0] * 100
    theirs = [1.0] * 100 + [0.0] * 100 + [1.0] * 200
    found = judge(ours, endpoint=theirs, slices=slices, gates={"slices": {"by": ["product"]}})
    assert found.verdict == "BLOCK"
    assert verdicts(found)[f"exact in product=Desk is not shown to be worse than endpoint ({NAME})"] == "BLOCK"


@pytest.mark.parametrize(
    ("evidence", "verdict", "why"),
    [
        (None, "ERROR", "its answers were not counted"),
        ({}, "ERROR", "its answers were not counted"),
        ({**WHOLE, "cut": float("nan")}, "ERROR", "its answers were not counted"),
        ({**WHOLE, "cut": 1.0}, "HOLD", "0 are empty or refused, and 1 cut: more than 0"),
        ({**WHOLE, "empty": 200.0}, "HOLD", "200 are empty or refused"),
        ({**WHOLE, "empty": 4.0, "cut": 4.0, "allowed": 0.02}, "PROMOTE", ""),
        ({**WHOLE, "empty": 5.0, "cut": 4.0, "allowed": 0.02}, "HOLD", "more than 0.02 of them"),
    ],
)
def test_answers_that_are_missing_or_not_whole_never_pass(
    evidence: dict[str, float | None] | None, verdict: str, why: str, judge: Judge
) -> None:
    decision = judge(right(400), endpoint=right(300), evidence=evidence)
    assert decision.verdict == verdict
    assert why in decision.reason


def test_a_missing_arm_and_scores_that_are_no_numbers_are_errors(judge: Judge) -> None:
    missing = judge(right(400))
    assert missing.verdict == "ERROR"
    assert "there are no answers of an endpoint to compare with" in missing.reason
    assert judge(right(400), endpoint=right(300, 399)).verdict == "ERROR"  # an item fewer
    assert judge(right(400), endpoint=[float("nan")] * 400).verdict == "ERROR"


def test_of_answers_from_a_file_it_is_not_known_how_whole_they_are(judge: Judge) -> None:
    decision = judge(right(300), endpoint=right(300), evidence=None, asked=False)
    assert list(verdicts(decision).values()) == ["PROMOTE"]


def test_answers_are_counted_by_how_they_ended_and_priced_by_the_tokens_that_the_server_counts(tmp_path: Path) -> None:
    columns = {
        "item_id": ["a", "b", "c", "d"], "text": ["whole", "cut", "", "  "], "n_new_tokens": [5, 9, 0, 2],
        "finished": [True, False, False, True], "loss": [0.0] * 4, "n_prompt_tokens": [10, 10, 10, 10],
        "has_text": [True, True, False, False],
    }  # fmt: skip

    def inspect(name: str, **change: Any) -> CheckEvidence:
        folder = tmp_path / name
        (folder / "out").mkdir(parents=True)
        pq.write_table(pa.table(columns | change), folder / "predictions.parquet")
        answers = Predictions(root=folder, n_items=4, n_new_tokens=16)
        prices = TokenPrices(usd_per_m_in=100.0, usd_per_m_out=1000.0)
        return inspect_answers(folder / "out", answers=answers, prices=prices, max_incomplete=0.25)

    found = inspect("counted")
    assert found.values == {
        "empty": 2.0, "cut": 1.0, "allowed": 0.25, "prompt_tokens": 40.0, "new_tokens": 16.0, "usd_per_1k": 5.0
    }  # fmt: skip
    assert json.loads((found.root / "evidence.json").read_bytes()) == found.values
    uncounted = inspect("uncounted", n_prompt_tokens=[10, 0, 10, 10])
    assert (uncounted.values["usd_per_1k"], uncounted.values["cut"]) == (None, 1.0)
