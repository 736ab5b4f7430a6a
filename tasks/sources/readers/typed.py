"""Whole columns as the ticket column's type: what is plainly right at once, the rest value by value.

Equal to `values.py` for each value, only faster. It knows nothing of rows or files. Called by
`tasks/sources/readers/columns.py`.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from tasks.sources.readers.records import Fault
from tasks.sources.readers.rows_read import Values
from tasks.sources.readers.values import FREE_TEXT, RATING, TIMES, to_rating, to_text, to_time

Typed = tuple[pa.Array, dict[int, Fault]]
Loose = tuple[pa.Array, dict[int, object]]
"""An array that is null at some places, and the values that belong there, each to be looked at alone."""

# Narrower than what `to_time` reads, so that Arrow's parser refuses none: it reads the usual times, `to_time` the rest.
_DAY = r"((0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"
_CLOCK = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{3}|\.\d{6})?"
_UNZONED = rf"^(19|20)\d\d-{_DAY}[T ]{_CLOCK}$"
_ZONED = _UNZONED.removesuffix("$") + r"(Z|[+-][01]\d:[0-5]\d)$"
_PLAIN_TEXTS: frozenset[type] = frozenset({str, type(None)})
_PLAIN_NUMBERS: frozenset[type] = frozenset({int, float, type(None)})  # true would count as 1


def typed_column(column: str, values: Values) -> Typed:
    """The values as an Arrow array of the column's type, null at faults, and the faults by index."""
    if isinstance(values, list):
        return _from_list(column, values)
    typed = _from_arrow(column, values)
    return typed or _with_odd(column, pa.nulls(len(values), _type(column)), dict(enumerate(values.to_pylist())))


def _from_list(column: str, values: list[object]) -> Typed:
    plain = _PLAIN_NUMBERS if column == RATING else _PLAIN_TEXTS
    odd = {} if plain.issuperset(map(type, values)) else _odd(values, plain)
    if odd:
        values = [None if index in odd else value for index, value in enumerate(values)]
    if column == RATING:
        return _with_odd(column, *_numbers(values), odd)
    texts = pa.array(values, pa.string())
    array, strange = _times(texts) if column in TIMES else (_texts(texts), {})
    return _with_odd(column, array, {**strange, **odd})


def _odd(values: list[object], plain: frozenset[type]) -> dict[int, object]:
    return {index: value for index, value in enumerate(values) if type(value) not in plain}


def _from_arrow(column: str, values: pa.Array) -> Typed | None:
    """None where a value must be looked at alone. Times have come as microseconds, in UTC where they have a zone."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _from_arrow(column, values.dictionary_decode())
    if pa.types.is_null(kind):
        return pa.nulls(len(values), _type(column)), {}
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if column in TIMES:
        if pa.types.is_timestamp(kind) or pa.types.is_date32(kind):
            return values.cast(pa.timestamp("us")), {}
        return _with_odd(column, *_times(values.cast(pa.string()))) if is_text else None
    if column == RATING:
        is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        return _with_odd(column, *_finite(values.cast(pa.float64(), safe=False))) if is_number else None
    if is_text:
        return _texts(values.cast(pa.string())), {}
    return (values.cast(pa.string()), {}) if pa.types.is_integer(kind) and column not in FREE_TEXT else None


def _texts(texts: pa.Array) -> pa.Array:
    """Blank text is null. Arrow's white space is Python's, checked over all of Unicode."""
    is_space = pc.utf8_is_space(texts)
    if not pc.any(is_space).as_py() and pc.min(pc.binary_length(texts)).as_py() != 0:
        return texts
    blank = pc.or_(is_space, pc.equal(pc.binary_length(texts), 0))
    return pc.if_else(blank, pa.scalar(None, pa.string()), texts)


def _times(texts: pa.Array) -> Loose:
    """Times in the usual form, UTC where they name no zone, and the others."""
    strange: dict[int, object] = {}
    usual = pc.match_substring_regex(texts, _ZONED)
    if pc.all(usual).as_py() is False:
        unzoned = pc.match_substring_regex(texts, _UNZONED)
        texts = pc.if_else(unzoned, pc.binary_join_element_wise(texts, "Z", ""), texts)
        usual = pc.or_(usual, unzoned)
        odd = pc.invert(usual)
        strange = dict(zip(pc.indices_nonzero(odd).to_pylist(), texts.filter(odd).to_pylist(), strict=True))
        texts = pc.if_else(usual, texts, pa.scalar(None, pa.string()))
    return texts.cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us")), strange


def _numbers(values: list[object]) -> Loose:
    try:
        return _finite(pa.array(values, pa.float64()))
    except pa.ArrowInvalid:  # a whole number that no DOUBLE holds exactly
        return pa.nulls(len(values), pa.float64()), dict(enumerate(values))


def _finite(numbers: pa.Array) -> Loose:
    if pc.all(pc.is_finite(numbers)).as_py() is not False:
        return numbers, {}
    return pa.nulls(len(numbers), pa.float64()), dict(enumerate(numbers.to_pylist()))


def _with_odd(column: str, array: pa.Array, odd: dict[int, object], more: dict[int, object] | None = None) -> Typed:
    """Fill in the values that were looked at one by one."""
    odd = {**odd, **(more or {})}
    faults: dict[int, Fault] = {}
    found: dict[int, object] = {}
    for index, value in odd.items():
        made = _one(column, value)
        if isinstance(made, Fault):
            faults[index] = made
        elif made is not None:
            found[index] = made
    if found:
        filled = pa.array([found.get(index) for index in range(len(array))], array.type)
        array = pc.coalesce(array, filled)
    return array, faults


def _one(column: str, value: object) -> object:
    if column in TIMES:
        return to_time(column, value)
    return to_rating(column, value) if column == RATING else to_text(column, value)


def _type(column: str) -> pa.DataType:
    if column in TIMES:
        return pa.timestamp("us")
    return pa.float64() if column == RATING else pa.string()
