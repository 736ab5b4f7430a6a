"""Kernel: attention of new columns, from the product that makes queries, keys and values.

How it is written follows from what the compiler and the processor make of it: inner loops run from 0 over one index, or
the wide registers are given up; three query heads that share a key head go together, so that each key is read and
widened once for them; of a single column the whole cache is read, filled or not, because a gap at the end of each
head's part stops the processor's reading ahead, and the next part is asked for while this one is used.
"""

from typing import Any

import numpy as np

from tasks.compute.kernels import kernel, part, prefetch

_F = np.float32
_U = np.uint32
_I = np.int32
_LEAST = np.int32(-0x7F800001)
_NEVER = np.float32(-3e38)
"""Score of a column that is not looked at: its weight is too small to be seen in any sum."""
_LINE = 32
"""Numbers of a line of the processor's cache."""


@part(reorders=True)
def wide(bits: Any) -> Any:
    """The float32 of these bits, exactly."""
    return _U(_U(bits) << _U(16)).view(_F)


@part(reorders=True)
def narrow(x: Any) -> Any:
    """The bits of the nearest bfloat16, of two equally near ones the even one.

    A NaN stays one if its lower half is zeros, as in one that was a bfloat16 or that the processor made. Asking for all
    others cost 8 % of the gates' time.
    """
    bits = _F(x).view(_U)
    return np.uint16(_U(bits + _U(0x7FFF) + ((bits >> _U(16)) & _U(1))) >> _U(16))


@part(reorders=True)
def exponential(x: Any) -> Any:
    """e ** x within 3e-7 of it; below -87 that of -87, above 88 that of 88. Source: Cephes, expf."""
    x = _F(-87.0) if x < _F(-87.0) else x
    x = _F(88.0) if x > _F(88.0) else x
    n = np.floor(x * _F(1.44269504) + _F(0.5))
    r = x - n * _F(0.693359375) - n * _F(-2.12194440e-4)
    p = _F(1.9875691500e-4)
    p = p * r + _F(1.3981999507e-3)
    p = p * r + _F(8.3334519073e-3)
    p = p * r + _F(4.1665795894e-2)
    p = p * r + _F(1.6666665459e-1)
    p = p * r + _F(5.0000001201e-1)
    p = p * r * r + r + _F(1.0)
    return p * _I(_I(_I(n) + _I(127)) << _I(23)).view(_F)


@part(reorders=True)
def in_order(x: Any) -> Any:
    """An int32 that is larger for a larger float32, and largest for NaN of positive sign: maxima of them keep NaN."""
    bits = _F(x).view(_I)
    return _I(bits ^ _I(_I(bits >> _I(31)) & _I(0x7FFFFFFF)))


@part(reorders=True)
def from_order(key: Any) -> Any:
    """The float32 whose `in_order` this is."""
    return _I(key ^ _I(_I(key >> _I(31)) & _I(0x7FFFFFFF))).view(_F)


@part(reorders=True)
def _turn(packed: Any, r: Any, c: Any, head: Any, cos: Any, sin: Any, scale: Any, out: Any, o: Any) -> Any:
    """A head's numbers turned by the column's position, times `scale`. Source: Su et al., RoFormer (2021)."""
    half = packed.shape[3] // 2
    for i in range(half):
        a, b = wide(packed[r, c, head, i]) * scale, wide(packed[r, c, head, i + half]) * scale
        out[o, i] = a * wide(cos[r, c, i]) - b * wide(sin[r, c, i])
        out[o, i + half] = b * wide(cos[r, c, i + half]) + a * wide(sin[r, c, i + half])
    return 0


@part(reorders=True)
def _read_ahead(array: Any, part: Any, low: Any, high: Any) -> Any:
    """Ask for the places `low` to `high` of one head's part of keys or values."""
    start = part * (array.shape[2] * array.shape[3])
    for place in range(low, high, _LINE):
        prefetch(array, start + place)
    return 0


