"""Which training is chosen: targets, ties, NaN, missing ones, and when curation is more promising."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import DatasetRef, Scores, Splits, TrainedRef
from schemas.choice import TargetSpec
from schemas.errors import ConfigError, GateError, TrainingError
from schemas.metrics import MetricTraits
from schemas.trials import ChoiceRef, TrialRef
from tasks.assess.choose import choose_training
from tasks.assess.climb import advise, judge_target, paired_gain
from tasks.assess.compare import Bounds
from tasks.assess.items import select_validation_items
from tasks.assess.trial import weigh_training

EXACT = MetricTraits(name="exact")
LOSS = MetricTraits(name="heldout_loss", continuous=True, higher_is_better=False)


def weigh(
    folder: Path,
    name: str,
    values: list[float],
    *,
    number: int = 1,
    traits: MetricTraits = EXACT,
    n_trainable: int = 10,
    losses: tuple[float, float | None] = (1.0, 1.1),
    **more: Any,
) -> TrialRef:
    """A training with answers of these values."""
    scores, trained, out = (folder / f"{part}-{name}" for part in ("scores", "trained", "out"))
    for each in (scores, trained, out):
        each.mkdir(parents=True)
    ids = [f"T-{index:03}" for index in range(len(values))]
    table = {"item_id": ids * 2, "metric": [traits.name] * len(ids) + ["other"] * len(ids), "value": values * 2}
    pq.write_table(pa.table(table).sort_by([("item_id", "descending")]), scores / "scores.parquet")
    reported = {"base": {"uri": "file:tiny#sha256=1"}, "predicted_memory": {"total": 7}}
    (trained / "training.json").write_text(json.dumps(reported))
    return weigh_training(
        trained=TrainedRef(
            root=trained, digest=name, method="lora", format="instruction", base_digest="b", n_trainable=n_trainable,
            n_steps=2, n_tokens=30, train_loss=losses[0], validation_loss=losses[1],
        ),
        dataset=DatasetRef(
            root=folder, n_train=9, n_validation=1, n_tokens=30, n_supervised=9, n_dropped=0, max_tokens=5
        ),
        scores=Scores(root=scores, arm="tuned", n_items=len(values), means={}),
        name=name, number=number, changes={"seed": number}, traits=traits, out=out, **more,
    )  # fmt: skip


def choose(folder: Path, *trials: TrialRef, names: list[str] | None = None, **more: Any) -> ChoiceRef:
    out = folder / "choice"
    out.mkdir()
    names = names or [trial.row.name for trial in trials]
    return choose_training(trials=trials, names=names, out=out, **({"kind": "grid", "traits": EXACT} | more))


def test_the_best_mean_wins_and_its_lead_is_bounded(tmp_path: Path) -> None:
    low = weigh(tmp_path, "trial_01", [1.0, 0.0, 0.0, 0.0])
    high = weigh(tmp_path, "trial_02", [1.0, 1.0, 1.0, 0.0], number=2)
    choice = choose(tmp_path, low, high)
    assert choice.winner == "trial_02"
    assert choice.why.startswith("trial_02 is the best of 2 trials with exact 0.75 on 4 validation items, 0.5 ahead")
    assert "bounds -" in choice.why  # four items prove nothing, and it says so
    rows = pq.read_table(choice.root / "trials.parquet").to_pylist()
    assert [(row["name"], row["state"], row["value"], row["memory_bytes"]) for row in rows] == [
        ("trial_01", "done", 0.25, 7), ("trial_02", "chosen", 0.75, 7),
    ]  # fmt: skip
    assert json.loads(rows[1]["changes"]) == {"seed": 2}
    assert json.loads((choice.root / "choice.json").read_text())["winner"] == "trial_02"


def test_where_less_is_better_the_least_wins(tmp_path: Path) -> None:
    trials = [weigh(tmp_path, f"t{n}", [loss] * 3, number=n, traits=LOSS) for n, loss in enumerate((2.0, 1.0, 3.0), 1)]
    choice = choose(tmp_path, *trials, traits=LOSS)
    assert choice.winner == "t2"
    assert "too few items for bounds" in choice.why


def test_of_equal_trials_the_smaller_and_then_the_earlier_wins(tmp_path: Path) -> None:
    same = [1.0, 0.0]
    big = weigh(tmp_path, "a", same, n_trainable=90)
    small = weigh(tmp_path, "b", same, number=2)
    later = weigh(tmp_path, "c", same, number=3)
    assert choose(tmp_path, big, small, later).winner == "b"


def test_nan_never_wins_and_nothing_finite_is_an_error(tmp_path: Path) -> None:
    broken = weigh(tmp_path, "trial_01", [1.0, math.nan], traits=LOSS)
    poor = weigh(tmp_path, "trial_03", [9.0, 9.0], number=3, traits=LOSS)
    assert broken.row.value is None
    choice = choose(tmp_path, broken, poor, names=["trial_01", "trial_02", "trial_03"], traits=LOSS)
    assert choice.winner == "trial_03"
    assert [row.state for row in choice.rows] == ["failed", "failed", "chosen"]
    assert choice.why.endswith("; 2 failed")
    none = tmp_path / "none"
    none.mkdir()
    with pytest.raises(TrainingError, match=r"TG0401.*none of 2 trainings has a finite heldout_loss"):
        choose(none, broken, names=["trial_01", "trial_02"], traits=LOSS)
    alone = tmp_path / "alone"
    alone.mkdir()
    with pytest.raises(TrainingError, match="none of 1"):
        choose(alone, names=["trial_01"])


def test_the_first_rung_that_meets_the_target_wins_even_when_a_later_one_is_better(tmp_path: Path) -> None:
    target = TargetSpec(metric="exact", value=0.5, by="estimate")
    first = weigh(tmp_path, "rung_a", [0.0, 0.0, 0.0, 1.0], target=target)
    second = weigh(tmp_path, "rung_b", [1.0, 1.0, 0.0, 0.0], number=2, target=target, earlier=[first])
    assert (first.row.met, second.row.met, second.row.gain) == (False, True, 0.25)
    assert second.row.gain_lower is not None
    assert second.row.gain_lower < 0
    names = ["rung_a", "rung_b", "rung_c"]
    declared = [{"method": "qlora"}, {"method": "lora"}, {"method": "full"}]
    choice = choose(tmp_path, first, second, names=names, kind="ladder", declared=declared)
    assert (choice.winner, choice.met) == ("rung_b", True)
    assert [row.state for row in choice.rows] == ["done", "chosen", "not_started"]
    assert choice.rows[2].changes == {"method": "full"}
    assert choice.why.startswith("rung_b is the first rung that meets the target (met: the mean is 0.5 (no bound)")
    assert pq.read_table(choice.root / "ladder.parquet").num_rows == 3


def test_when_no_rung_meets_the_target_the_best_goes_on_and_says_so(tmp_path: Path) -> None:
    target = TargetSpec(metric="exact", value=0.99, by="estimate")
    first = weigh(tmp_path, "rung_a", [1.0, 0.0], target=target)
    second = weigh(tmp_path, "rung_b", [1.0, 0.0], number=2, target=target, n_trainable=1)
    choice = choose(tmp_path, first, second, names=["rung_a", "rung_b", "rung_c"], kind="ladder")
    assert (choice.winner, choice.met) == ("rung_a", False)  # of equals the lower rung
    assert choice.why.startswith("no rung meets the target; rung_a is the best of 2")
    assert choice.rows[2].state == "failed"


def test_a_target_by_bound_is_not_met_by_luck() -> None:
    target = TargetSpec(metric="exact", value=0.8)
    met, bound, reported = judge_target([1.0] * 9 + [0.0], traits=EXACT, target=target, n_rungs=1)
    assert (met, round(bound or 0, 3)) == (False, 0.663)  # Clopper-Pearson, 9 of 10 at 90 %
    assert reported.startswith("missed: the mean 0.9 is at least 0.663")
    alone, two = (judge_target([1.0] * 20, traits=EXACT, target=target, n_rungs=n) for n in (1, 2))
    assert alone[0]
    assert two[0]
    assert (two[1] or 1) < (alone[1] or 0)  # the more rungs, the more it takes
    assert judge_target([], traits=EXACT, target=target, n_rungs=1)[0] is False
    assert judge_target([1.0, math.nan], traits=EXACT, target=target, n_rungs=1)[:2] == (False, None)


def test_a_loss_has_a_bound_from_320_items_on() -> None:
    target = TargetSpec(metric="heldout_loss", value=1.2)
    values = [1.0 + 0.1 * math.sin(index) for index in range(320)]
    met, bound, _ = judge_target(values, traits=LOSS, target=target, n_rungs=1)
    assert met
    assert bound is not None
    assert 1.0 < bound < 1.02
    few = judge_target(values[:319], traits=LOSS, target=target, n_rungs=1)
    assert few[:2] == (False, None)
    assert "319 items are too few to bound heldout_loss" in few[2]
    assert judge_target([1.0] * 400, traits=LOSS, target=target, n_rungs=1)[0] is False  # no spread, no bound
    by_mean = target.model_copy(update={"by": "estimate"})
    assert judge_target(values[:3], traits=LOSS, target=by_mean, n_rungs=1)[0]


def test_trainings_on_other_items_are_not_compared() -> None:
    with pytest.raises(GateError, match="TG0603"):
        paired_gain({"a": 1.0, "b": 0.0}, {"a": 1.0, "c": 0.0}, traits=EXACT, confidence=0.9)
    gain = paired_gain({"a": 1.0}, {"a": 2.0}, traits=LOSS.model_copy(update={"continuous": False}), confidence=0.9)
    assert gain is not None
    assert gain.estimate == 1.0  # less loss is a gain


@pytest.mark.parametrize(
    ("climbed", "gain", "train_loss", "validation_loss", "curate"),
    [
        (False, None, 0.2, 1.0, True),
        (False, None, 0.9, 1.0, False),  # not learnt yet: a larger model may
        (True, Bounds(0.02, -0.01, 0.05), 0.5, 1.0, True),
        (True, Bounds(0.06, 0.02, 0.1), 0.2, 1.0, False),  # climbing has paid
        (True, None, 0.2, 1.0, True),  # a gain that cannot be bounded is not shown
        (True, None, 0.2, None, False),
        (False, None, 0.0, 0.0, False),
        (False, None, 0.2, math.nan, False),
        (False, None, math.nan, 1.0, False),
    ],
)
def test_curation_is_advised_when_train_is_learnt_and_climbing_has_shown_nothing(
    climbed: bool, gain: Bounds | None, train_loss: float, validation_loss: float | None, curate: bool
) -> None:
    reported = advise(climbed=climbed, gain=gain, train_loss=train_loss, validation_loss=validation_loss)
    assert bool(reported) == curate


def test_the_advice_stands_in_the_row_of_a_rung_that_missed(tmp_path: Path) -> None:
    target = TargetSpec(metric="exact", value=0.9, by="estimate")
    assert weigh(tmp_path, "a", [0.0], target=target, losses=(0.1, 1.0)).row.advice.startswith("more or cleaner")
    assert weigh(tmp_path, "b", [1.0], target=target, losses=(0.1, 1.0)).row.advice == ""
    assert weigh(tmp_path, "c", [0.0], losses=(0.1, 1.0)).row.advice == ""


def test_an_empty_validation_split_is_an_error(tmp_path: Path) -> None:
    splits = Splits(
        root=tmp_path, rows={"n_in": 3, "n_out": 3}, n_train=2, n_validation=0, n_test=1,  # type: ignore[arg-type]
    )  # fmt: skip
    with pytest.raises(ConfigError, match="TG0160"):
        select_validation_items(splits=splits, max_items=5, seed=0, answer="{reply}", out=tmp_path)
