"""A Python function over arrays as machine code: compiled by numba at the first call ever, then kept on disk.

numba takes a second to import and to load what it has cached. Here the machine code of a kernel is kept as an object
file that LLVM loads alone, in a tenth of that (`tasks/kernels/compiling.py` makes it). The file lies in `__pycache__`
beside this module, in the user's cache where that cannot be written, and nowhere where neither can: then each process
compiles anew, some seconds. Its name holds a digest of all that it depends on: the sources of this folder and of the
kernel's own, the versions of numba and LLVM, the processor.

Kernels are serial and hold no lock of Python's while they run; `in_slices` spreads one over threads. They allocate
nothing: each gets its work arrays from its caller. It knows nothing of texts and of models. Called by
`tasks/curate/similarity/kernels/` and `tasks/model/decoding/kernels/`.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

R = TypeVar("R")

HERE = Path(__file__).parent
SCALARS = {"i64": ctypes.c_int64, "u64": ctypes.c_uint64, "f64": ctypes.c_double}
DTYPES = {"u8": np.uint8, "u16": np.uint16, "i32": np.int32, "i64": np.int64, "u64": np.uint64, "f32": np.float32,
    "f64": np.float64}  # fmt: skip
_lock = threading.Lock()
_loaded: list[Any] = []  # what LLVM loaded must outlive the kernels


def _fresh_lock() -> None:
    """In a forked child: the thread that held the lock is not there to let it go."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_fresh_lock)


class Part:
    """A function that kernels of the same module call; compiled into them."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError("a part of a kernel is called from kernels only")


@Part
def prefetch(array: Any, place: Any) -> Any:
    """Ask the processor to bring what lies `place` elements behind the array's first into its cache, now and not later.

    It is a hint: nothing waits for it, and a place outside the array does no harm. `compiling.py` has the code.
    """


class Kernel:
    """A compiled function.

    Args:
        function: Loops over its arguments; uses numpy's scalars, `Part`s and what numba allows without allocation.
        signature: Types of the arguments, such as `u8[] i32[,] f64`: a contiguous array of one or more dimensions,
            or a number. The function returns an int64.
        reorders: Sums of floats may be taken in any order, so that loops over them use the processor's wide registers.
    """

    def __init__(self, function: Callable[..., int], signature: str, *, reorders: bool = False) -> None:
        self.function = function
        self.types = signature.split()
        self.reorders = reorders
        self._call: Callable[..., int] | None = None

    def __call__(self, *arguments: Any) -> int:
        result, exception = ctypes.c_int64(), ctypes.c_void_p()
        flat: list[Any] = [ctypes.addressof(result), ctypes.addressof(exception)]
        for argument, kind in zip(arguments, self.types, strict=True):
            flat.extend(argument if type(argument) is Flat else _flatten(argument, kind))
        call = self._call or self.ready()
        if call(*flat):
            raise RuntimeError(f"kernel {self.function.__name__} failed")
        return result.value

    def ready(self) -> Callable[..., int]:
        """Load it now, compiled where it was not yet, instead of at its first call; the compiled function."""
        with _lock:
            self._call = self._call or self._load()
            return self._call

    def _load(self) -> Callable[..., int]:
        import llvmlite.binding as llvm

        name = f"{self.function.__module__}.{self.function.__name__}".replace(".", "_")
        digest = _digest(Path(self.function.__code__.co_filename).parent)
        code = _kept(f"{name}-{digest}") or self._compile(name, digest)
        library = llvm.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(name)
        tracker = library.link(_engine(), f"{name}_{len(_loaded)}")
        _loaded.append(tracker)
        prototype = ctypes.CFUNCTYPE(
            ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *(c for kind in self.types for c in _c_types(kind))
        )
        call: Callable[..., int] = prototype(tracker[name])
        return call

    def _compile(self, name: str, digest: str) -> bytes:
        from tasks.kernels.compiling import compile_function

        code = compile_function(self.function, self.types, name, reorders=self.reorders)
        _keep(f"{name}-{digest}", code)
        return code


class Flat(tuple[Any, ...]):
    """An array in the form in which compiled code takes it, for arguments that stay the same over many calls.

    Nobody checks it again. It keeps its array alive.
    """

    owner: Any

    def __new__(cls, parts: Iterable[Any], owner: Any) -> Flat:
        """Of the parts that `_flatten` names, which point into `owner`."""
        made = super().__new__(cls, parts)
        made.owner = owner
        return made

    @classmethod
    def of(cls, array: Any, kind: str) -> Flat:
        """Of an array as a signature names it.

        Raises:
            TypeError: the array is of another kind.
        """
        return cls(_flatten(array, kind), array)


def kernel(signature: str, *, reorders: bool = False) -> Callable[[Callable[..., int]], Kernel]:
    """Make the function a `Kernel` of this signature."""
    return lambda function: Kernel(function, signature, reorders=reorders)


def n_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_slices(work: Callable[[int, int], R], bounds: Sequence[int]) -> list[R]:
    """Call `work(low, high)` for each pair of neighbours in `bounds`, on threads; the results in order."""
    if len(bounds) <= 2:
        return [work(low, high) for low, high in pairwise(bounds)]
    with ThreadPoolExecutor(n_threads()) as pool:
        return list(pool.map(work, bounds[:-1], bounds[1:]))


def _c_types(kind: str) -> list[Any]:
    """The C arguments that numba makes of one: an array is owner, parent, items, item bytes, data, shape, strides."""
    base, bracket, commas = kind.partition("[")
    if not bracket:
        return [SCALARS[base]]
    n_dimensions = commas.count(",") + 1
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    return [pointer, pointer, number, number, pointer] + [number] * (2 * n_dimensions)


def _flatten(argument: Any, kind: str) -> list[Any]:
    base, bracket, commas = kind.partition("[")
    if not bracket:
        return [float(argument) if base == "f64" else int(argument)]
    if argument.dtype != DTYPES[base] or argument.ndim != commas.count(",") + 1 or not argument.flags.c_contiguous:
        raise TypeError(f"kernel wants {kind}, got {argument.dtype} of shape {argument.shape}")
    return [None, None, argument.size, argument.itemsize, argument.ctypes.data, *argument.shape, *argument.strides]


@cache
def _engine() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.create_lljit_compiler()


@cache
def _digest(folder: Path) -> str:
    import llvmlite.binding as llvm

    digest = hashlib.sha256()
    for source in [*sorted(HERE.glob("*.py")), *sorted(folder.glob("*.py"))]:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    for part in (metadata.version("numba"), llvm.llvm_version_info, llvm.get_default_triple(),
                 llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()):  # fmt: skip
        digest.update(f"{part}\0".encode())
    return digest.hexdigest()[:16]


def _folders() -> list[Path]:
    home = os.environ.get("TUNEGATE_CACHE") or str(Path.home() / ".cache" / "tunegate")
    return [HERE / "__pycache__", Path(home) / "kernels"]


def _kept(name: str) -> bytes | None:
    """The object file, when one is there and whole: its last 32 bytes are the sha256 of those before."""
    for folder in _folders():
        try:
            content = (folder / f"{name}.o").read_bytes()
        except OSError:
            continue
        if hashlib.sha256(content[:-32]).digest() == content[-32:]:
            return content[:-32]
    return None


def _keep(name: str, code: bytes) -> None:
    for folder in _folders():
        aside = folder / f".{name}-{os.getpid()}.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(code + hashlib.sha256(code).digest())
            aside.replace(folder / f"{name}.o")
        except OSError:
            continue
        return
