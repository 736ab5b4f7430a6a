"""Compile loops over arrays to machine code: numba decorators with the options that all kernels share.

A kernel is compiled at its first call, which takes seconds, and cached: in `NUMBA_CACHE_DIR`, else in `__pycache__`
next to its source, else in the user's cache folder. numba recompiles only when the kernel's own file has changed,
although it compiles constants and parts of other files into the kernel: so a kernel, its parts and its constants must
be in one file (`tests/tasks/compute/test_kernels.py`). After changing the options here, remove the cached files.

Kernels are serial and release the GIL while they run; `threads.py` runs one on several threads. They allocate
nothing and check no bounds: the caller provides the work arrays. Import this module late: numba takes a second.
"""

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core.extending import intrinsic
from numba.np.arrayobj import make_array

Function = Callable[..., Any]
_OPTIONS = {"nogil": True, "error_model": "numpy"}
_REORDERING = {"reassoc", "nsz", "contract"}
"""LLVM's fast-math flags that preserve NaN and infinity."""


def kernel(*, reorders: bool = False) -> Callable[[Function], Function]:
    """Compile the function at its first call, and cache the machine code if a folder for it is writable.

    Args:
        reorders: Floats may be summed in any order, which allows SIMD instructions.
    """

    def compiled(function: Function) -> Function:
        options = _options(reorders=reorders)
        try:
            made: Function = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no cache folder is writable: compile once per process
            made = numba.njit(**options)(function)
        return made

    return compiled


def part(*, reorders: bool = False) -> Callable[[Function], Function]:
    """A function that kernels of the same file call: it is compiled into them and cached with them."""

    def compiled(function: Function) -> Function:
        made: Function = numba.njit(**_options(reorders=reorders))(function)
        return made

    return compiled


def _options(*, reorders: bool) -> dict[str, Any]:
    return {**_OPTIONS, "fastmath": _REORDERING} if reorders else _OPTIONS


def _prefetch(_typing: Any, array: Any, place: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        byte = ir.IntType(8).as_pointer()
        number = ir.IntType(32)
        hint = builder.module.declare_intrinsic(
            "llvm.prefetch.p0", fnty=ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        )
        # For reading, into the L2 cache: L1 is too small for prefetched data.
        builder.call(hint, [builder.bitcast(builder.gep(data, [arguments[1]]), byte), number(0), number(2), number(1)])
        return context.get_dummy_value()

    return types.none(array, place), generate


prefetch: Any = intrinsic(_prefetch)
"""`prefetch(array, place)` in a kernel: load the element at index `place` into the processor's cache. It does not
block, and an index outside the array does no harm."""