@part(reorders=True)
def _scores_of_three(q: Any, keys: Any, r: Any, h: Any, n: Any, out: Any, g: Any, next_: Any, part: Any) -> Any:
    for t in range(n):
        out[g, t] = _F(0)
    for t in range(n):
        out[g + 1, t] = _F(0)
    for t in range(n):
        out[g + 2, t] = _F(0)
    for i in range(0, keys.shape[2], 4):
        if part >= 0:
            _read_ahead(next_, part, i * n, (i + 4) * n)
        a0, a1, a2, a3 = q[g, i], q[g, i + 1], q[g, i + 2], q[g, i + 3]
        b0, b1, b2, b3 = q[g + 1, i], q[g + 1, i + 1], q[g + 1, i + 2], q[g + 1, i + 3]
        c0, c1, c2, c3 = q[g + 2, i], q[g + 2, i + 1], q[g + 2, i + 2], q[g + 2, i + 3]
        for t in range(n):
            k0, k1 = wide(keys[r, h, i, t]), wide(keys[r, h, i + 1, t])
            k2, k3 = wide(keys[r, h, i + 2, t]), wide(keys[r, h, i + 3, t])
            out[g, t] += a0 * k0 + a1 * k1 + a2 * k2 + a3 * k3
            out[g + 1, t] += b0 * k0 + b1 * k1 + b2 * k2 + b3 * k3
            out[g + 2, t] += c0 * k0 + c1 * k1 + c2 * k2 + c3 * k3
    return 0


@part(reorders=True)
def _scores_of_one(q: Any, keys: Any, r: Any, h: Any, n: Any, out: Any, g: Any) -> Any:
    for t in range(n):
        out[g, t] = _F(0)
    for i in range(0, keys.shape[2], 4):
        a0, a1, a2, a3 = q[g, i], q[g, i + 1], q[g, i + 2], q[g, i + 3]
        for t in range(n):
            out[g, t] += (
                a0 * wide(keys[r, h, i, t])
                + a1 * wide(keys[r, h, i + 1, t])
                + a2 * wide(keys[r, h, i + 2, t])
                + a3 * wide(keys[r, h, i + 3, t])
            )
    return 0


@part(reorders=True)
def _scores(q: Any, keys: Any, r: Any, h: Any, n: Any, out: Any, next_: Any, part: Any) -> Any:
    """Of queries q and the first n columns of keys (rows, kv_heads, d, columns): out (heads, columns)."""
    n_heads, even = out.shape[0], out.shape[0] - out.shape[0] % 3
    for g in range(0, even, 3):
        _scores_of_three(q, keys, r, h, n, out, g, next_, part)
    for g in range(even, n_heads):
        _scores_of_one(q, keys, r, h, n, out, g)
    return 0


@part(reorders=True)
def _largest(scores: Any, g: Any, n: Any, key: Any) -> Any:
    for t in range(n):
        other = in_order(scores[g, t])
        key = other if other > key else key
    return key


@part(reorders=True)
def _to_weights(scores: Any, g: Any, n: Any, largest: Any) -> Any:
    total = _F(0)
    for t in range(n):
        weight = exponential(scores[g, t] - largest)
        scores[g, t] = weight
        total += weight
    return total


@part(reorders=True)
def _mix_three(weights: Any, values: Any, r: Any, h: Any, n: Any, out: Any, g: Any, next_: Any, part: Any) -> Any:
    for t in range(0, n, 4):
        if part >= 0:
            _read_ahead(next_, part, t * out.shape[1], (t + 4) * out.shape[1])
        a0, a1, a2, a3 = weights[g, t], weights[g, t + 1], weights[g, t + 2], weights[g, t + 3]
        b0, b1, b2, b3 = weights[g + 1, t], weights[g + 1, t + 1], weights[g + 1, t + 2], weights[g + 1, t + 3]
        c0, c1, c2, c3 = weights[g + 2, t], weights[g + 2, t + 1], weights[g + 2, t + 2], weights[g + 2, t + 3]
        for i in range(out.shape[1]):
            v0, v1 = wide(values[r, h, t, i]), wide(values[r, h, t + 1, i])
            v2, v3 = wide(values[r, h, t + 2, i]), wide(values[r, h, t + 3, i])
            out[g, i] += a0 * v0 + a1 * v1 + a2 * v2 + a3 * v3
            out[g + 1, i] += b0 * v0 + b1 * v1 + b2 * v2 + b3 * v3
            out[g + 2, i] += c0 * v0 + c1 * v1 + c2 * v2 + c3 * v3
    return 0


