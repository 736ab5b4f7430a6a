"""Wrong references: how many there are by labels or raters, and a margin that tolerates more than it says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gates.guards import noisy_pass
from schemas.artifacts import GateDecision, LabelSources, Scores
from schemas.gates import ChangeThreshold, GateRule, GatesSpec
from tasks.assess.gate import GateContext, JudgedArms, decide
from tasks.assess.learnable import probe_labels
from tasks.assess.wrong_references import count_contradicted, measured_share, share_of_labels, share_of_raters
from tests.tasks.assess.test_learnable import tickets

EQUAL = ([1.0] * 900 + [0.0] * 50 + [1.0] * 50, [1.0] * 900 + [1.0] * 50 + [0.0] * 50)


@pytest.fixture
def judge(make_scores: Callable[..., Scores], new_folder: Callable[[], Path]) -> Callable[..., GateDecision]:
    def run(
        contradicted: int, *, mode: str = "no_worse", metric: str = "exact", raters: tuple[int, int] = (0, 0)
    ) -> GateDecision:
        candidate, champion = make_scores("tuned", {metric: EQUAL[0]}), make_scores("champion", {metric: EQUAL[1]})
        labels = LabelSources(
            root=Path("gone"), field="category", n_checked=800, n_suspects=0, n_sure=200, n_contradicted=contradicted,
            groups=(), shifts=(),
        )  # fmt: skip
        change = ChangeThreshold(mode=mode, margin=0.05) if mode != "improve" else ChangeThreshold()
        return decide(
            judged=JudgedArms(candidate=candidate, champion=champion, labels=labels),
            gates=GatesSpec(
                rules=(GateRule(metric=metric, change_threshold=change),),
                contamination=None,
                round_trip=None,
                anchor=None,
            ),
            context=GateContext(champion_version="3", rater_pairs=raters),
            out=new_folder(),
        )

    return run


def test_a_verdict_warns_of_a_margin_that_wrong_references_widen(judge: Callable[..., GateDecision]) -> None:
    clean, wrong = judge(0), judge(20)
    assert (clean.verdict, clean.references) == ("PROMOTE", "")
    assert judge(7).references == "", "a classifier contradicts so many of 77 labels that are all right"
    assert wrong.verdict == "PROMOTE", "it warns, and decides nothing"
    assert "About 10 % of the references are wrong (a classifier contradicts 20 of the 200 labels" in wrong.references
    assert "passes a true loss of 0.05 in" in wrong.references
    assert "a margin of 0.04 allows for it" in wrong.references
    assert wrong.reason.endswith(wrong.references)
    assert judge(20, mode="improve").references == ""
    assert judge(20, metric="finished").references == "", "no reference is needed for it"
    assert "no margin allows for that" in judge(110).references


def test_labels_by_people_are_as_often_wrong_as_raters_differ(judge: Callable[..., GateDecision]) -> None:
    few, many = (judge(0, metric="exact", raters=pairs) for pairs in ((40, 20), (200, 36)))
    assert (few.references, many.references) == ("", "")  # people labelled nothing of `exact`
    found = share_of_raters(200, 36)
    assert found is not None
    assert found.rate == pytest.approx(0.1, abs=0.002)
    assert share_of_raters(200, 190).rate == 0.5  # type: ignore[union-attr]
    assert share_of_raters(40, 20) is None
    assert share_of_labels(49, 10) is None


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2])
def test_a_margin_that_allows_for_wrong_references_tolerates_what_it_says(rate: float) -> None:
    plain, allowed = noisy_pass(rate, margin=0.05), noisy_pass(rate, margin=0.05 * measured_share(rate))
    assert allowed <= 0.05 < 0.08 < plain


def test_the_labels_of_which_a_classifier_is_surest_show_how_many_are_wrong() -> None:
    generator = np.random.default_rng(6)
    names = ["invoice", "parcel", "password", "refund"]
    fillers = np.array(["please", "today", "again", "still", "the", "my", "about", "with", "help", "now"])
    own = generator.integers(0, 4, 1200)
    bodies = [
        " ".join([names[label], *generator.choice(fillers, 6), f"w{n % 37}"]) for n, label in enumerate(own.tolist())
    ]
    for rate in (0.0, 0.15):
        moved = np.where(generator.random(1200) < rate, (own + generator.integers(1, 4, 1200)) % 4, own)
        probe = probe_labels(tickets(bodies), {"queue": [names[label] for label in moved.tolist()]})["queue"]
        assert (0.0 if probe.wrong is None else probe.wrong.rate) == pytest.approx(rate, abs=0.06)
    assert count_contradicted(np.zeros(0), np.zeros(0, bool)) == (0, 0)
