"""Read scored arms, pair them item by item, and find the reference of a rule.

A candidate is compared with the champion, the anchor, an endpoint, or the best baseline. Used by
`tasks/assess/questions.py`, which turns each error into the verdict ERROR.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.artifacts import Scores
from schemas.errors import GateError
from schemas.gates import GatesSpec
from schemas.metrics import COVERAGE, RIGHT, ROUTED_ACCURACY, ROUTING_METRICS, MetricTraits, traits_of

PROMPTING_ARMS = ("zero_shot", "few_shot", "retrieval", "rag", "endpoint")
CLASSIFIER_ARMS = ("majority", "tfidf")
BASELINE_ARMS = (*PROMPTING_ARMS, *CLASSIFIER_ARMS)
"""The arms of `best_baseline`, of those that have the metric: classifiers have the routing field alone. Of equal arms,
the first is the best. The endpoint is none where a rule compares with it."""


UNLABELLED = "TG0624"
"""Code of the error that answers have no labels: more labels decide, so the verdict is HOLD."""
LABEL_IDS = "labels.parquet"
"""File next to the scores: item -> id of the label that the arm's answer needs. Equal answers share one."""


@dataclass(frozen=True)
class Paired:
    """Scores of one metric on the same items, ordered by item id."""

    candidate: NDArray[np.float64]
    reference: NDArray[np.float64] | None = None
    item_ids: tuple[str, ...] = ()

    @property
    def n_items(self) -> int:
        return len(self.candidate)


