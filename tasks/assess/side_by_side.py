"""Two recorded runs beside each other: scores on the items that both answered, and which tickets went where.

Knows nothing of ledgers or configurations; `flows/views/compare.py` brings the files. The intervals are the gate's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.artifacts import EvalSet, Scores, Splits
from schemas.errors import GateError
from schemas.metrics import MetricTraits
from tasks.assess.clusters import Clusters
from tasks.assess.evidence import ArmScores, line_up
from tasks.assess.judge import Judgement, judge_change

if TYPE_CHECKING:
    from tasks.assess.compare import Floats

WORDS = {"PROMOTE": "better", "BLOCK": "worse", "HOLD": "not shown"}
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
    told: str
    """Is the second `better`, `worse`, or is it `not shown`? Or why it cannot be said."""


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
    """Every metric that both have, on the items that both answered."""
    known = {each.name: each for each in traits}
    one, other = ArmScores(first, known), ArmScores(second, known)
    names = [name for name in known if name in first.means and name in second.means]
    return tuple(_line(one, other, known[name], confidence) for name in names)


def _line(one: ArmScores, other: ArmScores, traits: MetricTraits, confidence: float) -> MetricLine:
    nothing = dict.fromkeys(("first", "second", "difference", "lower", "upper", "won", "lost"))
    try:
        before, after = one.values(traits.name), other.values(traits.name)
    except GateError as error:
        return MetricLine(traits.name, 0, told=error.message, **nothing)
    common = sorted(before.keys() & after.keys())
    if not common:
        return MetricLine(traits.name, 0, told="no item was answered by both", **nothing)
    judged = judge_pairs(before, after, common, traits=traits, confidence=confidence, against="the first run")
    told = WORDS.get(judged.verdict, judged.verdict)
    if not judged.won and not judged.lost:
        told = "equal on every item"
    elif judged.lower is None:  # too few items, say
        told = f"{told}: {judged.reason.rpartition(', but ')[2]}".rstrip(".")
    return MetricLine(
        metric=traits.name, n_common=len(common), first=judged.reference, second=judged.candidate,
        difference=judged.difference, lower=judged.lower, upper=judged.upper, won=judged.won, lost=judged.lost,
        told=told,
    )  # fmt: skip


def judge_pairs(
    reference: Mapping[str, float],
    candidate: Mapping[str, float],
    items: Sequence[str],
    *,
    traits: MetricTraits,
    confidence: float,
    against: str,
    clusters: Clusters | None = None,
) -> Judgement:
    """Is the candidate better on these items? The gate's `improve`, without its rules."""

    def numbers(values: Mapping[str, float]) -> Floats:
        import numpy as np

        return np.array([values[item] for item in items], np.float64)

    return judge_change(
        numbers(candidate), numbers(reference), metric=traits.name, margin=None, against=against,
        confidence=confidence, traits=traits, clusters=None if clusters is None else clusters.of(items),
    )  # fmt: skip


def judge_scores(
    candidate: Scores,
    reference: Scores,
    *,
    traits: MetricTraits,
    confidence: float,
    against: str,
    items: EvalSet | None = None,
    cluster_by: str | None = None,
) -> Judgement:
    """The same of two arms that answered the same items.

    Args:
        items: The held-out items; needed for `cluster_by` alone.

    Raises:
        GateError: TG0603, a value is missing or no number, or other items; TG0606, no such column.
    """
    known = {traits.name: traits}
    one, other = ArmScores(candidate, known), ArmScores(reference, known)
    order = line_up(one, other, metric=traits.name, slice_name=None).item_ids
    clusters = None if cluster_by is None else Clusters.read(items, cluster_by)
    return judge_pairs(
        other.values(traits.name), one.values(traits.name), order, traits=traits, confidence=confidence,
        against=against, clusters=clusters,
    )  # fmt: skip


def compare_splits(first: Splits, second: Splits) -> tuple[tuple[Overlap, ...], int]:
    """Tickets that both runs have in each part, and how many one run trained on and the other held out."""
    ours, theirs = _ids(first), _ids(second)
    overlaps = tuple(
        Overlap(part, len(ours[part] & theirs[part]), len(ours[part] - theirs[part]), len(theirs[part] - ours[part]))
        for part in PARTS
    )
    moved = len(ours["train"] & theirs["test"]) + len(ours["test"] & theirs["train"])
    return overlaps, moved


def _ids(splits: Splits) -> dict[str, set[str]]:
    import pyarrow.parquet as pq

    places = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {
        part: set(pq.read_table(path, columns=["ticket_id"])["ticket_id"].to_pylist()) for part, path in places.items()
    }
