"""What the champion's fall on fresh items means, next to its earlier verdicts, and where the verdict says it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.artifacts import GateDecision, LabelSources, Scores
from schemas.diagnosis import Diagnosis, LabelGroup, LabelShift
from schemas.gates import GatesSpec
from schemas.verdicts import Finding
from tasks.assess.decision import summarise
from tasks.assess.diagnosis import PastFacts
from tasks.assess.gate import GateContext, JudgedArms, decide

Make = Callable[..., Scores]
GATES = GatesSpec.model_validate(
    {
        "anchor": None, "contamination": None, "round_trip": None,
        "rules": [{"metric": "exact", "change_threshold": {"mode": "refresh", "margin": 0.05}}],
    }
)  # fmt: skip
WRONG = LabelGroup(
    kind="file", name="week47.csv", n_checked=800, n_suspects=412, share_elsewhere=0.04, p_chance=0.0, disagrees=True
)


def answers(share: float, n: int) -> list[float]:
    """Right answers, spread evenly."""
    return [float(int((place + 1) * share) > int(place * share)) for place in range(n)]


def labels_of(folder: Path, *groups: LabelGroup) -> LabelSources:
    return LabelSources(root=folder, field="category", n_checked=3100, n_suspects=500, groups=groups, shifts=())


@pytest.fixture
def decided(make_scores: Make, new_folder: Callable[[], Path]) -> Callable[..., GateDecision]:
    """The decision on a candidate that answers as the champion does, with the champion's earlier scores."""

    def make(
        now: Sequence[float], *past: tuple[int, Sequence[float]], labels: LabelSources | None = None, gone: int = 0
    ) -> GateDecision:
        then = tuple(make_scores("tuned", {"exact": values}, first_item=first) for first, values in past)
        context = GateContext(champion_version="3", past=PastFacts(has_own=bool(past), n_gone=gone))
        return decide(
            new_folder(),
            judged=JudgedArms(
                candidate=make_scores("tuned", {"exact": now}),
                champion=make_scores("champion", {"exact": now}),
                baselines=(),
                labels=labels,
                past=then,
            ),
            gates=GATES,
            context=context,
        )

    return make


def test_a_champion_that_falls_on_fresh_items_alone_points_to_the_data(decided: Callable[..., GateDecision]) -> None:
    known, fresh = answers(0.93, 200), answers(0.5, 100)
    found = decided([*known, *fresh], (0, known))
    assert found.verdict == "HOLD"
    assert found.diagnosis is not None
    [own] = found.diagnosis.past
    assert (own.is_own, own.n_items, own.n_common, own.n_fresh) == (True, 200, 200, 100)
    assert (own.score, own.common_then, own.common_now, own.fresh) == pytest.approx((0.93, 0.93, 0.93, 0.5))
    assert found.reason.startswith(
        "The champion itself falls to 0.500 on the 100 items that are new since its own verdict, where exact was "
        "0.930, and has 0.930 on the 200 common ones: tickets or labels changed, not the candidate. 1 of "
    )
    text = (found.root / "decision.md").read_text()
    assert "| its own verdict | 200 | 0.930 | 200 | 0.930 | 0.930 | 100 | 0.500 |" in text


def test_it_says_nothing_of_a_champion_that_holds_or_that_falls_on_the_common_items_too(
    decided: Callable[..., GateDecision],
) -> None:
    known = answers(0.9, 200)
    same = decided([*known, *answers(0.9, 100)], (0, known))
    assert same.diagnosis is not None
    assert same.diagnosis.causes() == ()
    few = decided([*known, *answers(0.0, 10)], (0, known))
    assert few.diagnosis is not None
    assert not few.diagnosis.falls
    edited = decided([*answers(0.5, 200), *answers(0.5, 100)], (0, known))  # their reference answers were rewritten
    assert edited.diagnosis is not None
    assert not edited.diagnosis.falls


def test_a_champion_that_is_as_good_as_before_rarely_counts_as_falling(make_scores: Make) -> None:
    from tasks.assess.diagnosis import diagnose
    from tasks.assess.evidence import ArmScores

    rng, n_falls = np.random.default_rng(0), 0
    for _ in range(150):
        values = (rng.random(300) < 0.7).astype(float).tolist()
        now, then = (ArmScores(make_scores("champion", {"exact": each})) for each in (values, values[:200]))
        found = diagnose(now, [then], None, GATES, facts=PastFacts(has_own=True), without=frozenset())
        n_falls += found.falls
    assert n_falls <= 7, "1.5 are expected"


def test_named_labels_come_before_how_many_items_would_decide(
    decided: Callable[..., GateDecision], tmp_path: Path
) -> None:
    now = answers(0.5, 200)
    plain, named = decided(now), decided(now, labels=labels_of(tmp_path, WRONG))
    assert named.verdict == plain.verdict == "HOLD"
    assert named.reason == (
        "The labels of week47.csv disagree with the others (412 of 800 are suspect: 52 %, elsewhere 4 %): "
        f"`tunegate data suspects` lists them, and how to leave them out. {plain.reason}"
    )
    assert "- the labels of week47.csv disagree" in (named.root / "decision.md").read_text()
    calm = WRONG.model_copy(update={"disagrees": False})
    assert decided(now, labels=labels_of(tmp_path, calm)).reason == plain.reason


