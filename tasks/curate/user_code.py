"""Load a user's Python code: a function of a `python` step, a model of `schema`.

It runs in this process with all its rights. It is trusted like pipelines.yaml, and therefore only taken from that
file's folder: `steps.clean:keep` is `steps/clean.py` or `steps/clean/__init__.py` in it, or an error, whatever is
installed. For each use modules of the folder are imported from source and removed afterwards, so the code that runs is
the code that was fingerprinted.
"""

import ast
import hashlib
import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from schemas.errors import ConfigError

_OURS = frozenset({"flows", "schemas", "tasks"})
"""Packages of tunegate: never imported a second time, even if pipelines.yaml is in its checkout."""


def fingerprint_code(name: str, *, root: Path, where: str) -> str:
    """Return the sha256 (hex) over the source of a module and of every module of the folder that it imports.

    Imports are read from the source, including those inside functions. Data files that the code opens, and modules
    whose names are computed at run time, are not included.

    Args:
        name: `package.module:name`.

    Raises:
        ConfigError: TG0128, the module is not in the folder, or is not Python.
    """
    digest = hashlib.sha256()
    for module, file in sorted(module_sources(name, root=root, where=where).items()):
        data = file.read_bytes()
        digest.update(f"{module} {len(data)}\n".encode() + data)
    return digest.hexdigest()


@contextmanager
def function_of(name: str, *, root: Path, where: str) -> Iterator[Callable[[Any], Any]]:
    """Import the function `package.module:function` for the duration of the block; see `entry_point`."""
    with entry_point(name, root=root, where=where) as found:
        if not callable(found):
            module, _, function = name.partition(":")
            raise unusable(f"{module} has no function {function}", where)
        yield found


@contextmanager
def entry_point(name: str, *, root: Path, where: str) -> Iterator[Any]:
    """Import what `package.module:name` names; None if the module has no such name, for the duration of the block.

    Inside the block the folder is first on `sys.path`, as for `python script.py` in it, so that imports inside the
    function work too; afterwards `sys.path` and `sys.modules` are restored.

    Raises:
        ConfigError: TG0128, there is no such module in the folder, or importing it fails.
    """
    module_name, _, own_name = name.partition(":")
    sources = module_sources(name, root=root, where=where)
    own = {found.partition(".")[0] for found in sources} - _OURS - sys.stdlib_module_names
    before = (list(sys.path), sys.dont_write_bytecode)
    hidden = {key: sys.modules.pop(key) for key in list(sys.modules) if key.partition(".")[0] in own}
    sys.path.insert(0, str(root.resolve()))
    sys.dont_write_bytecode = True  # a stale cache next to the file could run instead of it
    importlib.invalidate_caches()
    try:
        yield getattr(_import(module_name, sources[module_name], where), own_name, None)
    finally:
        sys.path[:], sys.dont_write_bytecode = before
        for key in [key for key in sys.modules if key.partition(".")[0] in own]:
            del sys.modules[key]
        sys.modules.update(hidden)


def module_sources(name: str, *, root: Path, where: str) -> dict[str, Path]:
    """Return dotted name -> file of the module, its parent packages, and every module of the folder that these import.

    Raises:
        ConfigError: TG0128, the module is not in the folder, or a file is not Python.
    """
    module = name.partition(":")[0]
    top = module.partition(".")[0]
    if top in _OURS or top in sys.stdlib_module_names:
        raise unusable(f"`{top}` is taken: Python or tunegate itself has a module of that name", where)
    found: dict[str, Path] = {}
    waiting = list(_files_of(module, root))
    if module not in dict(waiting):
        path = module.replace(".", "/")
        raise unusable(f"there is no {path}.py in the folder of pipelines.yaml", where)
    while waiting:
        dotted, file = waiting.pop()
        if dotted in found:
            continue
        found[dotted] = file
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError, OSError) as error:
            line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
            raise unusable(f"{file.relative_to(root)}{line} cannot be read: {type(error).__name__}", where) from error
        package = dotted if file.name == "__init__.py" else dotted.rpartition(".")[0]
        for imported in _imported(tree, package):
            waiting.extend(_files_of(imported, root))
    return found


def _files_of(dotted: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the module of this name in the folder and its parent packages, if they exist."""
    parts = dotted.split(".")
    if not all(part.isidentifier() for part in parts):
        return
    for length in range(1, len(parts) + 1):
        path = root.joinpath(*parts[:length])
        # A package wins over a module of the same name, as in Python's own import.
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                yield ".".join(parts[:length]), file
                break


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            # Each name may be a submodule; `_files_of` finds out.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _import(module_name: str, file: Path, where: str) -> ModuleType:
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise unusable(f"importing {module_name} raised {type(error).__name__}", where) from error
    if module.__file__ is None or Path(module.__file__).resolve() != file.resolve():
        raise unusable(f"Python finds another {module_name}, outside the folder of pipelines.yaml", where)
    return module


def unusable(message: str, where: str) -> ConfigError:
    return ConfigError(
        message,
        code="TG0128",
        where=where,
        hint="`steps.clean:keep` is the function `keep` in `steps/clean.py` next to pipelines.yaml",
    )


def place_in(root: Path, error: BaseException) -> str:
    """Return `file:line` of the innermost frame in the user's folder, or just the file's name outside it."""
    frames = [Path(frame.filename).resolve() for frame in traceback.extract_tb(error.__traceback__)]
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)]
    inside = [
        (file.relative_to(root.resolve()), line)
        for file, line in zip(frames, lines, strict=True)
        if file.is_relative_to(root.resolve()) and file.parent != Path(__file__).resolve().parent
    ]
    file, line = inside[-1] if inside else (Path(frames[-1].name), lines[-1])
    return f"{file}:{line}"
