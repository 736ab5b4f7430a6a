"""A user's own metrics: an installed entry point, or SQL over the predictions in a locked-down DuckDB.

Errors of a metric's code or SQL are reported only by type: their message may quote an answer.
"""

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from schemas.errors import ConfigError, TunegateError
from schemas.metrics import EntryPointMetric, MetricSpec, SqlMetric
from schemas.tables import TICKETS
from tasks.assess.metric import Answers, Score, metric, metric_of_all
from tasks.storage.files import package_files, sha256_file

GROUP = "tunegate.metrics"
TABLES = {
    "items": {**{column.name: column.sql_type for column in TICKETS}, "item_id": "VARCHAR", "answer": "VARCHAR"},
    "predictions": {
        "item_id": "VARCHAR", "text": "VARCHAR", "n_new_tokens": "BIGINT", "finished": "BOOLEAN", "loss": "DOUBLE",
    },
}  # fmt: skip
"""What a metric in SQL reads: table -> column -> its type."""
MAX_VALUE = 1e50
"""Larger values count as not finite: their fourth powers would overflow."""


@metric(EntryPointMetric, code=lambda spec: {f"entry_point_{spec.name}": entry_point_digest(spec.name)})
def entry_point(spec: EntryPointMetric) -> Score:
    return load_entry_point(spec.name)


def load_entry_point(name: str) -> Score:
    """Load the user's function of an answer's text and its item.

    Raises:
        ConfigError: TG0199, no installed package has the entry point, or it cannot be loaded. The function raises it
            too, if the user's code fails or does not return a number.
    """
    point = _entry_point(name)
    try:
        function: Any = point.load()
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"metric {name}: entry point {point.value} cannot be loaded ({type(error).__name__})", code="TG0199"
        ) from None

    def score(text: str, item: Mapping[str, object]) -> float:
        try:
            return _finite(float(function(text, item)))
        except (Exception, SystemExit) as error:  # SystemExit would end the run without a verdict
            raise ConfigError(
                f"metric {name}: {point.value} raised {type(error).__name__}",
                code="TG0199",
                hint="a metric is a function of the answer's text and its item (a mapping) that returns a number",
            ) from None

    return score


def entry_point_digest(name: str) -> str:
    """Digest of what decides an entry point's values: its package's version and all of the package's files.

    Raises:
        ConfigError: TG0199, as `load_entry_point`.
    """
    load_entry_point(name)
    point = _entry_point(name)
    digest = hashlib.sha256(f"{point.value} {point.dist.version if point.dist else ''}\n".encode())
    for file, path in package_files(point.module):
        digest.update(f"{file} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


@metric_of_all(SqlMetric, libraries=("duckdb",))
def score_by_sql(metric: SqlMetric, answers: Answers) -> dict[str, float]:
    """Item id -> value, by the metric's SELECT.

    Raises:
        ConfigError: TG0199, it is not one SELECT, DuckDB refuses it, it does not return `item_id` and `value` once per
            item, or it returns different values when run again.
    """
    from tasks.storage.warehouse import select_from_files

    where = f"metric {metric.name}"
    files = {"items": answers.items_file, "predictions": answers.predictions_file}
    rows = select_from_files(files, metric.select, where=where)
    again = select_from_files(files, metric.select, where=where)
    values = _by_item(rows, metric)
    if repr(sorted(values.items())) != repr(sorted(_by_item(again, metric).items())):
        raise ConfigError(f"{where} returns different values when it is run again", code="TG0199")
    return values


def sql_faults(metrics: Iterable[MetricSpec], *, where: str) -> Iterator[TunegateError]:
    """Yield why the SELECT of a metric cannot be computed on any answers, for `tunegate validate`."""
    from tasks.storage.warehouse import bind_select

    for each in metrics:
        if not isinstance(each, SqlMetric):
            continue
        place = f"{where}, metric {each.name}"
        try:
            _check_columns(bind_select(TABLES, each.select, where=place), each)
        except TunegateError as error:
            error.where = place
            yield error


def entry_point_faults(metrics: Iterable[MetricSpec], *, where: str) -> Iterator[TunegateError]:
    """Yield which metrics' entry points are not installed or cannot be loaded."""
    for each in metrics:
        if isinstance(each, EntryPointMetric):
            try:
                entry_point_digest(each.name)
            except TunegateError as error:
                error.where = f"{where}, metric {each.name}"
                yield error


def _check_columns(columns: Collection[str], metric: SqlMetric) -> None:
    if set(columns) != {"item_id", "value"}:
        message = f"metric {metric.name} returns columns {', '.join(columns)}; item_id and value are needed"
        raise ConfigError(message, code="TG0199")


def _by_item(rows: list[dict[str, Any]], metric: SqlMetric) -> dict[str, float]:
    values: dict[str, float] = {}
    for row in rows:
        _check_columns(row, metric)
        item = str(row["item_id"])
        if item in values:
            raise ConfigError(f"metric {metric.name} returns an item twice", code="TG0199")
        try:
            values[item] = math.nan if row["value"] is None else _finite(float(row["value"]))
        except (TypeError, ValueError, OverflowError):
            raise ConfigError(f"metric {metric.name} returns a value that is not a number", code="TG0199") from None
    return values


def _finite(value: float) -> float:
    return value if abs(value) <= MAX_VALUE else math.nan


def _entry_point(name: str) -> EntryPoint:
    functions = sorted((point for point in entry_points(group=GROUP) if point.attr), key=lambda point: point.value)
    found = [point for point in functions if point.name == name]
    if not found:
        known = ", ".join(sorted({point.name for point in functions})) or "none"
        raise ConfigError(
            f"metric {name}: no installed package has an entry point of this name in {GROUP}; installed: {known}",
            code="TG0199",
            hint=f'[project.entry-points."{GROUP}"] {name} = "your_package.module:function"',
        )
    return found[0]
