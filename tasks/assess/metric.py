"""Makes a function of `tasks/assess` a kind of metric; see `macro_f1.py` and `text_metrics.py`.

    class QuestionMetric(MetricSpec):
        uses: Literal["asks_back"]

        def traits(self) -> MetricTraits:
            return MetricTraits(name="asks_back")

    @metric(QuestionMetric)
    def asks_back(spec: QuestionMetric) -> Score:
        return lambda text, item: float("?" in text)

The settings are keys of `evaluate.metrics` from then on, and gates may have rules on the metric. Knows none of the
metrics: `metrics.py` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from schemas.metrics import METRICS, MetricSpec
from tasks.assess.fields import FieldPattern

S = TypeVar("S", bound=MetricSpec)

Score = Callable[[str, Mapping[str, object]], float]
"""An answer's text and its item (ticket columns, `item_id`, the reference `answer`) -> the value."""


@dataclass(frozen=True)
class Answers:
    """All answers of one arm."""

    items: Sequence[Mapping[str, Any]]
    """The held-out items, in the order of their ids."""
    texts: Mapping[str, str]
    """Item id -> what was answered."""
    fields: FieldPattern | None
    """Of `evaluate.fields`."""
    items_file: Path
    predictions_file: Path


Together = Callable[[S, Answers], Mapping[str, float]]
"""Item id -> value; an item that is left out has none."""


@dataclass(frozen=True)
class MetricKind:
    """How a kind of metric is computed: per answer or of all together, one of the two."""

    per_answer: Callable[[Any], Score] | None
    together: Callable[[Any, Answers], Mapping[str, float]] | None
    libraries: tuple[str, ...]
    """Distributions that decide the values."""
    code: Callable[[Any], Mapping[str, str]]
    """Digests of code outside this project that decides the values."""


_KINDS: dict[type[MetricSpec], MetricKind] = {}


def _no_code(_spec: MetricSpec) -> Mapping[str, str]:
    return {}


def metric(
    spec: type[S], *, libraries: tuple[str, ...] = (), code: Callable[[S], Mapping[str, str]] = _no_code
) -> Callable[[Callable[[S], Score]], Callable[[S], Score]]:
    """Register a function that makes, of the settings, what scores one answer; options as in `MetricKind`."""

    def register(function: Callable[[S], Score]) -> Callable[[S], Score]:
        METRICS.add(spec)
        _KINDS[spec] = MetricKind(function, None, libraries, code)
        return function

    return register


def metric_of_all(
    spec: type[S], *, libraries: tuple[str, ...] = (), code: Callable[[S], Mapping[str, str]] = _no_code
) -> Callable[[Together[S]], Together[S]]:
    """Register a function that scores all answers of an arm together."""

    def register(function: Together[S]) -> Together[S]:
        METRICS.add(spec)
        _KINDS[spec] = MetricKind(None, function, libraries, code)
        return function

    return register


def kind_of(spec: MetricSpec) -> MetricKind:
    """How this metric is computed.

    Raises:
        LookupError: No function is registered for its kind: its file is not in `tasks/assess/metrics.py`.
    """
    return _KINDS[type(spec)]


def remove_metric(uses: str) -> None:
    """Take a kind out again, as if its file had not been imported."""
    del _KINDS[METRICS[uses]]
    METRICS.remove(uses)