class ArmScores:
    """The scores of one arm: metric -> item id -> value. Files are read on first use.

    Args:
        of: Only the items of this arm, which a run stopped before it had answered all.
        labels: Id of a label -> whether the answer is accepted; in place of the labels that the scores were made with.
    """

    def __init__(
        self,
        scores: Scores,
        known: Mapping[str, MetricTraits] | None = None,
        *,
        of: ArmScores | None = None,
        labels: Mapping[str, bool] | None = None,
    ) -> None:
        self.arm: str = scores.arm
        self._scores = scores
        self._known = known
        self._of = of
        self._labels = labels

    def measures(self, metric: str) -> bool:
        """Whether the arm was scored by the metric."""
        return metric in self._metrics

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the arm was scored by."""
        return tuple(self._metrics)

    def traits(self, metric: str) -> MetricTraits:
        """The traits of the metric."""
        return traits_of(metric, self._known)

    @cached_property
    def _metrics(self) -> Mapping[str, Mapping[str, float]]:
        metrics: dict[str, dict[str, float]] = {}
        for item_id, metric, value in self._rows("scores.parquet", "item_id", "metric", "value"):
            values = metrics.setdefault(str(metric), {})
            if item_id is None or item_id in values:
                raise GateError(f"arm {self.arm} has two scores of {metric} for one item", code="TG0603")
            values[item_id] = math.nan if value is None else float(value)
        if self._of is not None:
            wanted = self._of.item_ids
            metrics = {
                metric: {item: value for item, value in values.items() if item in wanted}
                for metric, values in metrics.items()
            }
        if self._labels is not None and RIGHT in metrics:
            metrics[RIGHT] |= {
                item: float(self._labels.get(name, math.nan))
                for item, name in self._rows(LABEL_IDS, "item_id", "label")
                if item in metrics[RIGHT]
            }
        return metrics

    @cached_property
    def labels(self) -> Mapping[str, bool | None]:
        """Id of a label that the arm needs -> whether the answer is accepted; None without a label.

        Empty for an arm that is not scored by labels.
        """
        values = self._metrics.get(RIGHT)
        if values is None:
            return {}
        needed = [(name, values[item]) for item, name in self._rows(LABEL_IDS, "item_id", "label") if item in values]
        return {name: None if math.isnan(value) else value > 0 for name, value in needed}

    def with_labels(self, labels: Mapping[str, bool]) -> ArmScores:
        """Return the arm as these labels score it."""
        return ArmScores(self._scores, self._known, of=self._of, labels=labels)

    def _rows(self, file: str, *columns: str) -> Iterator[tuple[Any, ...]]:
        try:
            table = pq.read_table(self._scores.root / file, columns=list(columns))
        except (OSError, pa.ArrowException) as error:
            what = file.partition(".")[0]
            raise GateError(
                f"the {what} of arm {self.arm} cannot be read ({type(error).__name__})", code="TG0603"
            ) from None
        return zip(*(table.column(name).to_pylist() for name in columns), strict=True)

    @cached_property
    def item_ids(self) -> frozenset[str]:
        """Ids of all items with a score."""
        return frozenset(item_id for values in self._metrics.values() for item_id in values)

    @property
    def _n_items(self) -> int:
        return self._scores.n_items if self._of is None else len(self._of.item_ids)

    @cached_property
    def slices(self) -> Mapping[str, frozenset[str]]:
        """Slice name -> ids of its items."""
        members: dict[str, set[str]] = {}
        for item_id, name in self._rows("slices.parquet", "item_id", "slice"):
            members.setdefault(name, set()).add(item_id)
        return {name: frozenset(ids) for name, ids in members.items()}

    def values(self, metric: str) -> Mapping[str, float]:
        """Item id -> finite value.

        Raises:
            GateError: TG0603, the metric is missing, has no value for some item, or has an impossible value.
        """
        values = self._metrics.get(metric)
        if not values:
            raise GateError(f"arm {self.arm} has no scores of {metric}", code="TG0603")
        if len(values) != self._n_items:
            raise GateError(f"arm {self.arm} has {metric} for {len(values)} of {self._n_items} items", code="TG0603")
        n_broken = sum(not math.isfinite(value) for value in values.values())
        if n_broken and metric == RIGHT:
            raise GateError(
                f"the answers of arm {self.arm} to {n_broken} of {len(values)} items have no label on which the raters "
                "agree; `tunegate gate label RUN` asks for them",
                code=UNLABELLED,
            )
        if n_broken:
            raise GateError(
                f"{metric} of arm {self.arm} is not a number on {n_broken} of {len(values)} items", code="TG0603"
            )
        if not self.traits(metric).continuous and not all(value in (0.0, 1.0) for value in values.values()):
            raise GateError(f"{metric} of arm {self.arm} has values other than 0 and 1", code="TG0603")
        return values


def line_up(
    candidate: ArmScores,
    reference: ArmScores | None,
    *,
    metric: str,
    slice_name: str | None,
    without: frozenset[str] = frozenset(),
) -> Paired:
    """Pair the metric of both arms on the same items: all, or those of one slice, which may be empty.

    `routed_accuracy` is about the items that at least one of them routes, and about none if the candidate routes none:
    whoever leaves all to people proves nothing. Which items these are depends on no answer's being right.

    Args:
        without: Ids of items that do not count.

    Raises:
        GateError: TG0603 (see `ArmScores.values`), or the arms were scored on different items.
    """
    values = candidate.values(metric)
    other = None if reference is None else _values_on_same_items(candidate, reference, metric)
    chosen = frozenset(values) if slice_name is None else candidate.slices.get(slice_name, frozenset()) & values.keys()
    if metric == ROUTED_ACCURACY:
        chosen = frozenset(chosen) & _routed(candidate, reference)
    order = sorted(chosen - without)
    return Paired(
        np.array([values[item_id] for item_id in order], np.float64),
        None if other is None else np.array([other[item_id] for item_id in order], np.float64),
        tuple(order),
    )


def _routed(candidate: ArmScores, reference: ArmScores | None) -> frozenset[str]:
    """Items that the candidate or the reference routes; none if the candidate routes none."""
    ours = frozenset(item for item, value in candidate.values(COVERAGE).items() if value)
    if reference is None or not ours:
        return ours
    return ours | {item for item, value in reference.values(COVERAGE).items() if value}


def ranked_arms(
    baselines: Mapping[str, ArmScores], candidate: ArmScores, *, metric: str, items: frozenset[str] | None
) -> list[ArmScores]:
    """The baselines, best mean of the metric first, over all items of the candidate or these.

    Classifiers only if they have the metric; of what is routed the prompting arms too, which have no certificate.

    Raises:
        GateError: TG0605, no baseline was scored; TG0603, as in `line_up`, for any of them.
    """
    required = () if metric in ROUTING_METRICS else PROMPTING_ARMS
    arms = [
        baselines[name]
        for name in BASELINE_ARMS
        if name in baselines and (name in required or baselines[name].measures(metric))
    ]
    if not arms and metric in ROUTING_METRICS:
        raise GateError(f"no baseline has a certified threshold, so there is no {metric} to beat", code="TG0605")
    if not arms:
        raise GateError("there is no prompting arm to compare with; add zero_shot to evaluate.arms", code="TG0605")

    def goodness(arm: ArmScores) -> float:
        values = _values_on_same_items(candidate, arm, metric)
        chosen = [value for item_id, value in values.items() if items is None or item_id in items]
        mean = math.fsum(chosen) / len(chosen) if chosen else 0.0
        return mean if arm.traits(metric).higher_is_better else -mean

    return sorted(arms, key=goodness, reverse=True)


def _values_on_same_items(candidate: ArmScores, reference: ArmScores, metric: str) -> Mapping[str, float]:
    values, other = candidate.values(metric), reference.values(metric)
    if other.keys() != values.keys():
        raise GateError(
            f"arm {candidate.arm} and arm {reference.arm} were scored on different items: "
            f"{len(values.keys() - other.keys())} and {len(other.keys() - values.keys())} only in one",
            code="TG0603",
        )
    return other


@dataclass(frozen=True)
class Arms:
    """Every scored arm of one decision."""

    candidate: ArmScores
    champion: ArmScores | None
    champion_version: str | None
    anchor: ArmScores | None
    anchor_version: str | None
    baselines: Mapping[str, ArmScores]
    endpoint: str = ""
    """Name of the model that answers in the arm endpoint, or of the file with its answers."""

    @cached_property
    def labels(self) -> Mapping[str, bool | None]:
        """Id of a label that some arm needs -> whether the answer is accepted; None without a label."""
        return {name: value for arm in self._each() for name, value in arm.labels.items()}

    def completed(self, *, accept: bool) -> Arms:
        """Return the arms with all labels: those that are missing accept the candidate's answers alone, or all others.

        Every other choice of the missing labels lies between these two for each comparison with the candidate.
        """
        ours = self.candidate.labels
        labels = {name: (name in ours) == accept if value is None else value for name, value in self.labels.items()}
        return replace(
            self,
            candidate=self.candidate.with_labels(labels),
            champion=None if self.champion is None else self.champion.with_labels(labels),
            anchor=None if self.anchor is None else self.anchor.with_labels(labels),
            baselines={name: arm.with_labels(labels) for name, arm in self.baselines.items()},
        )

    def _each(self) -> list[ArmScores]:
        arms = (self.candidate, self.champion, self.anchor, *self.baselines.values())
        return [arm for arm in arms if arm is not None]


@dataclass(frozen=True)
class Reference:
    """The reference of a comparison."""

    scores: ArmScores
    name: str
    """As in rule texts and reasons."""
    baseline: str | None = None
    """The arm, if it is a baseline."""
    replaced: bool = False
    """It replaces a champion that does not exist."""


def find_champion(
    arms: Arms, gates: GatesSpec, *, metric: str, items: frozenset[str] | None, guards: bool = False
) -> tuple[Reference, ...]:
    """The champion; without one, with `if_missing: baseline`, every baseline, the best first.

    Args:
        guards: A guard compares with an incumbent endpoint, too, which a rule has to name.

    Raises:
        GateError: TG0605, there is no champion and no replacement, or its scores or version are missing.
    """
    if (arms.champion is None) != (arms.champion_version is None):
        missing = "scores" if arms.champion is None else "version"
        raise GateError(f"there is a champion, but the gate did not get its {missing}", code="TG0605")
    if arms.champion is not None:
        return (Reference(arms.champion, f"champion (version {arms.champion_version})"),)
    if gates.if_missing == "error":
        raise GateError("there is no champion, and gates.if_missing is error", code="TG0605")
    if not guards:
        return find_baselines(arms, metric=metric, items=items, without=incumbents(gates), replaced=True)
    named = {name: find_endpoint(arms) for name in incumbents(gates)}
    found = find_baselines(arms, metric=metric, items=items, replaced=True)
    return tuple(named.get(each.scores.arm, each) for each in found)


def incumbents(gates: GatesSpec) -> tuple[str, ...]:
    """Return the arms that a rule compares with as what is to be replaced, and that are no baselines then."""
    return ("endpoint",) if gates.has_incumbent else ()


def find_endpoint(arms: Arms) -> Reference:
    """The incumbent endpoint.

    Raises:
        GateError: TG0605, it has no scores.
    """
    scores = arms.baselines.get("endpoint")
    if scores is None:
        raise GateError(
            "there are no answers of an endpoint to compare with; declare evaluate.endpoint, or give `gate check` "
            "--baseline endpoint=FILE",
            code="TG0605",
        )
    return Reference(scores, f"endpoint ({arms.endpoint})" if arms.endpoint else "endpoint")


def find_baselines(
    arms: Arms, *, metric: str, items: frozenset[str] | None, without: Collection[str] = (), replaced: bool = False
) -> tuple[Reference, ...]:
    """Every baseline, that with the best mean on the items first.

    All are compared with: the best of them is picked on the judged items, and owes a part of its lead to chance.

    Args:
        without: Arms that are none.

    Raises:
        GateError: TG0605, no baseline was scored.
    """
    baselines = {name: arm for name, arm in arms.baselines.items() if name not in without}
    ranked = ranked_arms(baselines, arms.candidate, metric=metric, items=items)
    return tuple(Reference(arm, f"best_baseline ({arm.arm})", arm.arm, replaced) for arm in ranked)


def find_anchor(arms: Arms) -> Reference | None:
    """The anchor; None if it is the champion, which the rule compares with anyway.

    Raises:
        GateError: TG0605, its scores or its version are missing.
    """
    if arms.champion is None or (arms.anchor_version is not None and arms.anchor_version == arms.champion_version):
        return None
    if arms.anchor is None or arms.anchor_version is None:
        missing = "version" if arms.anchor_version is None else "scores"
        raise GateError(f"gates.anchor needs an anchor, but the gate did not get its {missing}", code="TG0605")
    return Reference(arms.anchor, f"anchor (version {arms.anchor_version})")