def test_personal_data_in_the_names_of_files_and_labels_is_in_no_decision(
    decided: Callable[..., GateDecision], tmp_path: Path
) -> None:
    person = "eve.miller@example.org"
    file = WRONG.model_copy(update={"name": f"weeks/{person}.csv"})
    address = WRONG.model_copy(update={"name": "s3://desk/2026/week48.csv"})
    shift = LabelShift(
        field="product", n_known=600, n_new=800, distance=0.3, p_chance=0.0, drifted=True, label=person,
        share_known=0.1, share_new=0.5,
    )  # fmt: skip
    labels = labels_of(tmp_path, file, address).model_copy(update={"shifts": (shift,)})
    decision = decided(answers(0.5, 200), labels=labels)
    assert "The labels of weeks/[EMAIL_1] disagree with the others" in decision.reason
    assert "the labels of s3://desk/2026/week48.csv disagree" in decision.reason
    assert "product \\[EMAIL_1\\] has 50 % of the 800 new tickets" in (decision.root / "decision.md").read_text()
    written = [path.read_text() for path in decision.root.iterdir()]
    assert not any(person in text for text in (decision.model_dump_json(), *written))


def test_where_the_rules_are_met_it_comes_last(
    make_scores: Make, new_folder: Callable[[], Path], tmp_path: Path
) -> None:
    better, worse = answers(0.9, 400), answers(0.5, 400)
    found = decide(
        new_folder(),
        judged=JudgedArms(
            candidate=make_scores("tuned", {"exact": better}),
            champion=make_scores("champion", {"exact": worse}),
            baselines=(),
            labels=labels_of(tmp_path, WRONG),
        ),
        gates=GATES,
        context=GateContext(champion_version="3"),
    )
    assert found.verdict == "PROMOTE"
    assert found.reason.startswith("1 rule is met: exact is 0.900 against 0.500")
    assert "The labels of week47.csv disagree" in found.reason


def test_scores_that_are_gone_or_cannot_be_read_are_counted(
    decided: Callable[..., GateDecision], make_scores: Make, tmp_path: Path
) -> None:
    found = decided(answers(0.5, 100), gone=2)
    assert found.diagnosis is not None
    assert found.diagnosis.notes() == ("the champion's scores at 2 earlier verdicts are no longer in the store",)
    broken = Scores(root=tmp_path, arm="tuned", n_items=3, means={})
    other = decide(
        tmp_path,
        judged=JudgedArms(
            candidate=make_scores("tuned", {"exact": answers(0.5, 100)}),
            champion=make_scores("champion", {"exact": answers(0.5, 100)}),
            baselines=(),
            past=(broken,),
        ),
        gates=GATES,
        context=GateContext(champion_version="3"),
    )
    assert other.diagnosis is not None
    assert (other.diagnosis.past, other.diagnosis.n_past_gone) == ((), 1)


def test_later_verdicts_are_dated_from_the_last(decided: Callable[..., GateDecision]) -> None:
    now = answers(0.5, 100)
    found = decided(now, (0, now), (0, now[:50]), (50, now[50:]))
    assert found.diagnosis is not None
    assert [when for when, _ in found.diagnosis.dated()] == ["its own verdict", "2 verdicts ago", "the last verdict"]
    assert [past.n_fresh for past in found.diagnosis.past] == [0, 50, 50]


def test_weeks_are_named_only_if_no_file_is() -> None:
    week: Any = WRONG.model_copy(update={"kind": "week", "name": "2026-W47"})
    assert [group.name for group in Diagnosis(groups=(WRONG, week)).named] == ["week47.csv"]
    assert "the labels of week 2026-W47 disagree" in Diagnosis(groups=(week,)).causes()[0]


@pytest.mark.parametrize(
    ("rules", "checks", "wanted"),
    [
        (0, 1, "1 check is met, and a."), (0, 2, "All 2 checks are met, and a."), (0, 0, "A."),
        (1, 0, "1 rule is met, and a."), (2, 1, "All 2 rules and 1 check are met, and a."),
    ],
)  # fmt: skip
def test_what_is_not_there_is_not_counted_in_the_reason(rules: int, checks: int, wanted: str) -> None:
    def finding(verdict: Any, part: Any, reason: str = "b.") -> Finding:
        return Finding(
            rule="r", metric="exact", verdict=verdict, n_items=5, candidate=None, method="none", part=part,
            reason=reason,
        )  # fmt: skip

    met = [*[finding("PROMOTE", "primary")] * rules, *[finding("PROMOTE", "check")] * checks]
    assert summarise([*met, finding("UNCOMPARED", "use", "a.")], "UNCOMPARED") == wanted
