"""Compile one kernel with numba to an object file that needs nothing of numba to run.

It knows nothing of caches. Called by `tasks/curate/similarity/kernels/kernel.py` when no object file is kept: importing
numba takes most of a second, compiling a kernel about one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import llvmlite.binding as llvm
import numba
from numba import types

from tasks.curate.similarity.kernels.kernel import Kernel, Part

_SCALARS = {"u8": types.uint8, "i32": types.int32, "i64": types.int64, "u64": types.uint64,
    "f32": types.float32, "f64": types.float64}  # fmt: skip
# Without numba's own memory management and wrappers for Python, compiled code calls nothing but itself.
_OPTIONS = {
    "_nrt": False, "nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True,
}  # fmt: skip
_ALLOWED = ("llvm.", "memset", "memcpy", "memmove")


def compile_function(function: Callable[..., Any], kinds: Sequence[str], name: str) -> bytes:
    """The object file of a function that returns int64, under this symbol.

    Raises:
        RuntimeError: the compiled code calls something outside of it, or takes its arguments in another form.
    """
    plain = FunctionType(function.__code__, _with_parts(function.__globals__, {}), function.__name__)
    signature = types.int64(*(_numba_type(kind) for kind in kinds))
    dispatcher = numba.njit(signature, **_OPTIONS)(plain)
    module = llvm.parse_assembly(dispatcher.inspect_llvm(dispatcher.signatures[0]))
    mangled = dispatcher.overloads[dispatcher.signatures[0]].fndesc.llvm_func_name
    outside = [f.name for f in module.functions if f.is_declaration and not f.name.startswith(_ALLOWED)]
    entry = module.get_function(mangled)
    n_arguments = 2 + sum(9 if "," in kind else 7 if "[" in kind else 1 for kind in kinds)
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


def _with_parts(names: dict[str, Any], modules: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A module's names with its `Part`s ready for numba, each of which sees the names of its own module likewise."""
    module = names["__name__"]
    if module not in modules:
        modules[module] = {}
        for name, value in names.items():
            if isinstance(value, Part):
                seen = _with_parts(value.function.__globals__, modules)
                code = FunctionType(value.function.__code__, seen, value.function.__name__)
                modules[module][name] = numba.njit(**_OPTIONS)(code)
            elif not isinstance(value, Kernel):
                modules[module][name] = value
    return modules[module]


def _numba_type(kind: str) -> Any:
    base, bracket, commas = kind.partition("[")
    return types.Array(_SCALARS[base], commas.count(",") + 1, "C") if bracket else _SCALARS[base]
