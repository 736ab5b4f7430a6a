"""A language model as judge: places are exchanged, people come first, and it may block but never promote by itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import CheckEvidence, EvalSet, GateDecision, Predictions, Scores
from schemas.checks import JudgeSpec
from schemas.errors import GateError
from schemas.evaluation import EndpointSpec
from schemas.gates import GateRule, GatesSpec
from tasks.assess.gate import JudgedArms, decide
from tasks.assess.llm_judge import (
    CHOICES,
    choose_both_ways,
    judge_answers,
    kappa,
    kappa_lower,
    labels_digest,
    read_labels,
)
from tests.support.openai_desk import Desk

Gate = Callable[..., GateDecision]
NewFolder = Callable[[], Path]
LOCAL = EndpointSpec(base_url="http://127.0.0.1:9/v1", model="m")


def prefers_longer(asked: str) -> str:
    first, _, second = asked.partition("Reply A:\n")[2].partition("\n\nWhich reply")[0].partition("\n\nReply B:\n")
    return "TIE" if len(first) == len(second) else "A" if len(first) > len(second) else "B."


def choose(says: Callable[[str], str], first: str = "long answer", second: str = "short") -> str | None:
    return choose_both_ways(
        lambda messages: says(messages[-1]["content"]), criteria="Long.", question="?", first=first, second=second
    )


def test_only_a_preference_that_survives_the_exchange_counts() -> None:
    assert choose(prefers_longer) == "first"
    assert choose(prefers_longer, "short", "long answer") == "second"
    assert choose(prefers_longer, "equal", "equal") == "tie"
    assert choose(lambda _asked: "A") == "tie"  # it likes the place, not the answer
    assert choose(lambda _asked: "**B** is better") == "tie"
    assert choose(lambda _asked: "I cannot say.") is None
    assert choose(lambda _asked: "Absolutely") is None  # begins with A, says nothing


def test_kappa_is_that_of_a_published_table() -> None:
    # Cohen's own example as Fleiss gives it: 20 both yes, 5 and 10 split, 15 both no: kappa 0.4.
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert kappa(pairs) == pytest.approx(0.4)
    assert kappa([]) is None
    assert kappa([("y", "y")] * 9) is None  # agreement that chance gives as well


@pytest.mark.parametrize("line", ["{", "[]", '{"question": "q", "first": "a", "second": "b", "preferred": "A"}', "{}"])
def test_a_label_that_is_no_choice_is_reported_with_its_line(line: str, tmp_path: Path) -> None:
    good = {"question": "q", "first": "a", "second": "b", "preferred": "tie"}
    (tmp_path / "labels.jsonl").write_text(f"{json.dumps(good)}\n{line}\n")
    with pytest.raises(GateError) as raised:
        list(read_labels(tmp_path / "labels.jsonl"))
    assert (raised.value.code, str(raised.value.where).rpartition(":")[2]) == ("TG0616", "2")
    with pytest.raises(GateError):
        list(read_labels(tmp_path / "absent.jsonl"))


def test_a_real_server_gets_two_requests_a_pair_and_none_twice_after_an_interruption(
    desk: Desk, make_items: Callable[..., EvalSet], make_predictions: Callable[..., Predictions], new_folder: NewFolder
) -> None:
    ids = [f"t{number}" for number in range(6)]
    items = make_items([{"ticket_id": name, "body": f"question {name}", "answer": "x"} for name in ids])
    ours = make_predictions([{"item_id": name, "text": "a good long answer"} for name in ids])
    theirs = make_predictions([{"item_id": name, "text": "short"} for name in ids])
    root, scratch = new_folder(), new_folder()
    label = {"question": "q", "first": "long answer", "second": "no", "preferred": "first"}
    lines = [label, {**label, "first": "", "preferred": "second"}, {**label, "second": "", "preferred": "tie"}]
    (root / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = JudgeSpec(
        endpoint=EndpointSpec(base_url=desk.url, model="m"), n_items=4, labels="labels.jsonl", criteria="Be {fair}."
    )

    def run() -> CheckEvidence:
        return judge_answers(
            items=items, candidate=ours, reference=theirs, spec=spec, root=root, out=new_folder(), scratch=scratch
        )

    desk.say = prefers_longer
    judged = run()
    assert judged.n_items == 4
    assert {name: judged.values[name] for name in ("won", "lost", "tied", "unreadable", "labels")} == {
        "won": 4.0, "lost": 0.0, "tied": 0.0, "unreadable": 0.0, "labels": 3.0,
    }  # fmt: skip
    assert judged.values["kappa"] == pytest.approx(0.5)
    assert len(desk.requests) == 2 * (3 + 4)
    assert "Be {fair}." in desk.requests[0][2]["messages"][0]["content"]
    assert run().values == judged.values
    assert len(desk.requests) == 14
    assert "good" not in (judged.root / "evidence.json").read_text()
    before = labels_digest(spec, root=root)
    (root / "labels.jsonl").write_text("")
    assert labels_digest(spec, root=root) != before


def test_identical_answers_cost_no_call_and_the_pairs_are_drawn_among_the_others(
    desk: Desk, make_items: Callable[..., EvalSet], make_predictions: Callable[..., Predictions], new_folder: NewFolder
) -> None:
    ids = [f"t{number:02d}" for number in range(40)]
    items = make_items([{"ticket_id": name, "body": f"{name}?", "answer": "x"} for name in ids])
    same = make_predictions([{"item_id": name, "text": "ok"} for name in ids])
    some = make_predictions([{"item_id": name, "text": "ok" if number % 10 else "better"}
                             for number, name in enumerate(ids)])  # fmt: skip
    root = new_folder()
    label = {"question": "q", "first": "same", "second": "same", "preferred": "tie"}
    (root / "labels.jsonl").write_text(json.dumps(label) + "\n")
    spec = JudgeSpec(endpoint=EndpointSpec(base_url=desk.url, model="m"), n_items=3, labels="labels.jsonl")
    desk.say = prefers_longer
    shared = {"items": items, "reference": same, "spec": spec, "root": root}
    equal = judge_answers(new_folder(), candidate=same, scratch=new_folder(), **shared)
    assert (equal.n_items, equal.values["identical"], equal.values["labels"], desk.requests) == (0, 40.0, 0.0, [])
    differing = judge_answers(new_folder(), candidate=some, scratch=new_folder(), **shared)
    assert (differing.n_items, differing.values["won"], differing.values["identical"]) == (3, 3.0, 36.0)
    assert len(desk.requests) == 6
    # Of 40 planned items the candidate answered 15 before it was stopped, differently on 2.
    answered = pq.read_table(some.root / "predictions.parquet").to_pylist()[:15]
    stopped = make_predictions(answered).model_copy(update={"n_planned": 40})
    few = judge_answers(new_folder(), candidate=stopped, scratch=new_folder(), **shared)
    assert (few.n_items, few.values["identical"], len(desk.requests)) == (2, 13.0, 10)


def test_the_lower_bound_of_kappa_seldom_takes_a_poor_judge_for_a_good_one() -> None:
    generator = np.random.default_rng(2)
    for n, most in ((20, 0.05), (100, 0.05)):
        passed = good = 0
        for _ in range(400):
            people, guess = (generator.choice(CHOICES, n, p=[0.4, 0.4, 0.2]) for _ in range(2))
            for agrees in (0.6, 0.85):
                judge = np.where(generator.random(n) < agrees, people, guess)
                lower = kappa_lower(list(zip(judge.tolist(), people.tolist(), strict=True)))
                passed += agrees == 0.6 and lower is not None and lower >= 0.6
                good += agrees == 0.85 and lower is not None and lower >= 0.6
        assert passed / 400 <= most + 0.02
        assert good / 400 >= (0.9 if n == 100 else 0.2)
    assert kappa_lower([]) is None
    assert kappa_lower([("y", "y")] * 9) is None


@pytest.fixture
def gate(make_scores: Callable[..., Scores], new_folder: NewFolder) -> Gate:
    def run(*, n: int = 100, file: str | None = "labels.jsonl", evidence: bool = True, **values: Any) -> GateDecision:
        given = {
            "won": 10.0,
            "lost": 10.0,
            "tied": 80.0,
            "unreadable": 0.0,
            "labels": 200.0,
            "kappa": 0.8,
            "kappa_lower": 0.7,
        } | values
        found = CheckEvidence(root=Path("gone"), check="judge", n_items=n, values=given)
        return decide(
            judged=JudgedArms(
                candidate=make_scores("tuned", {"exact": [1.0] * 100}),
                champion=None,
                baselines=(make_scores("zero_shot", {"exact": [0.0] * 100}),),
                checks=(found,) if evidence else (),
            ),
            gates=GatesSpec(
                rules=(GateRule(metric="exact", value_threshold=0.5),),
                contamination=None,
                round_trip=None,
                judge=JudgeSpec(endpoint=LOCAL, labels=file),
            ),
            out=new_folder(),
        )

    return run


def test_a_calibrated_judge_blocks_what_it_surely_likes_less_and_promotes_nothing(gate: Gate) -> None:
    assert gate().verdict == "PROMOTE"
    assert gate(won=0.0, lost=0.0).verdict == "PROMOTE"  # never liked less
    worse = gate(won=2.0, lost=40.0)
    assert (worse.verdict, worse.findings[-1].part) == ("BLOCK", "judge")
    assert (worse.findings[-1].won, worse.findings[-1].lost) == (2, 40)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"file": None}, "not compared with"),
        ({"labels": 10.0}, "100 are needed"),
        ({"kappa_lower": 0.59}, "its kappa with people's choices is 0.80, at least 0.59 at 95 % confidence"),
        ({"kappa_lower": None}, "kappa"),
        ({"kappa_lower": float("nan")}, "kappa"),
    ],
)
def test_a_judge_that_does_not_agree_with_people_only_reports(change: dict[str, Any], reason: str, gate: Gate) -> None:
    decision = gate(won=0.0, lost=90.0, **change)
    finding = decision.findings[-1]
    assert (decision.verdict, finding.decides) == ("PROMOTE", False)
    assert reason in finding.reason


@pytest.mark.parametrize("change", [{"won": None}, {"lost": float("nan")}, {"unreadable": 50.0}, {"n": 0}])
def test_choices_that_cannot_be_counted_are_an_error(change: dict[str, Any], gate: Gate) -> None:
    assert gate(**change).verdict == "ERROR"


def test_a_judge_with_nothing_to_compare_is_met(gate: Gate) -> None:
    decision = gate(n=0, won=0.0, lost=0.0, tied=0.0, identical=100.0)
    assert decision.verdict == "PROMOTE"
    assert decision.findings[-1].reason == "all 100 pairs of answers are identical: nothing was compared."


def test_a_declared_judge_without_evidence_is_an_error(gate: Gate) -> None:
    assert gate(evidence=False).verdict == "ERROR"
