"""Converts whole columns to the ticket column's type: usual values at once, the others one by one.

For each value the result is that of `values.py`, only faster.
"""

import pyarrow as pa
import pyarrow.compute as pc

from tasks.sources.readers.records import Fault
from tasks.sources.readers.rows_read import Values
from tasks.sources.readers.values import (
    EXACT_FLOAT,
    FREE_TEXT,
    RATING,
    TIMES,
    ValueForms,
    inexact_number,
    to_rating,
    to_text,
    to_time,
)

Typed = tuple[pa.Array, dict[int, Fault]]
Loose = tuple[pa.Array, dict[int, object]]
"""An array that is null at some places, and the values for these places, to be converted one by one."""

# Narrower than what `to_time` reads, so that Arrow can parse every match; `to_time` parses the rest.
_DAY = r"((0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"
_CLOCK = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{3}|\.\d{6})?"
_UNZONED = rf"^(19|20)\d\d-{_DAY}[T ]{_CLOCK}$"
_ZONED = _UNZONED.removesuffix("$") + r"(Z|[+-][01]\d:[0-5]\d)$"
USUAL = ValueForms()
_EXACT = {16: 2**11, 32: 2**24, 64: EXACT_FLOAT}
"""Bits of a float -> the whole number below which it holds every digit."""
_PLAIN_TEXTS: frozenset[type] = frozenset({str, type(None)})
_PLAIN_NUMBERS: frozenset[type] = frozenset({int, float, type(None)})  # without bool, which Arrow would read as 1


def typed_column(column: str, values: Values, forms: ValueForms = USUAL) -> Typed:
    """The values as an Arrow array of the column's type, null at faults, and the faults by index.

    Args:
        forms: Declared by the source; only declared ones cost time.
    """
    if forms.declares(column):
        listed = values if isinstance(values, list) else values.to_pylist()
        return _from_list(column, [forms.plain(column, value) for value in listed])
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
    array, other = _times(texts) if column in TIMES else (_texts(texts), {})
    return _with_odd(column, array, {**other, **odd})


def _odd(values: list[object], plain: frozenset[type]) -> dict[int, object]:
    return {index: value for index, value in enumerate(values) if type(value) not in plain}


def _from_arrow(column: str, values: pa.Array) -> Typed | None:
    """None if values must be converted one by one. Times are microseconds, in UTC if they have a zone."""
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
    if column in FREE_TEXT:
        return None
    if pa.types.is_floating(kind):
        return _digits(column, values)
    is_whole = pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0)
    return (values.cast(pa.string()), {}) if is_whole else None


def _digits(column: str, floats: pa.Array) -> Typed:
    """Whole floats as their digits. A float32 counts as exact below 2**24 only."""
    wide = floats.cast(pa.float64())
    is_exact = pc.less(pc.abs(wide), _EXACT[floats.type.bit_width])
    is_plain = pc.and_(is_exact, pc.equal(wide, pc.floor(wide)))
    digits = pc.if_else(is_plain, wide, pa.scalar(None, pa.float64())).cast(pa.int64()).cast(pa.string())
    is_odd = pc.and_(pc.invert(is_plain), pc.invert(pc.is_nan(wide)))
    faults: dict[int, Fault] = {}
    for index in pc.indices_nonzero(is_odd).to_pylist():
        fault = to_text(column, wide[index].as_py()) if is_exact[index].as_py() else inexact_number(column)
        if isinstance(fault, Fault):
            faults[index] = fault
    return digits, faults


def _texts(texts: pa.Array) -> pa.Array:
    """Blank text is null. Arrow and Python agree on white space, as checked over all of Unicode."""
    is_space = pc.utf8_is_space(texts)
    if not pc.any(is_space).as_py() and pc.min(pc.binary_length(texts)).as_py() != 0:
        return texts
    blank = pc.or_(is_space, pc.equal(pc.binary_length(texts), 0))
    return pc.if_else(blank, pa.scalar(None, pa.string()), texts)


def _times(texts: pa.Array) -> Loose:
    """Times in the usual form, UTC unless they name a zone, and the others."""
    other: dict[int, object] = {}
    usual = pc.match_substring_regex(texts, _ZONED)
    if pc.all(usual).as_py() is False:
        unzoned = pc.match_substring_regex(texts, _UNZONED)
        texts = pc.if_else(unzoned, pc.binary_join_element_wise(texts, "Z", ""), texts)
        usual = pc.or_(usual, unzoned)
        odd = pc.invert(usual)
        other = dict(zip(pc.indices_nonzero(odd).to_pylist(), texts.filter(odd).to_pylist(), strict=True))
        texts = pc.if_else(usual, texts, pa.scalar(None, pa.string()))
    return texts.cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us")), other


def _numbers(values: list[object]) -> Loose:
    try:
        return _finite(pa.array(values, pa.float64()))
    except pa.ArrowInvalid:  # a whole number that a float64 cannot hold exactly
        return pa.nulls(len(values), pa.float64()), dict(enumerate(values))


def _finite(numbers: pa.Array) -> Loose:
    if pc.all(pc.is_finite(numbers)).as_py() is not False:
        return numbers, {}
    return pa.nulls(len(numbers), pa.float64()), dict(enumerate(numbers.to_pylist()))


def _with_odd(column: str, array: pa.Array, odd: dict[int, object], more: dict[int, object] | None = None) -> Typed:
    """The array with the values that are converted one by one, and their faults."""
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
