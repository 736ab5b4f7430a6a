"""The metric `reply` on real replies: no reply never passes, and an equal candidate is rarely held."""

import csv
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import CheckEvidence, EvalSet, GateDecision, Predictions, Scores, Splits
from schemas.evaluation import EvaluateSpec
from schemas.gates import GatesSpec
from schemas.metrics import ReplyMetric
from tasks.assess.gate import GateContext, JudgedArms, decide
from tasks.assess.reply import overlap, set_reply_floor
from tasks.assess.score import score_answers

ANSWER = "[{category}]\n{reply}"
FIELDS = r"\A\s*\[(?P<category>[^\[\]\n]+)\]"
EVALUATE = EvaluateSpec(fields=FIELDS, metrics=(ReplyMetric(uses="reply"),), slices=())
JUNK = "lol no. go away"
Row = dict[str, Any]


def gates(margin: float) -> GatesSpec:
    """A comparison of labels, and the guard."""
    labels = {"metric": "field_category", "change_threshold": {"mode": "no_worse", "margin": 0.05}}
    guard = {"metric": "reply", "change_threshold": {"mode": "no_worse", "margin": margin}}
    return GatesSpec.model_validate({"rules": [labels, guard], "contamination": None, "round_trip": None})


@pytest.fixture(scope="module")
def desk(shared_data: Path, make_splits: Callable[..., Splits]) -> Splits:
    """600 tickets of Bitext: 27 intents, replies of 667 characters (median)."""
    path = shared_data / "bitext_support" / "bitext_support_training_2023-08-18.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        found = list(csv.DictReader(stream))[::7][:600]
    rows = [
        {"ticket_id": f"t{n:04d}", "body": row["instruction"], "reply": row["response"], "category": row["intent"]}
        for n, row in enumerate(found)
    ]
    held = [n % 6 == 0 for n in range(len(rows))]
    return make_splits(
        train=[row for row, out in zip(rows, held, strict=True) if not out],
        validation=[row for row, out in zip(rows, held, strict=True) if out][:40],
        test=[row for row, out in zip(rows, held, strict=True) if out],
    )


@pytest.fixture(scope="module")
def floor(desk: Splits, new_folder: Callable[[], Path]) -> CheckEvidence:
    return set_reply_floor(new_folder(), splits=desk, answer=ANSWER, fields=FIELDS)


@pytest.fixture
def verdict(
    desk: Splits, floor: CheckEvidence, make_items: Callable[..., EvalSet],
    make_predictions: Callable[..., Predictions], new_folder: Callable[[], Path],
) -> Callable[[Callable[[Row], str], Callable[[Row], str]], GateDecision]:  # fmt: skip
    """The gate's decision on a candidate and a champion that answer as these functions do."""
    rows: list[Row] = pq.read_table(desk.test).to_pylist()
    items = make_items([{**row, "answer": f"[{row['category']}]\n{row['reply']}"} for row in rows])

    def score(arm: Any, answer: Callable[[Row], str]) -> Scores:
        said = [{"item_id": row["ticket_id"], "text": answer(row)} for row in rows]
        predictions = make_predictions(said)
        out = new_folder()
        return score_answers(out, items=items, predictions=predictions, evaluate=EVALUATE, arm=arm, floor=floor)

    def run(candidate: Callable[[Row], str], champion: Callable[[Row], str]) -> GateDecision:
        judged = JudgedArms(candidate=score("tuned", candidate), champion=score("champion", champion))
        context = GateContext(champion_version="1", anchor_version="1")
        return decide(new_folder(), judged=judged, gates=gates(0.1), context=context)

    return run


def labelled(reply: Callable[[Row], str]) -> Callable[[Row], str]:
    """An answer with the right label."""
    return lambda row: f"[{row['category']}]\n{reply(row)}"


def good(row: Row) -> str:
    return str(row["reply"])


def test_right_labels_before_no_reply_never_pass(verdict: Callable[..., GateDecision]) -> None:
    same = verdict(labelled(good), labelled(good))
    assert same.verdict == "PROMOTE"
    for text in (JUNK, "", "Thank you for contacting us.", "the " * 150):
        junk = verdict(labelled(lambda _row, text=text: text), labelled(good))
        guard = next(finding for finding in junk.findings if finding.metric == "reply")
        assert (junk.verdict, guard.verdict, guard.method) == ("BLOCK", "BLOCK", "tango")
    # Nor do they where the champion already answers so: then nothing is compared.
    assert verdict(labelled(lambda _row: JUNK), labelled(lambda _row: JUNK)).verdict == "HOLD"


