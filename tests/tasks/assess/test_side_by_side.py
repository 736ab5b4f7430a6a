"""Two runs on common items, and the table of an ablation: paired bounds, and what cannot be said."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from schemas.artifacts import EvalSet, RowCounts, Scores, Splits
from schemas.gates import GateRule, GatesSpec
from schemas.metrics import MetricTraits
from tasks.assess.ablation import AblationRow, answer_of, judge_arm, shared_confidence
from tasks.assess.compare import tango_interval
from tasks.assess.judge import ChangeTest
from tasks.assess.score import write_scores
from tasks.assess.side_by_side import compare_metrics, compare_splits

EXACT = MetricTraits(name="exact")
CHRF = MetricTraits(name="chrf", continuous=True)


def scores(root: Path, values: Mapping[str, float], *, chrf: float = 0.5) -> Scores:
    root.mkdir(parents=True)
    rows = [(item, {"exact": value, "chrf": chrf}) for item, value in sorted(values.items())]
    return write_scores(rows, metrics=("exact", "chrf"), slices=(), arm="tuned", out=root)


def right(n: int, *, of: int, start: int = 0) -> dict[str, float]:
    return {f"t{number:04}": float(number - start < n) for number in range(start, start + of)}


def test_only_common_items_are_compared_and_the_bounds_are_the_gates(tmp_path: Path) -> None:
    first, second = scores(tmp_path / "a", right(40, of=120)), scores(tmp_path / "b", right(60, of=120, start=20))
    exact, chrf = compare_metrics(first, second, traits=(EXACT, CHRF), confidence=0.95)
    won, lost = 40, 0  # items 20 to 119: the first right on 20 to 39, the second on 20 to 79
    assert (exact.n_common, exact.won, exact.lost) == (100, won, lost)
    bounds = tango_interval(won, lost, 100, confidence=0.95)
    assert (exact.lower, exact.upper) == (bounds.lower, bounds.upper)
    assert exact.difference == pytest.approx(0.4)
    assert exact.summary == "better"
    assert (chrf.lower, chrf.summary) == (None, "equal on every item")


def test_a_metric_of_one_run_alone_or_without_common_items_has_no_figure(tmp_path: Path) -> None:
    first, second = scores(tmp_path / "a", right(4, of=10)), scores(tmp_path / "b", right(4, of=10, start=50))
    (line,) = compare_metrics(first, second, traits=(EXACT,), confidence=0.95)
    assert (line.n_common, line.difference, line.summary) == (0, None, "no item was answered by both")
    broken = scores(tmp_path / "c", right(4, of=10) | {"t0000": math.nan})
    lines = compare_metrics(first, broken, traits=(EXACT, MetricTraits(name="absent")), confidence=0.95)
    assert lines == ()  # a metric that is no number everywhere has no mean, and an absent one none either


def test_tickets_of_both_runs_and_those_that_changed_sides(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def splits(name: str, train: str, test: str) -> Splits:
        root = tmp_path / name
        root.mkdir()
        for part, ids in (("train", train), ("validation", ""), ("test", test)):
            pq.write_table(pa.table({"ticket_id": pa.array(list(ids), pa.string())}), root / f"{part}.parquet")
        return Splits(root=root, rows=RowCounts(n_in=0, n_out=0), n_train=0, n_validation=0, n_test=0)

    overlaps, moved = compare_splits(splits("a", "abcd", "xy"), splits("b", "abx", "yd"))
    assert [(each.part, each.both, each.only_first, each.only_second) for each in overlaps] == [
        ("train", 2, 2, 1),
        ("validation", 0, 0, 0),
        ("test", 1, 1, 1),
    ]
    assert moved == 2


def judged(tmp_path: Path, curated: Mapping[str, float], arm: Mapping[str, float]) -> AblationRow:
    return judge_arm(
        AblationRow(arm="raw", description=""), curated=scores(tmp_path / "curated", curated),
        arm=scores(tmp_path / "raw", arm), test=ChangeTest(EXACT, 0.975, "arm raw"),
        items=EvalSet(root=tmp_path, n_items=0, n_available=0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("curated", "arm", "gain", "answer"),
    [(90, 50, "helps", "Yes"), (50, 90, "harms", "No"), (52, 50, "not shown", "Not shown"),
     (50, 50, "no item differs", "Not shown")],
)  # fmt: skip
def test_an_arm_helps_harms_or_shows_nothing(tmp_path: Path, curated: int, arm: int, gain: str, answer: str) -> None:
    row = judged(tmp_path, right(curated, of=100), right(arm, of=100))
    assert row.gain == gain
    assert row.difference == pytest.approx((curated - arm) / 100)
    assert answer_of({"raw": row}).startswith(f"{answer}:")


@pytest.mark.parametrize(
    "arm", [right(5, of=99), right(5, of=100) | {"t0003": math.nan}, right(5, of=100) | {"t0003": 0.5}]
)
def test_other_items_or_broken_scores_are_not_judged(tmp_path: Path, arm: Mapping[str, float]) -> None:
    row = judged(tmp_path, right(50, of=100), arm)
    assert (row.gain, row.difference) == ("not judged", None)
    assert answer_of({"raw": row}).startswith("Not known:")


def test_several_comparisons_share_the_error_probability() -> None:
    gates = GatesSpec(rules=(GateRule(metric="exact", value_threshold=0.5),))
    assert shared_confidence(gates, 1) == pytest.approx(0.95)
    assert shared_confidence(gates, 5) == pytest.approx(0.99)
    assert answer_of({"without-x": AblationRow(arm="without-x", description="", gain="helps")}).startswith(
        "Not compared"
    )
