"""Declare a function as a kind of metric; see `macro_f1.py` and `text_metrics.py`.

    class QuestionMetric(MetricSpec):
        uses: Literal["asks_back"]

        def traits(self) -> MetricTraits:
            return MetricTraits(name="asks_back")

    @metric(QuestionMetric)
    def asks_back(spec: QuestionMetric) -> Score:
        return lambda text, item: float("?" in text)

This adds the keys of `QuestionMetric` to `evaluate.metrics`; gates may have rules on the metric. `metrics.py` lists the
metrics.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from schemas.metrics import METRICS, MetricSpec
from tasks.assess.fields import FieldPattern

S = TypeVar("S", bound=MetricSpec)

Score = Callable[[str, Mapping[str, object]], float]
"""(answer's text, item: ticket columns, `item_id` and the reference `answer`) -> value."""


@dataclass(frozen=True)
class Answers:
    """All answers of one arm."""

    items: Sequence[Mapping[str, Any]]
    """The held-out items, ordered by id."""
    texts: Mapping[str, str]
    """Item id -> answer."""
    fields: FieldPattern | None
    """The pattern of `evaluate.fields`."""
    items_file: Path
    predictions_file: Path
    cut: frozenset[str] = frozenset()
    """Ids of the items with an answer that was cut at its longest length."""
    floor: float | None = None
    """Least chrF of a reply, of the step `reply_floor`."""


Together = Callable[[S, Answers], Mapping[str, float]]
"""Returns item id -> value; an item that is left out has none."""


@dataclass(frozen=True)
class MetricKind:
    """How a kind of metric is computed: per answer, or over all answers together."""

    per_answer: Callable[[Any], Score] | None
    together: Callable[[Any, Answers], Mapping[str, float]] | None
    libraries: tuple[str, ...]
    """Distributions that the values depend on."""
    code: Callable[[Any], Mapping[str, str]]
    """Returns digests of code outside this project that the values depend on."""


_KINDS: dict[type[MetricSpec], MetricKind] = {}


def _no_code(_spec: MetricSpec) -> Mapping[str, str]:
    return {}


def metric(
    spec: type[S], *, libraries: tuple[str, ...] = (), code: Callable[[S], Mapping[str, str]] = _no_code
) -> Callable[[Callable[[S], Score]], Callable[[S], Score]]:
    """Register a function that takes the settings and returns the scorer of one answer; options as in `MetricKind`."""

    def register(function: Callable[[S], Score]) -> Callable[[S], Score]:
        METRICS.add(spec)
        _KINDS[spec] = MetricKind(function, None, libraries, code)
        return function

    return register


def metric_of_all(spec: type[S], *, libraries: tuple[str, ...] = ()) -> Callable[[Together[S]], Together[S]]:
    """Register a function that scores all answers of an arm together."""

    def register(function: Together[S]) -> Together[S]:
        METRICS.add(spec)
        _KINDS[spec] = MetricKind(None, function, libraries, _no_code)
        return function

    return register


def kind_of(spec: MetricSpec) -> MetricKind:
    """Return how this metric is computed.

    Raises:
        LookupError: no function is registered for its kind: its file is not in `tasks/assess/metrics.py`.
    """
    return _KINDS[type(spec)]
