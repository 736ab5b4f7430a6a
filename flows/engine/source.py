"""What code a step runs: one digest per module, blind to comments, docstrings and layout.

The step's own module and every module of `tasks` and `schemas` that it reaches count, found by reading the source
(imports at the top and inside functions, and texts that name a module, as in `[sys.executable, "-m",
"tasks.train.worker"]`); nothing is imported or run. Files of a `tasks` package that are no Python count by their
bytes: word lists and templates decide results too. Used by `flows/engine/keys.py`.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.files import sha256_file

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("tasks", "schemas")
MODULE_NAME = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+")

DATA_FILE = re.compile(r"[A-Za-z0-9_][^~]*\.[A-Za-z0-9]+")  # no hidden files, no editor's copies


@dataclass(frozen=True)
class _Module:
    """One parsed file: its digest and the dotted names it may import, submodules and attributes alike."""

    digest: str
    names: frozenset[str]


def code_digests(function: Callable[..., Any], *, root: Path = PROJECT) -> dict[str, str]:
    """Digest of each module that the function's result may depend on: dotted name -> hex, sorted by name.

    Data files of `tasks` packages appear as `tasks.curate.helpdesk/phrases.yaml`.

    Raises:
        TypeError: it is not a plain function: what a closure, a partial or a builtin carries is in no source file,
            and two functions of one factory would share a key.
    """
    if not inspect.isfunction(function) or function.__closure__:
        raise TypeError(f"{function!r} is not a plain function of a module: its code cannot be part of a key")
    return module_digests(function.__module__, Path(inspect.getfile(function)), root=root)


def module_digests(name: str, file: Path, *, root: Path = PROJECT) -> dict[str, str]:
    """As `code_digests`, from a module's dotted name and file; `root` holds the folders `tasks` and `schemas`."""
    digests: dict[str, str] = {}
    looked: set[str] = set()
    waiting = [(name, file)]
    if name.partition(".")[0] in PACKAGES:
        waiting.extend(_files_of(name, root, looked))
    while waiting:
        name, file = waiting.pop()
        if name in digests:
            continue
        module = _read(name, file)
        digests[name] = module.digest
        if name.startswith("tasks."):
            digests |= _data_digests(name, file)
        for imported in sorted(module.names):
            waiting.extend(_files_of(imported, root, looked))
    return dict(sorted(digests.items()))


def _files_of(dotted: str, root: Path, looked: set[str]) -> Iterator[tuple[str, Path]]:
    """The module of this name and the packages above it: importing the last runs all of them.

    What `looked` holds was asked for in this walk already; asking the disk again and again took a third of a small run.
    """
    parts = dotted.split(".")
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        if name in looked:
            continue
        looked.add(name)
        path = root.joinpath(*parts[:length])
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                yield name, file


def _data_digests(name: str, file: Path) -> dict[str, str]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    return {
        f"{package}/{path.name}": _data_digest(path, path.stat().st_mtime_ns, path.stat().st_size)
        for path in file.parent.iterdir()
        if DATA_FILE.fullmatch(path.name) and path.suffix not in (".py", ".pyc") and path.is_file()
    }


@functools.lru_cache(maxsize=4096)
def _data_digest(path: Path, _mtime_ns: int, _size: int) -> str:
    return sha256_file(path)[:32]


def _read(name: str, file: Path) -> _Module:
    status = file.stat()
    return _parse(name, file, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4096)
def _parse(name: str, file: Path, _mtime_ns: int, _size: int) -> _Module:
    tree = ast.parse(file.read_bytes())
    tokens: list[str] = []
    _normalise(tree, tokens)
    digest = hashlib.sha256("".join(tokens).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    names = {found for found in _imported(tree, package) if found.partition(".")[0] in PACKAGES}
    return _Module(digest, frozenset(names))


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            # Each name may be a submodule; `_files_of` looks whether it is one.
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = MODULE_NAME.match(node.value)
            if named and node.value[named.end() :].partition(":")[0] == "":
                yield named.group()


def _normalise(node: ast.AST, tokens: list[str]) -> None:
    """Append the tree without positions, bare strings and absent fields: the same text on every Python version."""
    tokens += (type(node).__name__, "(")
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == [] or name == "kind":
            continue
        tokens.append(name)
        if isinstance(value, list):
            tokens.append("[")
            for item in value:
                if not isinstance(item, ast.AST):
                    tokens.append(repr(item))
                elif not _is_bare_string(item):
                    _normalise(item, tokens)
            tokens.append("]")
        elif isinstance(value, ast.AST):
            _normalise(value, tokens)
        else:
            tokens.append(repr(value))
    tokens.append(")")


def _is_bare_string(node: ast.AST) -> bool:
    """A docstring or an attribute's description: a statement that does nothing."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
