"""Whole columns as the ticket column's type: what is plainly right at once, the rest value by value.

Equal to `values.py` for each value, only faster. It knows nothing of rows or files. Called by
`tasks/curate/readers/columns.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from tasks.curate.readers.records import Fault
from tasks.curate.readers.rows_read import Values
from tasks.curate.readers.values import FREE_TEXT, RATING, TIMES, to_rating, to_text, to_time

Typed = tuple[pa.Array, dict[int, Fault]]

# Narrower than what `to_time` reads, and within it where both agree; the parsers differ at the edges of the calendar.
_ISO = (
    r"^(19|20)\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?",
    r"(Z|[+-][01]\d:[0-5]\d)$",
)
_NUMBERS = {int, float, type(None)}


def typed_column(column: str, values: Values) -> Typed:
    """The values as an Arrow array of the column's type, null at faults, and the faults by index."""
    if isinstance(values, pa.Array):
        array = _from_arrow(column, values)
        return (array, {}) if array is not None else _one_by_one(column, values.to_pylist())
    array = _from_list(column, values)
    return (array, {}) if array is not None else _one_by_one(column, values)


def _from_list(column: str, values: list[object]) -> pa.Array | None:
    if column == RATING:
        return _numbers(values)
    try:
        texts = pa.array(values, pa.string())
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return None
    return _times(texts) if column in TIMES else _texts(texts)


def _from_arrow(column: str, values: pa.Array) -> pa.Array | None:
    """None where a value must be looked at alone. Times have come as microseconds, in UTC where they have a zone."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _from_arrow(column, values.dictionary_decode())
    if pa.types.is_null(kind):
        return pa.nulls(len(values), _type(column))
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if column in TIMES:
        if pa.types.is_timestamp(kind) or pa.types.is_date32(kind):
            return values.cast(pa.timestamp("us"))
        return _times(values.cast(pa.string())) if is_text else None
    if column == RATING:
        is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        return _finite(values.cast(pa.float64(), safe=False)) if is_number else None
    if is_text:
        return _texts(values.cast(pa.string()))
    return values.cast(pa.string()) if pa.types.is_integer(kind) and column not in FREE_TEXT else None


def _texts(texts: pa.Array) -> pa.Array:
    """Blank text is null. Arrow's white space is Python's, checked over all of Unicode."""
    blank = pc.or_(pc.utf8_is_space(texts), pc.equal(pc.binary_length(texts), 0))
    return pc.if_else(blank, pa.scalar(None, pa.string()), texts) if pc.any(blank).as_py() else texts


def _times(texts: pa.Array) -> pa.Array | None:
    """Times in the usual form, all with a zone or all without one."""
    if texts.null_count == len(texts):
        return pa.nulls(len(texts), pa.timestamp("us"))
    body, zone = _ISO
    try:
        if pc.all(pc.match_substring_regex(texts, body + zone)).as_py():
            return texts.cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us"))
        if pc.all(pc.match_substring_regex(texts, f"{body}$")).as_py():
            return texts.cast(pa.timestamp("us"))
    except pa.ArrowInvalid:  # 30 February, hour 25
        return None
    return None


def _numbers(values: list[object]) -> pa.Array | None:
    if not set(map(type, values)) <= _NUMBERS:  # true would count as 1
        return None
    try:
        return _finite(pa.array(values, pa.float64()))
    except pa.ArrowInvalid:  # a whole number that no DOUBLE holds exactly
        return None


def _finite(numbers: pa.Array) -> pa.Array | None:
    return numbers if pc.all(pc.is_finite(numbers)).as_py() is not False else None


def _one_by_one(column: str, values: list[object]) -> Typed:
    convert: Callable[[str, object], object] = to_text
    if column in TIMES:
        convert = to_time
    elif column == RATING:
        convert = to_rating
    faults: dict[int, Fault] = {}
    typed: list[object] = []
    for index, value in enumerate(values):
        made = convert(column, value)
        if isinstance(made, Fault):
            faults[index] = made
            made = None
        typed.append(made)
    return pa.array(typed, _type(column)), faults


def _type(column: str) -> pa.DataType:
    if column in TIMES:
        return pa.timestamp("us")
    return pa.float64() if column == RATING else pa.string()