@part(reorders=True)
def _mix_one(weights: Any, values: Any, r: Any, h: Any, n: Any, out: Any, g: Any) -> Any:
    for t in range(0, n, 4):
        a0, a1, a2, a3 = weights[g, t], weights[g, t + 1], weights[g, t + 2], weights[g, t + 3]
        for i in range(out.shape[1]):
            out[g, i] += (
                a0 * wide(values[r, h, t, i])
                + a1 * wide(values[r, h, t + 1, i])
                + a2 * wide(values[r, h, t + 2, i])
                + a3 * wide(values[r, h, t + 3, i])
            )
    return 0


@part(reorders=True)
def _mix(weights: Any, values: Any, r: Any, h: Any, n: Any, out: Any, next_: Any, part: Any) -> Any:
    """Add to out (heads, d) the first n columns of values (rows, kv_heads, columns, d), by weights (heads, columns)."""
    n_heads, even = out.shape[0], out.shape[0] - out.shape[0] % 3
    for g in range(0, even, 3):
        _mix_three(weights, values, r, h, n, out, g, next_, part)
    for g in range(even, n_heads):
        _mix_one(weights, values, r, h, n, out, g)
    return 0


@part(reorders=True)
def _weigh(before: Any, own: Any, g: Any, n_before: Any, n_prefix: Any, n_own: Any, first: Any, last: Any) -> Any:
    """Scores to weights that add up to one; of the own columns only `first` to `last` are looked at."""
    for t in range(n_prefix, n_before):
        before[g, t] = _NEVER
    for t in range(first):
        own[g, t] = _NEVER
    for t in range(last + 1, n_own):
        own[g, t] = _NEVER
    largest = from_order(_largest(own, g, n_own, _largest(before, g, n_before, _LEAST)))
    share = _F(1) / (_to_weights(before, g, n_before, largest) + _to_weights(own, g, n_own, largest))
    for t in range(n_before):
        before[g, t] *= share
    for t in range(n_own):
        own[g, t] *= share
    return 0


@kernel(reorders=True)
def attend_columns(
    packed: Any,
    cos: Any,
    sin: Any,
    pads: Any,
    places: Any,
    keys: Any,
    values: Any,
    prefix_keys: Any,
    prefix_values: Any,
    n_prefix: Any,
    start: Any,
    first_query: Any,
    scale: Any,
    q: Any,
    before: Any,
    own: Any,
    mixed: Any,
    out: Any,
    low: Any,
    high: Any,
) -> int:
    """Turn queries and keys, put keys and values into the cache, attend to the prefix and to columns up to one's own.

    Cache and prefix have a multiple of sixteen columns; what they hold beyond those that are filled is finite.

    Args:
        packed: Queries, keys and values (rows, columns, heads + 2 kv_heads, d) of the new columns.
        cos: Of their positions (rows, columns, d), as sin.
        pads: First columns of the cache that hold nothing, by row.
        places: Row of the cache, by row.
        keys: The cache (rows, kv_heads, d, columns): columns last, so that sixteen scores are computed side by side.
        values: (rows, kv_heads, columns, d).
        prefix_keys: (1, kv_heads, d, columns), of all rows.
        prefix_values: (1, kv_heads, columns, d).
        n_prefix: Columns of the prefix that are filled.
        start: Column of the cache into which the first new one goes.
        first_query: Of the new columns, the first whose attention is wanted.
        scale: Of the scores.
        q: Room (groups + 1, d); groups: query heads of a key head.
        before: Room for scores of the prefix (groups, columns).
        own: Room for scores of the cache (groups, columns).
        mixed: Room (groups, d).
        out: (rows, columns from the first query, heads, d).
        low: First row, and `high` the one after the last.
    """
    n_kv, d, groups, n_new = keys.shape[1], keys.shape[2], own.shape[0], packed.shape[1]
    n_before = prefix_keys.shape[3]
    for r in range(low, high):
        place = places[r]
        for h in range(n_kv):
            for c in range(n_new):
                _turn(packed, r, c, groups * n_kv + h, cos, sin, _F(1), q, groups)
                for i in range(d):
                    keys[place, h, i, start + c] = narrow(q[groups, i])
                for i in range(d):
                    values[place, h, start + c, i] = packed[r, c, (groups + 1) * n_kv + h, i]
            for c in range(first_query, n_new):
                n_own, ahead = (start + c) // 16 * 16 + 16, np.int64(-1)
                if n_new == 1:
                    n_own, ahead = keys.shape[3], place * n_kv + h
                for g in range(groups):
                    _turn(packed, r, c, h * groups + g, cos, sin, _F(scale), q, g)
                _scores(q, prefix_keys, 0, h, n_before, before, prefix_values, np.int64(-1))
                _scores(q, keys, place, h, n_own, own, values, ahead)
                for g in range(groups):
                    _weigh(before, own, g, n_before, n_prefix, n_own, pads[r], start + c)
                    for i in range(d):
                        mixed[g, i] = _F(0)
                _mix(before, prefix_values, 0, h, n_before, mixed, prefix_keys, np.int64(-1))
                _mix(own, values, place, h, n_own, mixed, keys, ahead + 1 if n_new == 1 else np.int64(-1))
                for g in range(groups):
                    for i in range(d):
                        out[r, c - first_query, h * groups + g, i] = narrow(mixed[g, i])
    return 0


