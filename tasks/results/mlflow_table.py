"""`eval_results_table.json` of `mlflow.models.evaluate`, or any table that `mlflow.log_table` wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def is_table(value: Mapping[str, Any]) -> bool:
    return set(value) <= {"columns", "data", "index"} and {"columns", "data"} <= value.keys()


def objects_of(table: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The rows as objects; a metric's column `exact/v1/score` or `exact/score` is named `exact`.

    Raises:
        ValueError: two columns have one name, or a row has other columns.
    """
    names = [_metric(str(name)) for name in table["columns"]]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two columns are named {', '.join(sorted(twice))}")
    return [dict(zip(names, row, strict=True)) for row in table["data"]]


def _metric(name: str) -> str:
    """The metric of a column of scores.

    >>> _metric("exact/v1/score"), _metric("exact/score"), _metric("exact/v1/justification")
    ('exact', 'exact', 'exact/v1/justification')
    """
    return name.split("/")[0] if name.endswith("/score") else name
