"""The warning that an arm which costs less is better at what is trained, where no rule says so."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from schemas.artifacts import GateDecision, Scores
from schemas.gates import ChangeThreshold, GateRule, GatesSpec
from tasks.assess.gate import JudgedArms, decide

N = 140


def right(n: int) -> list[float]:
    return [1.0] * n + [0.0] * (N - n)


@pytest.fixture
def judge(make_scores: Callable[..., Scores], new_folder: Callable[[], Path]) -> Callable[..., GateDecision]:
    def run(
        metric: str, *, tuned: Sequence[float], tfidf: Sequence[float], labels: Sequence[str] = ("field_category",)
    ) -> GateDecision:
        rule = GateRule(metric=metric, change_threshold=ChangeThreshold(against="best_baseline"))
        return decide(
            new_folder(),
            judged=JudgedArms(
                candidate=make_scores(
                    "tuned", {"style": right(N), **dict.fromkeys(("exact", "field_category"), tuned)}
                ),
                baselines=(
                    make_scores("zero_shot", dict.fromkeys(("style", "exact", "field_category"), right(20))),
                    make_scores("tfidf", dict.fromkeys(labels, tfidf)),
                ),
            ),
            gates=GatesSpec(rules=(rule,), contamination=None, round_trip=None, if_missing="baseline"),
        )

    return run


def test_a_verdict_names_a_classifier_that_routes_better_although_no_rule_compares_with_it(
    judge: Callable[..., GateDecision],
) -> None:
    found = judge("style", tuned=right(130), tfidf=right(138))
    wanted = (
        "tfidf, which needs no language model, is better at field_category: 0.986 against 0.929 on 140 items, and no "
        "rule compares with it."
    )
    assert (found.verdict, found.cheaper) == ("PROMOTE", wanted)
    assert found.reason.endswith(wanted)
    assert judge("style", tuned=right(136), tfidf=right(138)).cheaper == ""  # two items may be chance
    assert judge("style", tuned=right(138), tfidf=right(130)).cheaper == ""


def test_a_rule_that_compares_with_the_classifier_needs_no_warning(judge: Callable[..., GateDecision]) -> None:
    found = judge("field_category", tuned=right(130), tfidf=right(138))
    assert (found.verdict, found.best_baseline, found.cheaper) == ("BLOCK", "tfidf", "")
    # Of a single field `exact` has the same values: it is compared where the classifier answers, and then says enough.
    found = judge("exact", tuned=right(130), tfidf=right(138), labels=("field_category", "exact"))
    assert (found.verdict, found.best_baseline, found.cheaper) == ("BLOCK", "tfidf", "")
    assert judge("exact", tuned=right(130), tfidf=right(138)).cheaper.startswith("tfidf")  # it does not answer here
