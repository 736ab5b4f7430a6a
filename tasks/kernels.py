"""Loops over arrays as machine code: decorators over numba with the options that all kernels share.

A kernel is compiled at its first call, which takes seconds, and kept: in `NUMBA_CACHE_DIR`, else in `__pycache__` next
to its source, else in the user's cache folder. numba compiles again when the kernel's own file has changed and only
then, although it compiles constants and parts of other files into the kernel: so a kernel, its parts and its constants
stand in one file (`tests/tasks/test_kernels.py`). After a change of the options here remove the kept files.

Kernels are serial and release Python's lock while they run; `tasks/threads.py` spreads one over threads. They allocate
nothing and check no bounds: each gets its work arrays from its caller. Imported late, as numba takes a second.
"""

from __future__ import annotations

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
"""Of LLVM's freedoms with floats those that lose no NaN and no infinity."""


def kernel(*, reorders: bool = False) -> Callable[[Function], Function]:
    """Compile the function at its first call, and keep the machine code where a folder for it can be written.

    Args:
        reorders: Sums of floats may be taken in any order, so that loops over them use the processor's wide registers.
    """

    def compiled(function: Function) -> Function:
        options = _options(reorders=reorders)
        try:
            made: Function = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # neither next to the source nor in the user's cache: then once in each process
            made = numba.njit(**options)(function)
        return made

    return compiled


def part(*, reorders: bool = False) -> Callable[[Function], Function]:
    """A function that kernels of the same file call: it is compiled into them, and kept with them."""

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
        # For reading, to the second cache: the first is too small for what is asked for ahead.
        builder.call(hint, [builder.bitcast(builder.gep(data, [arguments[1]]), byte), number(0), number(2), number(1)])
        return context.get_dummy_value()

    return types.none(array, place), generate


prefetch: Any = intrinsic(_prefetch)
"""`prefetch(array, place)` in a kernel: ask the processor to bring what lies `place` elements after the array's first
into its cache. Nothing waits for it, and a place outside the array does no harm."""
