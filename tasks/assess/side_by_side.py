"""Compare two recorded runs: scores on the items that both answered, and the tickets in each part of their splits.

The intervals are the gate's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.artifacts import EvalSet, Scores, Splits
from schemas.errors import GateError
from schemas.metrics import MetricTraits
from tasks.assess.clusters import Clusters
from tasks.assess.evidence import ArmScores, line_up
from tasks.assess.judge import ChangeTest, Judgement, judge_change

OUTCOMES = {"PROMOTE": "better", "BLOCK": "worse", "HOLD": "not shown"}
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class MetricLine:
    """One metric of two models on the same items."""

    metric: str
    n_common: int
    first: float | None
    """Mean over the common items."""
    second: float | None
    difference: float | None
    """second - first."""
    lower: float | None
    upper: float | None
    """One-sided confidence bounds of it, each at `confidence`."""
    won: int | None
    """Items on which the second is better."""
    lost: int | None
    summary: str
    """Whether the second is `better`, `worse` or `not shown`, or why that is unknown."""


@dataclass(frozen=True)
class Overlap:
    """Tickets of one part of the splits."""

    part: str
    both: int
    only_first: int
    only_second: int


def compare_metrics(
    first: Scores, second: Scores, *, traits: Sequence[MetricTraits], confidence: float
) -> tuple[MetricLine, ...]:
    """Compare every metric that both have, on the items that both answered."""
    known = {each.name: each for each in traits}
    one, other = ArmScores(first, known), ArmScores(second, known)
    names = [name for name in known if name in first.means and name in second.means]
    return tuple(_line(one, other, known[name], confidence) for name in names)


def _line(one: ArmScores, other: ArmScores, traits: MetricTraits, confidence: float) -> MetricLine:
    nothing = dict.fromkeys(("first", "second", "difference", "lower", "upper", "won", "lost"))
    try:
        before, after = one.values(traits.name), other.values(traits.name)
    except GateError as error:
        return MetricLine(traits.name, 0, summary=error.message, **nothing)
    common = sorted(before.keys() & after.keys())
    if not common:
        return MetricLine(traits.name, 0, summary="no item was answered by both", **nothing)
    judged = _judge_items(after, before, common, ChangeTest(traits, confidence, "the first run"))
    summary = OUTCOMES.get(judged.verdict, judged.verdict)
    if not judged.won and not judged.lost:
        summary = "equal on every item"
    elif judged.lower is None:  # such as too few items
        summary = f"{summary}: {judged.reason.rpartition(', but ')[2]}".rstrip(".")
    return MetricLine(
        metric=traits.name, n_common=len(common), first=judged.reference, second=judged.candidate,
        difference=judged.difference, lower=judged.lower, upper=judged.upper, won=judged.won, lost=judged.lost,
        summary=summary,
    )  # fmt: skip


def _judge_items(
    candidate: Mapping[str, float],
    reference: Mapping[str, float],
    items: Sequence[str],
    test: ChangeTest,
    *,
    clusters: Clusters | None = None,
) -> Judgement:

    def numbers(values: Mapping[str, float]) -> NDArray[np.float64]:
        return np.array([values[item] for item in items], np.float64)

    belongs = None if clusters is None else clusters.of(items)
    return judge_change(numbers(candidate), numbers(reference), test, clusters=belongs)


def judge_scores(
    candidate: Scores,
    reference: Scores,
    test: ChangeTest,
    *,
    items: EvalSet | None = None,
    cluster_by: str | None = None,
) -> Judgement:
    """Judge two arms that answered the same items, as a rule of the gate would.

    Args:
        items: The held-out items; only needed for `cluster_by`.

    Raises:
        GateError: TG0603, a value is missing or not a number, or the items differ; TG0606, no such column.
    """
    metric = test.traits.name
    known = {metric: test.traits}
    one, other = ArmScores(candidate, known), ArmScores(reference, known)
    order = line_up(one, other, metric=metric, slice_name=None).item_ids
    clusters = None if cluster_by is None else Clusters.read(items, cluster_by)
    return _judge_items(one.values(metric), other.values(metric), order, test, clusters=clusters)


def compare_splits(first: Splits, second: Splits) -> tuple[tuple[Overlap, ...], int]:
    """Count the tickets in each part, and those that one run trained on and the other held out."""
    ours, theirs = _ids(first), _ids(second)
    overlaps = tuple(
        Overlap(part, len(ours[part] & theirs[part]), len(ours[part] - theirs[part]), len(theirs[part] - ours[part]))
        for part in PARTS
    )
    moved = len(ours["train"] & theirs["test"]) + len(ours["test"] & theirs["train"])
    return overlaps, moved


def _ids(splits: Splits) -> dict[str, set[str]]:
    places = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {
        part: set(pq.read_table(path, columns=["ticket_id"])["ticket_id"].to_pylist()) for part, path in places.items()
    }