def test_a_candidate_that_is_equal_is_rarely_held_at_100_items(
    desk: Splits, floor: CheckEvidence, make_scores: Callable[..., Scores], new_folder: Callable[[], Path]
) -> None:
    """Each answers with the reply to another ticket of the same intent, drawn anew."""
    rng = np.random.default_rng(0)
    by_intent = defaultdict(list)
    for row in pq.read_table(desk.train).to_pylist():
        by_intent[row["category"]].append(row["reply"])
    rows = [row for row in pq.read_table(desk.test).to_pylist() if by_intent[row["category"]]]
    least = floor.values["floor"]
    assert least is not None
    drawn = np.array(
        [[overlap(rng.choice(by_intent[row["category"]]), row["reply"]) >= least for _ in range(4)] for row in rows],
        np.float64,
    )
    found = Counter[str]()
    for _ in range(60):
        chosen = rng.integers(0, len(rows), 100)
        pairs = np.array([rng.permutation(4)[:2] for _ in chosen])
        values = [drawn[chosen, pairs[:, arm]].tolist() for arm in (0, 1)]
        same = [1.0] * 100
        judged = JudgedArms(
            candidate=make_scores("tuned", {"reply": values[0], "field_category": same}),
            champion=make_scores("champion", {"reply": values[1], "field_category": same}),
        )
        context = GateContext(champion_version="1", anchor_version="1")
        decision = decide(new_folder(), judged=judged, gates=gates(0.1), context=context)
        found[decision.verdict] += 1
    assert found["PROMOTE"] >= 54, found


def test_the_floor_is_measured_on_validation_tickets_and_never_on_test_tickets(
    desk: Splits, floor: CheckEvidence, make_splits: Callable[..., Splits], new_folder: Callable[[], Path]
) -> None:
    names = ("train", "validation", "test")
    train, validation, test = (pq.read_table(desk.root / f"{name}.parquet").to_pylist() for name in names)
    assert floor.values["n_validation"] == len(validation) == 40
    assert floor.n_items == 64  # train tickets take the place of those that are missing
    assert (floor.root / "evidence.json").exists()

    def measured(**splits: list[Row]) -> float | None:
        made = make_splits(**{"train": train, "validation": validation, "test": test, **splits})
        return set_reply_floor(new_folder(), splits=made, answer=ANSWER, fields=FIELDS).values["floor"]

    assert measured() == measured(test=[]) == measured(train=train[::-1]) == floor.values["floor"]
    assert measured(validation=validation[:20]) != floor.values["floor"]
    alike = [{**row, "reply": "Please restart it."} for row in train]
    assert measured(train=alike, validation=[]) == 0.5


def test_fields_are_no_part_of_a_reply_and_a_cut_answer_is_compared_with_as_much_of_the_reference(
    make_items: Callable[..., EvalSet], make_predictions: Callable[..., Predictions], new_folder: Callable[[], Path]
) -> None:
    reply = "We have sent the parcel again, and it should be with you on Monday at the latest."
    right, part = f"[billing]\n{reply}", f"[billing]\n{reply[:25]}"
    answers = {
        "whole": (right, True), "label": ("[billing]", True), "cut": (part, False), "short": (part, True),
        "empty": ("", False),
    }  # fmt: skip
    items = make_items([{"ticket_id": name, "category": "billing", "answer": right} for name in answers])
    rows = [{"item_id": name, "text": text, "finished": done} for name, (text, done) in answers.items()]
    declared = EVALUATE.model_copy(update={"metrics": (ReplyMetric(uses="reply", floor=0.6),)})
    scores = score_answers(
        new_folder(), items=items, predictions=make_predictions(rows), evaluate=declared, arm="tuned"
    )
    table = pq.read_table(scores.root / "scores.parquet", filters=[("metric", "=", "reply")]).to_pylist()
    assert {row["item_id"]: row["value"] for row in table} == {
        "whole": 1.0, "label": 0.0, "cut": 1.0, "short": 0.0, "empty": 0.0
    }  # fmt: skip
