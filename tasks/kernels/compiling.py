"""Compile one kernel with numba to an object file that needs nothing of numba to run.

It knows nothing of caches. Called by `tasks/kernels/kernel.py` when no object file is kept: importing
numba takes most of a second, compiling a kernel about one, the largest six.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.core.cpu import CPUTargetOptions
from numba.core.extending import intrinsic
from numba.core.options import TargetOptions
from numba.np.arrayobj import make_array

from tasks.kernels.kernel import Kernel, Part, prefetch

# numba has this flag, and no option that sets it.
CPUTargetOptions.noalias = TargetOptions.Mapping("noalias")

_SCALARS = {"u8": types.uint8, "u16": types.uint16, "i32": types.int32, "i64": types.int64, "u64": types.uint64,
    "f32": types.float32, "f64": types.float64}  # fmt: skip
# Without numba's own memory management and wrappers for Python, compiled code calls nothing but libm's sqrtf.
_OPTIONS = {
    "_nrt": False, "nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True,
}  # fmt: skip
_REORDERING = {"reassoc", "nsz", "contract"}
"""Of LLVM's freedoms with floats those that lose no NaN and no infinity."""
_ALLOWED = ("llvm.", "memset", "memcpy", "memmove", "sqrtf")


def compile_function(function: Callable[..., Any], kinds: Sequence[str], name: str, *, reorders: bool = False) -> bytes:
    """The object file of a function that returns int64, under this symbol; `reorders` as in `Kernel`.

    Raises:
        RuntimeError: the compiled code calls something outside of it, or takes its arguments in another form.
    """
    options = _OPTIONS | ({"fastmath": _REORDERING, "noalias": True} if reorders else {})
    plain = FunctionType(function.__code__, _with_parts(function.__globals__, {}, options), function.__name__)
    signature = types.int64(*(_numba_type(kind) for kind in kinds))
    dispatcher = numba.njit(signature, **options)(plain)
    module = llvm.parse_assembly(dispatcher.inspect_llvm(dispatcher.signatures[0]))
    mangled = dispatcher.overloads[dispatcher.signatures[0]].fndesc.llvm_func_name
    outside = [f.name for f in module.functions if f.is_declaration and not f.name.startswith(_ALLOWED)]
    entry = module.get_function(mangled)
    n_arguments = 2 + sum(7 + 2 * kind.count(",") if "[" in kind else 1 for kind in kinds)
    if outside or len(list(entry.arguments)) != n_arguments:
        raise RuntimeError(f"numba {numba.__version__} compiles {name} in a form that is unknown: {outside}")
    entry.name = name
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        reloc="pic",
        codemodel="jitdefault",
    )
    code: bytes = machine.emit_object(module)
    return code


def _with_parts(names: dict[str, Any], modules: dict[str, dict[str, Any]], options: dict[str, Any]) -> dict[str, Any]:
    """A module's names with its `Part`s ready for numba, each of which sees the names of its own module likewise."""
    module = names["__name__"]
    if module not in modules:
        modules[module] = {}
        for name, value in names.items():
            if value is prefetch:
                modules[module][name] = _prefetch
            elif isinstance(value, Part):
                seen = _with_parts(value.function.__globals__, modules, options)
                code = FunctionType(value.function.__code__, seen, value.function.__name__)
                modules[module][name] = numba.njit(**options)(code)
            elif not isinstance(value, Kernel):
                modules[module][name] = value
    return modules[module]


@intrinsic
def _prefetch(_typing: Any, array: Any, place: Any) -> Any:
    """See `tasks.kernels.kernel.prefetch`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        byte = ir.IntType(8).as_pointer()
        number = ir.IntType(32)
        hint = builder.module.declare_intrinsic(
            "llvm.prefetch.p0", fnty=ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        )
        # For reading, to the second cache: the first is too small for what is asked ahead.
        builder.call(hint, [builder.bitcast(builder.gep(data, [arguments[1]]), byte), number(0), number(2), number(1)])
        return context.get_dummy_value()

    return types.none(array, place), generate


def _numba_type(kind: str) -> Any:
    base, bracket, commas = kind.partition("[")
    return types.Array(_SCALARS[base], commas.count(",") + 1, "C") if bracket else _SCALARS[base]
