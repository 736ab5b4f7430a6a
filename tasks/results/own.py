"""Rows of one's own: JSON Lines, a JSON list, CSV or Parquet.

Columns by name: `item_id` or `id`; `prompt`, `input` or `question`; `answer`, `output` or `prediction`; `reference`,
`target` or `expected`; `repeat` or `epoch`. Of the others, a column of numbers is a metric, and each one is a column
for slices and clusters. JSON may put them into `metrics` and `slices`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.results.rows import ItemResult, as_number, as_text, refuse

IDS = ("item_id", "id")
PROMPTS = ("prompt", "input", "inputs", "question")
ANSWERS = ("answer", "output", "outputs", "prediction")
REFERENCES = ("reference", "target", "targets", "expected")
REPEATS = ("repeat", "epoch")
_NAMED = (*IDS, *PROMPTS, *ANSWERS, *REFERENCES, *REPEATS)


def rows_of(path: Path, objects: Sequence[Mapping[str, Any]], *, id_column: str | None = None) -> Iterator[ItemResult]:
    """Yield each row.

    Args:
        id_column: Column with the item's id, if it is none of `IDS`.

    Raises:
        DataError: TG0262, a row has no id, or two columns that may be the model's answer.
    """
    flat = [_flat(each) for each in objects]
    named = (*_NAMED, *((id_column,) if id_column else ()))
    others = tuple(dict.fromkeys(name for row in flat for name in row if name not in named))
    metrics = [name for name in others if _is_metric([row.get(name) for row in flat])]
    for number, row in enumerate(flat, start=1):
        item_id = as_text(_first(row, (id_column,) if id_column else IDS))
        if not item_id:
            wanted = id_column or " or ".join(IDS)
            raise refuse(
                path, f"row {number} has no {wanted}; columns: {', '.join(row) or 'none'}",
                "--id COLUMN names the column with the item's id; line numbers are none, since files are reordered",
            )  # fmt: skip
        for names in (ANSWERS, REFERENCES):
            both = [name for name in names if row.get(name) is not None]
            if len({as_text(row[name]) for name in both}) > 1:
                raise refuse(
                    path, f"row {number} has {' and '.join(both)}: which of them the model said is not clear",
                    "rename the reference to `reference`, and leave one of: " + ", ".join(ANSWERS),
                )  # fmt: skip
        yield ItemResult(
            item_id=item_id,
            values={name: value for name in metrics if (value := as_number(row.get(name))) is not None},
            prompt=as_text(_first(row, PROMPTS)),
            answer=as_text(_first(row, ANSWERS)),
            reference=as_text(_first(row, REFERENCES)),
            columns={name: as_text(row.get(name)) for name in others},
            repeat=as_text(_first(row, REPEATS)) or "",
        )


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with what `metrics` and `slices` have one level deeper."""
    inner = [row[name] for name in ("metrics", "slices") if isinstance(row.get(name), dict)]
    rest = {name: value for name, value in row.items() if not isinstance(value, dict) or name in _NAMED}
    return {name: value for part in (rest, *inner) for name, value in part.items()}


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _is_metric(values: Sequence[Any]) -> bool:
    return any(value is not None and value != "" for value in values) and all(
        as_number(value) is not None for value in values
    )
