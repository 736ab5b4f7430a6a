"""bfloat16 as kernels see it: 16 bits, the upper half of a float32; and functions of float32 numbers.

Called by the kernels beside it. The NaN of a bfloat16 stays NaN in all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.kernels.kernel import Part

_F = np.float32
_U = np.uint32
_I = np.int32


@Part
def wide(bits: Any) -> Any:
    """The float32 of these bits, exactly."""
    return _U(_U(bits) << _U(16)).view(_F)


@Part
def narrow(x: Any) -> Any:
    """The bits of the nearest bfloat16, of two equally near ones the even one.

    A NaN stays one if its lower half is zeros, as in one that was a bfloat16 or that the processor made. Asking for all
    others cost 8 % of the gates' time.
    """
    bits = _F(x).view(_U)
    return np.uint16(_U(bits + _U(0x7FFF) + ((bits >> _U(16)) & _U(1))) >> _U(16))


@Part
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


@Part
def in_order(x: Any) -> Any:
    """An int32 that is larger for a larger float32, and largest for NaN of positive sign: maxima of them keep NaN."""
    bits = _F(x).view(_I)
    return _I(bits ^ _I(_I(bits >> _I(31)) & _I(0x7FFFFFFF)))


@Part
def from_order(key: Any) -> Any:
    """The float32 whose `in_order` this is."""
    return _I(key ^ _I(_I(key >> _I(31)) & _I(0x7FFFFFFF))).view(_F)
