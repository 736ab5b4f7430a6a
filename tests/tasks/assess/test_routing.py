"""Rules on what is routed: certified thresholds, applied to the gate's items, compared ticket by ticket."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import CertifiedRef, GateDecision, LabelSet, Scores
from schemas.errors import GateError
from schemas.evaluation import AbstainSpec
from schemas.gates import ChangeThreshold, GateRule, GatesSpec
from schemas.metrics import MetricTraits, review_cost_traits
from tasks.assess.abstain import UNKNOWN_EXAMPLES, certify_answers, route_answers
from tasks.assess.evidence import Arms, ArmScores, find_baselines, line_up
from tasks.assess.gate import GateContext, JudgedArms, decide
from tasks.assess.score import write_scores
from tests.tasks.assess.test_abstain import LABELS, PATTERN, SPEC, Folder, model_answers

N_ITEMS = 500
MINUTES = 4.0
MORE = GateRule(metric="coverage", change_threshold=ChangeThreshold())
AS_RIGHT = GateRule(metric="routed_accuracy", change_threshold=ChangeThreshold(mode="no_worse", margin=0.05))
CHEAPER = GateRule(metric="review_cost", change_threshold=ChangeThreshold())


def certificate_of(
    folder: Path, *, sure_of: float = 0.8, n_calibration: int = 600, is_unknown: bool = False
) -> CertifiedRef:
    folder.mkdir(exist_ok=True)
    planning, planned = model_answers(folder / "planning", 300, seed=1, sure_of=sure_of)
    calibration, calibrated = model_answers(folder / "calibration", n_calibration, seed=2, sure_of=sure_of)
    return certify_answers(
        folder, arm="tuned", labels=label_set(folder), planning=planning, planned=planned, calibration=calibration,
        calibrated=calibrated, abstain=SPEC, is_unknown=is_unknown,
    )  # fmt: skip


def label_set(folder: Path) -> LabelSet:
    return LabelSet(root=folder, field="category", pattern=PATTERN, labels=LABELS)


@pytest.fixture(scope="module")
def routed(new_folder: Folder) -> Callable[..., Scores]:
    """Scores of a model that is sure of a share of the same items, as its certified threshold routes them."""
    kept: dict[Any, Scores] = {}

    def scores(arm: Any = "tuned", **certified: Any) -> Scores:
        key = (arm, *certified.items())
        if key not in kept:
            root = new_folder()
            sure_of = certified.get("sure_of", 0.8)
            certificate = certificate_of(root / "certified", **certified)
            items, answers = model_answers(root / "items", N_ITEMS, seed=3, sure_of=sure_of)
            before, after = root / "before", root / "after"
            before.mkdir()
            after.mkdir()
            exact = [(f"t{number:04}", {"exact": 1.0}) for number in range(N_ITEMS)]
            plain = write_scores(exact, metrics=("exact",), slices=(), arm=arm, out=before)
            kept[key] = route_answers(
                after, scores=plain, items=items, predictions=answers, labels=label_set(root),
                certificate=certificate, review_minutes=MINUTES,
            )  # fmt: skip
        return kept[key]

    return scores


@pytest.fixture
def judge(routed: Callable[..., Scores], new_folder: Folder) -> Callable[..., GateDecision]:
    def run(candidate: dict[str, Any], champion: dict[str, Any] | None, *rules: GateRule) -> GateDecision:
        return decide(
            judged=JudgedArms(
                candidate=routed(**candidate),
                champion=None if champion is None else routed("champion", **champion),
            ),
            gates=GatesSpec(rules=rules, contamination=None, round_trip=None, anchor=None),
            context=GateContext(
                champion_version=None if champion is None else "3", traits=(review_cost_traits(MINUTES),)
            ),
            out=new_folder(),
        )

    return run


Judge = Callable[..., GateDecision]


def test_a_candidate_that_is_as_right_and_routes_more_wins(judge: Judge, routed: Callable[..., Scores]) -> None:
    more, less = {"sure_of": 0.85}, {"sure_of": 0.6}
    better = judge(more, less, MORE, AS_RIGHT, CHEAPER)
    assert better.verdict == "PROMOTE", better.reason
    coverage, accuracy, cost = better.findings[:3]
    assert coverage.candidate is not None
    assert 0.8 < coverage.candidate < 0.95
    assert cost.candidate == pytest.approx(MINUTES * (1 - coverage.candidate))
    assert accuracy.n_items < N_ITEMS, "only tickets that are routed count"
    means = routed(**more).means
    assert means["routed_accuracy"] == pytest.approx(accuracy.candidate or 0, abs=0.02)
    assert means["exact"] == 1.0
    worse = judge(less, more, MORE)
    assert worse.verdict == "BLOCK"


def test_without_a_certificate_a_candidate_routes_nothing_and_passes_no_rule(
    judge: Judge, routed: Callable[..., Scores]
) -> None:
    nothing = {"n_calibration": 12}
    means = routed(**nothing).means
    assert (means["coverage"], means["review_cost"]) == (0.0, MINUTES)
    assert "routed_accuracy" not in means
    decision = judge(nothing, {}, MORE, AS_RIGHT)
    assert [finding.verdict for finding in decision.findings] == ["BLOCK", "HOLD"]
    assert "has 0 routed items" in decision.findings[1].reason
    # Nor does it win as the one that sends out no wrong answer.
    least = GateRule(metric="routed_accuracy", value_threshold=0.01)
    fewer = GateRule(metric="routed_accuracy", change_threshold=ChangeThreshold())
    assert judge(nothing, {}, least, fewer).verdict == "HOLD"
    # A champion from which nothing is certified leaves all to people: that is what the candidate is better than.
    assert judge({}, nothing, MORE).verdict == "PROMOTE"


def test_an_arm_that_was_not_certified_is_no_verdict(
    judge: Judge, routed: Callable[..., Scores], make_scores: Callable[..., Scores], new_folder: Folder
) -> None:
    plain = [make_scores(arm, {"exact": [1.0] * N_ITEMS}) for arm in ("champion", "zero_shot")]
    gates = GatesSpec(rules=(MORE,), contamination=None, round_trip=None, anchor=None)
    for judged, context in (
        (JudgedArms(candidate=routed(), champion=plain[0]), GateContext(champion_version="3")),
        (JudgedArms(candidate=routed(), baselines=(plain[1],)), GateContext()),
    ):
        assert decide(judged=judged, gates=gates, context=context, out=new_folder()).verdict == "ERROR"


def test_a_baseline_is_compared_by_what_it_routes_if_its_threshold_is_certified(
    routed: Callable[..., Scores], make_scores: Callable[..., Scores]
) -> None:
    candidate = ArmScores(routed())
    prompted = {"zero_shot": ArmScores(make_scores("zero_shot", {"exact": [1.0] * N_ITEMS}))}

    def found(**more: ArmScores) -> list[str]:
        arms = Arms(candidate, None, None, None, None, {**prompted, **more})
        return [each.scores.arm for each in find_baselines(arms, metric="coverage", items=None)]

    assert found(tfidf=ArmScores(routed("tfidf", sure_of=0.5))) == ["tfidf"]
    with pytest.raises(GateError, match="no baseline has a certified threshold"):
        found()


def test_routed_accuracy_pairs_the_tickets_that_either_model_routes(make_scores: Callable[..., Scores]) -> None:
    ours = ArmScores(make_scores("tuned", {"coverage": [1, 1, 1, 0, 0], "routed_accuracy": [1, 0, 1, 1, 1]}))
    theirs = ArmScores(make_scores("champion", {"coverage": [1, 1, 0, 1, 0], "routed_accuracy": [1, 1, 1, 0, 1]}))
    alone = line_up(ours, None, metric="routed_accuracy", slice_name=None)
    assert alone.candidate.tolist() == [1, 0, 1]
    both = line_up(ours, theirs, metric="routed_accuracy", slice_name=None)
    assert both.reference is not None
    # The third goes to a person in theirs, the fourth in ours: what a person answers is right.
    assert (both.candidate.tolist(), both.reference.tolist()) == ([1, 0, 1, 1], [1, 1, 1, 0])
    assert line_up(ours, theirs, metric="coverage", slice_name=None).n_items == 5


def test_a_certificate_says_that_nobody_knows_what_the_model_learned(tmp_path: Path) -> None:
    known = certificate_of(tmp_path / "known")
    unknown = certificate_of(tmp_path / "unknown", is_unknown=True)
    assert unknown.sentence == f"{known.sentence}; {UNKNOWN_EXAMPLES}"
    assert unknown.threshold == known.threshold


def test_minutes_of_review_are_a_metric_if_they_are_declared() -> None:
    abstain = AbstainSpec(field="category")
    assert abstain.metric_names() == ("coverage", "routed_accuracy")
    assert abstain.model_copy(update={"review_minutes": 3.0}).metric_names()[-1] == "review_cost"
    traits = review_cost_traits(3.0)
    assert isinstance(traits, MetricTraits)
    assert (traits.limits, traits.higher_is_better) == ((0.0, 3.0), False)
