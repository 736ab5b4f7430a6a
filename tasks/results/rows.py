"""What is read of a file of results: one row per item, with its values, and perhaps prompt, answer and reference.

Knows nothing of the files' forms; `read.py` has those. `pair.py` compares two files, `scores.py` scores them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import DataError
from schemas.file_reading import NUMBER

CODE = "TG0262"
_WORDS = {"true": 1.0, "false": 0.0, "nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""Words for numbers; those that are not finite are no result of an item."""


@dataclass(frozen=True)
class ItemResult:
    """One answer to one item.

    Attributes:
        values: Metric -> value; NaN where the file has none.
        prompt: What was asked, in any form that is equal for equal questions.
        assertions: What the answer was tested for, in any form, if the tool has that in place of a reference.
        columns: Column -> text, of slices and clusters.
        repeat: Tells answers to the same item apart.
    """

    item_id: str
    values: Mapping[str, float] = field(default_factory=dict)
    prompt: str | None = None
    answer: str | None = None
    reference: str | None = None
    assertions: str | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    repeat: str = ""


@dataclass(frozen=True)
class ResultFile:
    """The rows of a file.

    Attributes:
        tool: What wrote it, with its version if the file says it.
        model: The model, if the file names it.
        digest: sha256 of the file.
    """

    path: Path
    tool: str
    rows: tuple[ItemResult, ...]
    digest: str
    model: str | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of all metrics, in the order of the file."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.values))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in the order of the file."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.columns))


def is_scored(file: ResultFile) -> bool:
    """Whether each row has an answer and a reference, so that metrics of answers can be computed."""
    return all(row.answer is not None and row.reference is not None for row in file.rows)


def refuse(path: Path, message: str, hint: str | None = None) -> DataError:
    """The error of a file that cannot be read as results."""
    return DataError(message, code=CODE, where=str(path), hint=hint)


def as_text(value: Any) -> str | None:
    """Text of a value that may be structured, such as a list of messages; equal values have equal texts.

    >>> as_text([{"role": "user", "content": "Hi"}]), as_text(7), as_text(None)
    ('[{"content":"Hi","role":"user"}]', '7', None)
    """
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str).decode()


def as_number(value: Any) -> float | None:
    """Number of a value, which may be text as in CSV; NaN for nothing, None if it is no number.

    >>> as_number(True), as_number("0.5"), as_number("no"), as_number("1_0")
    (1.0, 0.5, None, None)
    >>> as_number(""), as_number(None)
    (nan, nan)
    """
    if value is None or value == "":
        return math.nan
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _WORDS:
            return _WORDS[word]
        return float(word) if NUMBER.fullmatch(word) else None
    return None


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects of a list; nothing of anything else."""
    yield from (each for each in value if isinstance(each, dict)) if isinstance(value, list) else ()