@part(reorders=True)
def _norm(x: Any, weight: Any, epsilon: Any, out: Any, r: Any) -> Any:
    n = x.shape[1]
    square = _F(0)
    for i in range(n):
        value = wide(x[r, i])
        square += value * value
    scale = _F(1) / np.sqrt(square / _F(n) + _F(epsilon))
    for i in range(n):
        out[r, i] = narrow(wide(narrow(wide(x[r, i]) * scale)) * wide(weight[i]))
    return 0


@kernel(reorders=True)
def norm_rows(x: Any, weight: Any, epsilon: Any, out: Any, low: Any, high: Any) -> int:
    """RMS norm of the rows `low` to `high` of x (rows, d) into `out`. Source: Zhang and Sennrich (2019)."""
    for r in range(low, high):
        _norm(x, weight, epsilon, out, r)
    return 0


@kernel(reorders=True)
def add_and_norm_rows(x: Any, more: Any, weight: Any, epsilon: Any, out: Any, low: Any, high: Any) -> int:
    """Add `more` (rows, d) to x, in place, and write the RMS norm of the sum into `out`."""
    n = x.shape[1]
    for r in range(low, high):
        for i in range(n):
            x[r, i] = narrow(wide(x[r, i]) + wide(more[r, i]))
        _norm(x, weight, epsilon, out, r)
    return 0


@kernel(reorders=True)
def gate_rows(gate_up: Any, out: Any, low: Any, high: Any) -> int:
    """silu(gate) * up: gate and up are the halves of `gate_up` (rows, 2 d), the product goes to `out` (rows, d)."""
    n = out.shape[1]
    for r in range(low, high):
        for i in range(n):
            gate = wide(gate_up[r, i])
            out[r, i] = narrow(wide(narrow(gate / (_F(1) + exponential(-gate)))) * wide(gate_up[r, n + i]))
    return 0


@part()
def _key(bits: Any) -> Any:
    """A number that is larger for a larger bfloat16, equal for both zeros, and largest for NaN."""
    size = np.int16(bits & np.uint16(0x7FFF))
    if size > np.int16(0x7F80):
        return np.int16(0x7FFF)
    return np.int16(-size) if bits > np.uint16(0x7FFF) else size


@kernel()
def largest_of_rows(x: Any, places: Any, low: Any, high: Any) -> int:
    """Where each row of x (rows, n) is largest, the first of equal ones; a NaN is larger than all numbers."""
    for r in range(low, high):
        largest = _key(x[r, 0])
        for i in range(x.shape[1]):
            key = _key(x[r, i])
            largest = key if key > largest else largest
        for i in range(x.shape[1]):
            if _key(x[r, i]) == largest:
                places[r] = i
                break
    return 0
