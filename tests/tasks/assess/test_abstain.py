"""A run's certificates: from likelihoods and margins to a threshold, on tickets that no verdict uses."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import CertifiedRef, EvalSet, LabelSet, Predictions, Splits
from schemas.errors import DataError
from schemas.evaluation import AbstainSpec
from tasks.assess.abstain import certify_answers, certify_classifier, collect_labels
from tasks.assess.baselines import ClassifierSpec
from tasks.assess.items import count_available, select_calibration_items, select_items

LABELS = ("billing", "delivery", "returns")
SPEC = AbstainSpec(field="category", target=0.9)
PATTERN = r"\[(?P<category>[a-z]+)\]"
Folder = Callable[[], Path]


def model_answers(
    folder: Path, n: int, *, seed: int, customers: int | None = None, sure_of: float = 2 / 3
) -> tuple[EvalSet, Predictions]:
    """Tickets of which the model is sure and right on two thirds, and unsure and right on half of the others.

    Its likelihoods claim too much: their logarithms are three times those of its true probabilities. Every twentieth
    answer has no label.
    """
    rng = np.random.default_rng(seed)
    items, answers = [], []
    for number in range(n):
        sure = rng.random() < sure_of
        true = int(rng.integers(3))
        right = rng.random() < (0.99 if sure else 0.5)
        written = true if right else (true + 1) % 3
        share = (0.98 if sure else 0.52) + 0.01 * rng.random()
        logs = [3 * math.log(share if place == written else (1 - share) / 2) for place in range(3)]
        silent = number % 20 == 0
        text = "We look into it." if silent else f"Sorry. [{LABELS[written]}]"
        name = f"t{number:04}"
        customer = None if customers is None else f"c{number % customers}"
        items.append({"item_id": name, "category": LABELS[true], "customer_id": customer})
        labelled = None if silent else logs
        answers.append({"item_id": name, "text": text, "answer_log": -2.0 + right, "label_logs": labelled})
    folder.mkdir(exist_ok=True)
    schema = pa.schema([("item_id", pa.string()), ("category", pa.string()), ("customer_id", pa.string())])
    pq.write_table(pa.Table.from_pylist(items, schema), folder / "items.parquet")
    pq.write_table(pa.Table.from_pylist(answers), folder / "predictions.parquet")
    return EvalSet(root=folder, n_items=n, n_available=n), Predictions(root=folder, n_items=n, n_new_tokens=n)


def certified(tmp_path: Path, n: int, *, customers: int | None = None) -> CertifiedRef:
    planning, planned = model_answers(tmp_path / "planning", 300, seed=1, customers=customers)
    calibration, calibrated = model_answers(tmp_path / "calibration", n, seed=2, customers=customers)
    out = tmp_path / "out"
    out.mkdir()
    return certify_answers(
        out,
        arm="tuned",
        labels=LabelSet(root=tmp_path, field="category", pattern=PATTERN, labels=LABELS),
        planning=planning,
        planned=planned,
        calibration=calibration,
        calibrated=calibrated,
        abstain=SPEC,
        cluster_by=None if customers is None else "customer_id",
    )


def test_what_the_model_is_sure_of_is_certified_and_an_answer_without_a_label_is_not_routed(tmp_path: Path) -> None:
    found = certified(tmp_path, 600)
    assert found.threshold is not None
    assert found.n_calibration == 600
    assert 0.5 < found.coverage < 0.75
    assert found.n_right / found.n_routed > 0.9
    assert found.curve[-1].coverage == pytest.approx(0.95)  # the others have no label
    assert found.curve[0].accuracy > found.curve[-1].accuracy
    assert [point.coverage for point in found.curve] == sorted(point.coverage for point in found.curve)
    assert 2 < found.temperature < 4.5
    assert (found.agreement, found.separation) == (1.0, 1.0)
    written = orjson.loads((tmp_path / "out" / "certificate.json").read_bytes())
    assert written["threshold"] == found.threshold
    assert "root" not in written


def test_too_few_calibration_tickets_certify_nothing_and_say_so(tmp_path: Path) -> None:
    found = certified(tmp_path, 12)
    assert (found.threshold, found.coverage) == (None, 0.0)
    assert found.sentence.endswith(f"about {found.n_more} more calibration tickets would do")


def test_an_answer_whose_likelihoods_are_no_numbers_is_never_routed(tmp_path: Path) -> None:
    whole = certified(tmp_path, 600)
    planning, planned = model_answers(tmp_path / "planning", 300, seed=1)
    calibration, calibrated = model_answers(tmp_path / "calibration", 600, seed=2)
    for broken in (planned, calibrated):
        file = broken.root / "predictions.parquet"
        rows = pq.read_table(file).to_pylist()
        for row in rows[1:11]:
            row["label_logs"] = [math.nan, -1.0, -2.0]
        pq.write_table(pa.Table.from_pylist(rows), file)
    labels = LabelSet(root=tmp_path, field="category", pattern=PATTERN, labels=LABELS)
    found = certify_answers(
        tmp_path, arm="tuned", labels=labels, planning=planning, planned=planned, calibration=calibration,
        calibrated=calibrated, abstain=SPEC,
    )  # fmt: skip
    assert found.curve[-1].coverage == pytest.approx(whole.curve[-1].coverage - 10 / 600)


def test_labels_that_are_not_the_likeliest_and_likely_wrong_answers_are_counted(tmp_path: Path) -> None:
    planning, planned = model_answers(tmp_path / "planning", 40, seed=1)
    calibration, calibrated = model_answers(tmp_path / "calibration", 40, seed=2)
    file, truths = calibrated.root / "predictions.parquet", pq.read_table(calibration.root / "items.parquet")
    rows = pq.read_table(file).to_pylist()
    for row, truth in zip(rows, truths["category"].to_pylist(), strict=True):
        row["answer_log"] = -1.0
        if row["label_logs"] is not None:
            row["text"], row["label_logs"] = f"[{truth}]", [-1.0, -1.0, -1.0]
    rows[1] |= {"text": f"[{LABELS[0]}]", "label_logs": [-2.0, -1.0, -3.0]}
    rows[2] |= {"text": f"[{LABELS[(LABELS.index(truths['category'][2].as_py()) + 1) % 3]}]", "answer_log": -0.5}
    pq.write_table(pa.Table.from_pylist(rows), file)
    labels = LabelSet(root=tmp_path, field="category", pattern=PATTERN, labels=LABELS)
    found = certify_answers(
        tmp_path, arm="tuned", labels=labels, planning=planning, planned=planned, calibration=calibration,
        calibrated=calibrated, abstain=SPEC,
    )  # fmt: skip
    assert found.agreement == pytest.approx(37 / 38)
    wrong = 1 + (truths["category"][1].as_py() != LABELS[0])
    assert found.separation == pytest.approx(0.5 * (wrong - 1) / wrong), "a tie is half"


def test_tickets_of_one_customer_are_one_observation(tmp_path: Path) -> None:
    found = certified(tmp_path, 600, customers=150)
    assert found.n_clusters == 150
    assert found.n_routed < 600


def test_the_classifier_is_certified_by_its_margins(make_splits: Callable[..., Splits], tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    words = {
        "billing": "invoice charge refund card",
        "delivery": "parcel courier late track",
        "returns": "back box label",
    }

    def tickets(start: int, n: int) -> list[dict[str, Any]]:
        found = []
        for number in range(start, start + n):
            label = LABELS[int(rng.integers(3))]
            known = words[label if rng.random() < 0.97 else LABELS[int(rng.integers(3))]].split()
            text = " ".join(rng.choice(known, 3))
            found.append({"ticket_id": f"t{number:05}", "subject": "", "body": text, "category": label})
        return found

    splits = make_splits(train=tickets(0, 200), validation=tickets(1000, 200), test=tickets(2000, 600))

    def items(split: Path, name: str) -> EvalSet:
        table = pq.read_table(split)
        (tmp_path / name).mkdir()
        pq.write_table(table.append_column("item_id", table["ticket_id"]), tmp_path / name / "items.parquet")
        return EvalSet(root=tmp_path / name, n_items=len(table), n_available=len(table))

    found = certify_classifier(
        tmp_path,
        classifier=ClassifierSpec(arm="tfidf", field="category", seed=0),
        splits=splits,
        planning=items(splits.validation, "planning"),
        calibration=items(splits.test, "calibration"),
        abstain=SPEC,
    )
    assert found.arm == "tfidf"
    assert found.threshold is not None
    assert found.coverage > 0.9


def test_calibration_tickets_are_never_items_of_the_gate(
    make_splits: Callable[..., Splits], new_folder: Folder
) -> None:
    rows = [{"ticket_id": f"t{number:04}", "body": f"text {number}", "reply": "ok"} for number in range(400)]
    splits = make_splits(test=rows)

    def ids(items: EvalSet) -> set[str]:
        return set(pq.read_table(items.root / "items.parquet")["item_id"].to_pylist())

    def chosen(seed: int, share: float) -> EvalSet:
        return select_items(
            new_folder(), splits=splits, max_items=400, seed=seed, answer="{reply}", without_share=share
        )

    calibration = ids(
        select_calibration_items(new_folder(), splits=splits, share=0.3, max_items=400, seed=0, answer="{reply}")
    )
    assert 90 <= len(calibration) <= 150
    for seed in (0, 1):
        assert ids(chosen(seed, 0.3)) == {row["ticket_id"] for row in rows} - calibration
    assert chosen(0, 0.3).n_available == count_available(splits, None, 0.3) == 400 - len(calibration)
    assert len(ids(chosen(0, 0.0))) == 400
    with pytest.raises(DataError, match="TG0221"):
        select_calibration_items(
            new_folder(), splits=make_splits(test=rows[:1]), share=1e-9, max_items=9, seed=0, answer="{reply}"
        )


def test_labels_are_those_of_train(make_splits: Callable[..., Splits], tmp_path: Path) -> None:
    rows = [{"ticket_id": f"t{number}", "category": name} for number, name in enumerate(("b", "a", None, "b"))]
    labels = collect_labels(tmp_path, splits=make_splits(train=rows), field="category", pattern=PATTERN)
    assert labels.labels == ("a", "b")
    with pytest.raises(DataError, match="TG0221"):
        collect_labels(tmp_path, splits=make_splits(train=rows[:1]), field="category", pattern=PATTERN)
