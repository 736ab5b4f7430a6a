"""A small budget is no reason to block, and none to promote."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.artifacts import CheckEvidence, DatasetRef, GateDecision, Scores, Splits
from schemas.gates import ChangeThreshold, GateRule, GatesSpec
from tasks.assess.few_examples import count_few
from tasks.assess.gate import JudgedArms, decide

MakeScores = Callable[..., Scores]
NewFolder = Callable[[], Path]
RULE = GateRule(metric="field_category", change_threshold=ChangeThreshold(against="best_baseline"))


@pytest.fixture
def count(make_splits: Callable[..., Splits], new_folder: NewFolder) -> Callable[..., CheckEvidence]:
    """Count the labels of train tickets by how many of each are encoded."""

    def run(train: dict[str, int], encoded: dict[str, int]) -> CheckEvidence:
        rows = [
            {"ticket_id": f"{label}{i}", "body": "b", "category": label} for label, n in train.items() for i in range(n)
        ]
        ids = [f"{label}{i}" for label, n in encoded.items() for i in range(n)]
        root = new_folder()
        (root / "train").mkdir()
        with pa.OSFile(str(root / "train" / "data.arrow"), "wb") as file:
            table = pa.table({"ticket_id": ids})
            with pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
        dataset = DatasetRef(
            root=root, n_train=len(ids), n_validation=0, n_tokens=1, n_supervised=1, n_dropped=0, max_tokens=1
        )
        return count_few(new_folder(), splits=make_splits(train=rows), dataset=dataset, field="category")

    return run


def test_a_label_counts_if_the_budget_left_it_with_fewer_than_five(count: Callable[..., CheckEvidence]) -> None:
    train = {"billing": 40, "returns": 40, "rare": 3}
    found = count(train, {"billing": 10, "returns": 4, "rare": 3})
    assert found.values == {"n_labels": 3.0, "n_few": 1.0, "n_examples": 17.0}  # more tickets of `rare` do not exist
    assert count(train, {"billing": 5, "returns": 5, "rare": 3}).values["n_few"] == 0
    assert count(train, {"billing": 5}).values["n_few"] == 2


@pytest.fixture
def verdict(make_scores: MakeScores, new_folder: NewFolder) -> Callable[..., GateDecision]:
    def run(n_right: int, *, evidence: CheckEvidence | None) -> GateDecision:
        def right(n: int) -> list[float]:
            return [1.0] * n + [0.0] * (60 - n)

        return decide(
            new_folder(),
            judged=JudgedArms(
                candidate=make_scores("tuned", {"field_category": right(n_right)}),
                baselines=(
                    make_scores("zero_shot", {"field_category": right(2)}),
                    make_scores("tfidf", {"field_category": right(50)}),
                ),
                checks=() if evidence is None else (evidence,),
            ),
            gates=GatesSpec(rules=(RULE,), contamination=None, round_trip=None),
        )

    return run


def test_a_budget_that_starves_labels_is_held_and_never_blocked(
    count: Callable[..., CheckEvidence], verdict: Callable[..., GateDecision]
) -> None:
    train = dict.fromkeys(("a", "b", "c"), 40)
    starved, fed = count(train, {"a": 5, "b": 2, "c": 1}), count(train, dict.fromkeys(train, 5))
    assert verdict(20, evidence=None).verdict == "BLOCK"  # as in every whole run
    assert verdict(20, evidence=fed).verdict == "BLOCK"
    held = verdict(20, evidence=starved)
    assert held.verdict == "HOLD"
    assert "0.333 against 0.833 of best_baseline (tfidf) on 60 items" in held.reason
    assert "of the 8 examples of this run 2 of 3 labels have fewer than 5" in held.reason
    # What is promoted, and what is held for want of evidence, does not depend on it.
    for n_right in (48, 60):
        assert verdict(n_right, evidence=starved).verdict == verdict(n_right, evidence=None).verdict
