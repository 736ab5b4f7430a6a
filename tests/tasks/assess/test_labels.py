"""Labels only where answers differ: the same verdicts, whatever equal answers are worth."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from schemas.artifacts import Predictions, Scores
from schemas.evaluation import EvaluateSpec
from schemas.gates import GatesSpec
from tasks.assess.contract import change_outcome, guard_outcome, settle
from tasks.assess.evidence import ArmScores
from tasks.assess.gate import GateContext, JudgedArms, decide
from tasks.assess.labels import AnswerKeys, add_right, fill_equal, find_questions, label_terms
from tasks.assess.power import paired_items_needed

LABELS = EvaluateSpec(labels="differing", slices=())


def test_the_labels_of_equal_answers_change_no_decision_of_1000_runs() -> None:
    rng = np.random.default_rng(11)
    n_runs, n_items = 1000, 400
    differs = rng.random((n_runs, n_items)) < rng.uniform(0.02, 0.4, (n_runs, 1))
    truth = rng.random((n_runs, 2, n_items)) < rng.uniform(0.3, 0.9, (n_runs, 2, 1))
    truth[:, 1] = np.where(differs, truth[:, 1], truth[:, 0])  # equal answers are equally right
    in_slice = np.arange(n_items) < 120

    def decisions(values: np.ndarray) -> np.ndarray:
        gained, lost = values[:, 0] > values[:, 1], values[:, 0] < values[:, 1]
        rules = [
            change_outcome(gained.sum(-1), lost.sum(-1), n_items, margin=margin, alpha=0.05) for margin in (0.0, 0.03)
        ]
        rules.append(guard_outcome((gained & in_slice).sum(-1), (lost & in_slice).sum(-1), 120))
        met, p_harm = (np.stack([getattr(rule, name) for rule in rules], -1) for name in ("met", "p_harm"))
        return settle(met, p_harm, alpha=0.05)

    coins = rng.integers(0, 2, (n_runs, 2, n_items)).astype(float)
    unknown = np.where(differs[:, None], truth, np.where(rng.random(coins.shape) < 0.5, coins, math.nan))
    everything, only_differing = decisions(truth.astype(float)), decisions(fill_equal(unknown, differs))
    assert (everything == only_differing).all()
    assert len(np.unique(everything)) == 3  # the runs reach every verdict


@pytest.mark.parametrize(("discordance", "most"), [(0.05, 0.08), (0.1, 0.15), (0.2, 0.30)])
def test_a_gain_of_three_points_costs_few_labels(discordance: float, most: float) -> None:
    """Of answers that differ, 1.4 times as many as of verdicts: two answers may both be wrong."""
    n_items = paired_items_needed(0.03, discordance=discordance)
    assert n_items is not None
    rng = np.random.default_rng(3)
    answers = [{f"{n:04d}": "a" for n in range(n_items)}, {}]
    answers[1] = {item: "b" if rng.random() < 1.4 * discordance else "a" for item in answers[0]}
    needed = find_questions(list(answers[0]), answers, LABELS)
    assert len(needed) / n_items <= most


Make = Callable[..., Any]


def labelled(
    make_scores: Make, make_items: Make, make_predictions: Make, new_folder: Make, arms: dict[str, list[str]],
    labels: dict[str, bool], evaluate: EvaluateSpec = LABELS, slices: Sequence[str] = (),
) -> dict[str, Scores]:  # fmt: skip
    ids = [f"i{n:06d}" for n in range(len(next(iter(arms.values()))))]
    answers: dict[str, Predictions] = {
        arm: make_predictions([{"item_id": item, "text": text} for item, text in zip(ids, texts, strict=True)])
        for arm, texts in arms.items()
    }
    items = make_items([{"ticket_id": item, "answer": ""} for item in ids])
    return {
        arm: add_right(
            new_folder(), scores=make_scores(arm, {"exact": [0.0] * len(ids)}, slices=slices), items=items,
            mine=answers[arm],
            others=tuple(answers[other] for other in arms if other != arm), evaluate=evaluate, labels=labels,
        )
        for arm in arms
    }  # fmt: skip


def judge(new_folder: Make, scores: dict[str, Scores], rule: dict[str, Any]) -> Any:
    gates = GatesSpec.model_validate(
        {"rules": [rule], "min_items": 5, "round_trip": None, "contamination": None, "anchor": None}
    )
    return decide(
        new_folder(),
        judged=JudgedArms(candidate=scores["tuned"], champion=scores["champion"], baselines=()),
        gates=gates,
        context=GateContext(champion_version="1"),
    )


IMPROVE = {"metric": "right", "change_threshold": {"mode": "improve"}}


def test_a_verdict_waits_for_labels_and_follows_from_them(
    make_scores: Make, make_items: Make, make_predictions: Make, new_folder: Make
) -> None:
    arms = {"tuned": [f"new {n}" for n in range(40)] + ["same"] * 60, "champion": ["old"] * 40 + ["same  "] * 60}
    keys = AnswerKeys(LABELS)
    labels = {keys.label_of(f"i{n:06d}", f"new {n}"): n % 5 > 0 for n in range(40)}
    labels |= {keys.label_of(f"i{n:06d}", "old"): n % 5 == 0 for n in range(15)}
    waiting = judge(new_folder, labelled(make_scores, make_items, make_predictions, new_folder, arms, labels), IMPROVE)
    assert waiting.verdict == "HOLD"
    assert "champion to 25 of 100 items" in waiting.reason
    assert "tunegate gate label RUN" in waiting.reason
    labels |= {keys.label_of(f"i{n:06d}", "old"): n % 5 == 0 for n in range(15, 40)}
    decided = judge(new_folder, labelled(make_scores, make_items, make_predictions, new_folder, arms, labels), IMPROVE)
    assert decided.verdict == "PROMOTE"
    assert (decided.findings[0].won, decided.findings[0].lost, decided.findings[0].n_items) == (32, 8, 100)


def test_a_verdict_does_not_wait_for_labels_that_cannot_change_it(
    make_scores: Make, make_items: Make, make_predictions: Make, new_folder: Make
) -> None:
    arms = {"tuned": [f"new {n}" for n in range(40)] + ["same"] * 60, "champion": ["old"] * 40 + ["same"] * 60}
    keys = AnswerKeys(LABELS)

    def decision(n_labelled: int, n_won: int) -> Any:
        labels = {keys.label_of(f"i{n:06d}", f"new {n}"): n < n_won for n in range(n_labelled)}
        labels |= {keys.label_of(f"i{n:06d}", "old"): n >= n_won for n in range(n_labelled)}
        return judge(new_folder, labelled(make_scores, make_items, make_predictions, new_folder, arms, labels), IMPROVE)

    passed = decision(34, 34)
    assert passed.verdict == "PROMOTE"
    assert (passed.findings[0].won, passed.findings[0].lost) == (34, 6)
    assert "answers without a label (12) count against the candidate" in passed.findings[0].reason
    assert decision(20, 20).verdict == "HOLD"
    failed = decision(25, 8)
    assert failed.verdict == "HOLD"
    assert "(30) cannot change this" in failed.reason
    assert decision(40, 8).verdict == "BLOCK"  # the others can still show harm
    collapsed = decision(36, 0)
    assert collapsed.verdict == "BLOCK"  # for certain
    assert "(8) count in favour of the candidate" in collapsed.findings[0].reason


def test_a_rule_decided_before_its_labels_are_complete_is_decided_so_by_all_of_them(
    make_scores: Make, make_items: Make, make_predictions: Make, new_folder: Make
) -> None:
    """Random answers of three arms, random labels, some of them missing, and random completions of those."""
    gates = GatesSpec.model_validate(
        {
            "rules": [
                {"metric": "right", "change_threshold": {"mode": "improve"}},
                {"metric": "right", "change_threshold": {"mode": "no_worse", "margin": 0.1}},
                {"metric": "right", "change_threshold": {"mode": "refresh", "margin": 0.05}},
                {"metric": "right", "change_threshold": {"mode": "improve", "against": "best_baseline"}},
                {"metric": "right", "slice": "labels=random", "value_threshold": 0.4},
            ],
            "slices": {"by": ["product"], "metric": "right"},
            "min_items": 5, "round_trip": None, "contamination": None, "anchor": None,
        }
    )  # fmt: skip
    evaluate = LABELS.model_copy(update={"random_labels": 20})
    keys, rng, early = AnswerKeys(evaluate), np.random.default_rng(5), Counter[tuple[bool, str]]()

    def findings(arms: dict[str, list[str]], labels: dict[str, bool]) -> tuple[dict[str, str], set[str]]:
        """Rule -> verdict, and the rules that wait for labels."""
        slices = [f"product={number % 3}" for number in range(len(arms["tuned"]))]
        scores = labelled(
            make_scores, make_items, make_predictions, new_folder, arms, labels, evaluate, slices=slices
        )  # fmt: skip
        decision = decide(
            new_folder(),
            judged=JudgedArms(candidate=scores["tuned"], champion=scores["champion"], baselines=(scores["zero_shot"],)),
            gates=gates,
            context=GateContext(champion_version="1"),
        )
        rules = {re.sub(r" \([^)]*\)", "", each.rule): each for each in decision.findings}
        verdicts = {rule: each.verdict if each.decides else "PROMOTE" for rule, each in rules.items()}
        waiting = {rule for rule, each in rules.items() if "no label on which" in each.reason}
        return verdicts | {"gate": decision.verdict}, waiting

    for better in (0.02, 0.1, *rng.uniform(0.05, 0.95, 7)):
        n = int(rng.integers(30, 120))
        texts = rng.choice(list("abc"), (3, n), p=[0.7, 0.15, 0.15])
        texts[2] = np.where(rng.random(n) < 0.5, texts[1], texts[2])
        arms = {arm: list(row) for arm, row in zip(("tuned", "champion", "zero_shot"), texts, strict=True)}
        truth = {
            keys.label_of(f"i{item:06d}", text): bool(rng.random() < (better if arm == "tuned" else 1 - better))
            for arm in reversed(arms) for item, text in enumerate(arms[arm])
        }  # fmt: skip
        share = rng.choice([0.02, 0.1, 0.3])
        missing = {label for label in truth if rng.random() < share}
        decided, waiting = findings(arms, {label: right for label, right in truth.items() if label not in missing})
        early.update((rule.startswith("right in product"), decided[rule]) for rule in decided.keys() - waiting)
        for chance in (0.1, 0.9):
            guessed = {label: bool(rng.random() < chance) if label in missing else truth[label] for label in truth}
            whole, _ = findings(arms, guessed)
            for rule in decided.keys() - waiting - {"gate"}:
                assert (decided[rule] == "PROMOTE") == (whole[rule] == "PROMOTE"), rule
                assert decided[rule] != "BLOCK" or whole[rule] == "BLOCK", rule
            assert (decided["gate"] == "PROMOTE") <= (whole["gate"] == "PROMOTE")
    seen = [early[part, verdict] for part, verdict in ((False, "PROMOTE"), (False, "HOLD"), (True, "PROMOTE"))]
    assert min(*seen, early[False, "BLOCK"]) > 1


def test_a_limit_is_judged_on_a_random_part_that_is_labelled_whether_answers_differ_or_not(
    make_scores: Make, make_items: Make, make_predictions: Make, new_folder: Make
) -> None:
    evaluate = LABELS.model_copy(update={"random_labels": 30})
    arms = {"tuned": ["fine"] * 100, "champion": ["fine"] * 100}
    ids, keys = [f"i{n:06d}" for n in range(100)], AnswerKeys(evaluate)
    questions = find_questions(ids, [dict.fromkeys(ids, "fine")] * 2, evaluate)
    assert len(questions) == 30
    labels = {keys.label_of(each.item_id, "fine"): True for each in questions}
    scores = labelled(make_scores, make_items, make_predictions, new_folder, arms, labels, evaluate)
    limit = {"metric": "right", "slice": "labels=random", "value_threshold": 0.8}
    gates = {"rules": [limit], "min_items": 5, "compare": {"off": "only the limit"}, "contamination": None}
    decision = decide(
        new_folder(),
        judged=JudgedArms(candidate=scores["tuned"], champion=scores["champion"], baselines=()),
        gates=GatesSpec.model_validate({**gates, "round_trip": None}),
        context=GateContext(champion_version="1"),
    )
    assert (decision.findings[0].verdict, decision.findings[0].n_items) == ("PROMOTE", 30)
    labels[next(iter(labels))] = False
    scores = labelled(make_scores, make_items, make_predictions, new_folder, arms, labels, evaluate)
    assert sum(value == 0 for value in ArmScores(scores["tuned"]).values("right").values()) == 1


def test_with_declared_fields_answers_are_equal_if_their_fields_are() -> None:
    evaluate = EvaluateSpec(labels="differing", fields=r"\[(?P<category>[a-z]+)\]", slices=())
    answers = [
        {"1": "Sorry! [billing]", "2": "[returns]", "3": "no field"},
        {"1": "We are sorry. [billing]", "2": "[billing]", "3": "none either"},
    ]
    (question,) = find_questions(["1", "2", "3"], answers, evaluate)
    assert find_questions(["1", "2", "3"], [{"1": "[billing]"}, answers[1]], evaluate) == ()  # the first arm stopped
    assert (question.item_id, sorted(question.answers.values())) == ("2", ["[billing]", "[returns]"])
    keys = AnswerKeys(evaluate)
    reference = keys.label_of_reference({"item_id": "2", "category": "returns", "answer": "x"})
    assert reference == keys.label_of("2", "[returns]")
    assert keys.label_of_reference({"item_id": "2", "category": None, "answer": "x"}) is None


def test_where_replies_are_trained_equal_labels_do_not_make_answers_equal() -> None:
    evaluate = EvaluateSpec(labels="differing", fields=r"\A\s*\[(?P<category>[a-z]+)\]", slices=())
    answers = [{"1": "[billing]\nYour refund is on its way."}, {"1": "[billing]\nlol no. go away"}]
    assert find_questions(["1"], answers, label_terms(evaluate, "[{category}]")) == ()
    terms = label_terms(evaluate, "[{category}]\n{reply}")
    (question,) = find_questions(["1"], answers, terms)
    assert sorted(question.answers.values()) == sorted(each["1"] for each in answers)
    item = {"item_id": "1", "category": "billing", "answer": answers[0]["1"]}
    assert AnswerKeys(terms).label_of_reference(item) == AnswerKeys(terms).label_of("1", answers[0]["1"])


def test_items_that_a_stopped_candidate_did_not_answer_need_no_label() -> None:
    evaluate = EvaluateSpec(labels="differing", random_labels=1)
    found = find_questions(["a", "b"], [{"a": "yes"}, {"a": "no", "b": "maybe"}], evaluate)
    assert [each.item_id for each in found] == ["a"]
