"""Step keys, which decide whether a step runs again: their parts, their digest, and what has changed.

A key is the sha256 of canonical JSON over the step's kind, its input digests, its parameters, its code and the
versions of its libraries. It does not depend on time, paths, host names or environment variables.

The code is one digest per module, which ignores comments, docstrings and layout. It covers the step's own module and
every module of `tasks` and `schemas` that it reaches, found by reading the source (imports at the top and in functions,
and strings that name a module, as in `[sys.executable, "-m", "tasks.train.worker"]`); nothing is imported or run. Other
files of a `tasks` package count by their bytes: word lists and templates decide results too. Of a plug-in whose step it
is, or whose settings it takes, all files count, and the modules of ours that they reach.

`flows/graph/execute.py` computes every key through `step_key`, so that plan and run cannot disagree.
"""

import ast
import functools
import hashlib
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, is_dataclass
from enum import Enum
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import BaseModel, ConfigDict, JsonValue

from flows.graph.graph import Node
from schemas.artifacts import Artifact
from schemas.secrets import masked_value
from tasks.plugins import is_plugin
from tasks.storage.files import package_files, sha256_file, sha256_json

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("tasks", "schemas")
MODULE_NAME = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+")

DATA_FILE = re.compile(r"[A-Za-z0-9_][^~]*\.[A-Za-z0-9]+")  # no hidden files, no backup copies of editors
InputDigest = str | tuple[str, ...]
SHOWN_CHARS = 60


@dataclass(frozen=True)
class _Module:
    """One parsed file: its digest and the dotted names it may import, submodules and attributes alike."""

    digest: str
    names: frozenset[str]


def code_digests(function: Callable[..., Any], *, root: Path = PROJECT) -> dict[str, str]:
    """Return the digest of each module that the function's result may depend on: dotted name -> hex, sorted by name.

    Data files of `tasks` packages appear as `tasks.sources.helpdesk/phrases.yaml`.

    Raises:
        TypeError: it is not a plain function: the state of a closure, a partial or a builtin is in no source file, and
            two functions of one factory would share a key.
    """
    if not inspect.isfunction(function) or function.__closure__:
        raise TypeError(f"{function!r} is not a plain function of a module: its code cannot be part of a key")
    return module_digests(function.__module__, Path(inspect.getfile(function)), root=root)


def module_digests(name: str, file: Path, *, root: Path = PROJECT) -> dict[str, str]:
    """Like `code_digests`, from a module's dotted name and file; `root` holds the folders `tasks` and `schemas`."""
    walk = _walks.get((name, file, root))
    if walk is None or any(_stamp(path) != stamp for path, stamp in walk.stamps.items()):
        walk = _walks[name, file, root] = _walk(name, file, root)
    return dict(walk.digests)


def plugin_digests(values: object, function: Callable[..., Any], *, root: Path = PROJECT) -> dict[str, str]:
    """Return, like `code_digests`, the code of plug-ins that the function or a setting among the values belongs to."""
    found: dict[str, str] = {}
    modules = {function.__module__, *_modules_of(values)}
    for package in sorted({module.partition(".")[0] for module in modules if is_plugin(module)}):
        for name, path in package_files(package):
            if path.suffix == ".py":
                found |= module_digests(name.removesuffix(".py").replace("/", "."), path, root=root)
            else:
                found[name] = _data_digest(path, _stamp(path))
    return found


def _modules_of(value: object) -> Iterator[str]:
    """Yield the modules of the classes of all settings in the value."""
    if isinstance(value, BaseModel):
        yield type(value).__module__
        value = dict(value)
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, Collection) and not isinstance(value, str | bytes | bytearray):
        for each in value:
            yield from _modules_of(each)


Stamp = tuple[int, int] | None


@dataclass
class _Walk:
    """The digests that one module reaches, and the state of everything that was looked at on the way.

    Keys are computed for each step of each run and plan; to find the same modules again took a fifth of a small run.
    """

    digests: dict[str, str]
    stamps: dict[Path, Stamp]
    """File or folder -> its time and size; a folder's time changes when a file in it appears or disappears."""
    looked: set[str]
    """Names that have been looked up."""


_walks: dict[tuple[str, Path, Path], _Walk] = {}


def _stamp(path: Path) -> Stamp:
    try:
        status = os.stat(path)  # noqa: PTH116  # `Path.stat` takes four times as long, and this is called for each file
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _walk(name: str, file: Path, root: Path) -> _Walk:
    walk = _Walk({}, {}, set())
    waiting = [(name, file)]
    if name.partition(".")[0] in PACKAGES:
        waiting.extend(_files_of(name, root, walk))
    while waiting:
        name, file = waiting.pop()
        if name in walk.digests:
            continue
        module = _parse(name, file, walk.stamps.setdefault(file, _stamp(file)))
        walk.digests[name] = module.digest
        if name.startswith("tasks."):
            _add_data_digests(name, file, walk)
        for imported in sorted(module.names):
            waiting.extend(_files_of(imported, root, walk))
    walk.digests = dict(sorted(walk.digests.items()))
    return walk


def _files_of(dotted: str, root: Path, walk: _Walk) -> Iterator[tuple[str, Path]]:
    """Yield the module of this name and the packages above it: importing it runs all of them."""
    parts = dotted.split(".")
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        if name in walk.looked:
            continue
        walk.looked.add(name)
        path = root.joinpath(*parts[:length])
        for folder in (path.parent, path):
            if folder not in walk.stamps and folder.is_dir():
                walk.stamps[folder] = _stamp(folder)
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                yield name, file


def _add_data_digests(name: str, file: Path, walk: _Walk) -> None:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    if f"{package}/" in walk.looked:
        return
    walk.looked.add(f"{package}/")
    walk.stamps.setdefault(file.parent, _stamp(file.parent))
    for path in file.parent.iterdir():
        if DATA_FILE.fullmatch(path.name) and path.suffix not in (".py", ".pyc") and path.is_file():
            walk.stamps[path] = _stamp(path)
            walk.digests[f"{package}/{path.name}"] = _data_digest(path, walk.stamps[path])


@functools.lru_cache(maxsize=4096)
def _data_digest(path: Path, _state: Stamp) -> str:
    return sha256_file(path)[:32]


@functools.lru_cache(maxsize=4096)
def _parse(name: str, file: Path, _state: Stamp) -> _Module:
    """Parse a file, or read what an earlier process kept of it: to parse all of ours takes more than a second.

    What is kept counts for the same bytes of the file and of this module alone, whatever their times are.
    """
    source = file.read_bytes()
    kept = file.parent / "__pycache__" / f"{file.stem}.digest" if name.partition(".")[0] in PACKAGES else None
    if kept and (module := _kept(kept, name, source)):
        return module
    tokens: list[str] = []
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    names: set[str] = set()
    _normalise(ast.parse(source), tokens, names, package)
    digest = hashlib.sha256("".join(tokens).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    module = _Module(digest, frozenset(found for found in names if found.partition(".")[0] in PACKAGES))
    if kept and not sys.dont_write_bytecode:
        text = " ".join((digest, *sorted(module.names)))
        with suppress(OSError):  # a folder that cannot be written, or a full disk
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(f"{_seal(name, source, text)} {text}", encoding="utf-8")
    return module


def _kept(file: Path, name: str, source: bytes) -> _Module | None:
    """Return what is kept of a module's source; None if that is of another source, damaged or absent."""
    try:
        seal, _, text = file.read_text(encoding="utf-8").partition(" ")
    except (OSError, UnicodeDecodeError):
        return None
    if seal != _seal(name, source, text):
        return None
    digest, *names = text.split(" ")
    return _Module(digest, frozenset(names))


def _seal(name: str, source: bytes, text: str) -> str:
    """Return the digest that ties what is kept to its source and to the code of this module."""
    parts = (_own_digest(), name.encode(), hashlib.sha256(source).digest(), text.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


@cache
def _own_digest() -> bytes:
    return sha256_file(Path(__file__)).encode()


def _normalise(node: ast.AST, tokens: list[str], names: set[str], package: str) -> None:
    """Append the tree without positions, bare strings and absent fields: the same text on every Python version.

    The dotted names that it may import are added to `names` on the way: a second walk would take as long.
    """
    kind = type(node)
    tokens.append(f"{kind.__name__}(")
    if kind is ast.Import or kind is ast.ImportFrom or kind is ast.Constant:
        names.update(_named(node, package))
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
                elif _is_bare_string(item):
                    names.update(_named(item.value, package))
                else:
                    _normalise(item, tokens, names, package)
            tokens.append("]")
        elif not isinstance(value, ast.AST):
            tokens.append(repr(value))
        elif value._fields:
            _normalise(value, tokens, names, package)
        else:  # half of all nodes: an operator, or whether a name is read or written
            tokens.append(f"{type(value).__name__}()")
    tokens.append(")")


def _named(node: ast.AST, package: str) -> Iterator[str]:
    """Yield the dotted names that an import or a string may import."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *([base] if base else [])])
        # Each name may be a submodule; `_files_of` checks whether it is one.
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        named = MODULE_NAME.match(node.value)
        if named and node.value[named.end() :].partition(":")[0] == "":
            yield named.group()


def _is_bare_string(node: ast.AST) -> TypeGuard[ast.Expr]:
    """Return whether it is a docstring or an attribute's description: a statement without effect."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


class KeyParts(BaseModel):
    """Everything that a step's result depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    """The step's kind, `Node.folder`."""
    function: str
    inputs: dict[str, InputDigest]
    params: dict[str, JsonValue]
    code: dict[str, str]
    """Module -> digest of its normalised source."""
    libraries: dict[str, str]
    """Distribution -> installed version, or `absent`; and Python's own as major.minor."""

    @cached_property
    def key(self) -> str:
        """sha256 over all parts, as hex: the folder's name in the store."""
        return sha256_json(self.model_dump(mode="json"))


def step_key(node: Node, inputs: Mapping[str, InputDigest]) -> KeyParts:
    """Return the parts of a step's key.

    Args:
        inputs: The digest (or digests, in order) of each input.

    Raises:
        TypeError: a parameter has no canonical form (a path, an artifact, a non-finite number), or the step is not a
            plain function of a module.
    """
    code = code_digests(node.function)  # first: it refuses what has no name
    values = {**node.reads, **node.params}
    code |= plugin_digests(values, node.function)
    return KeyParts(
        step=node.folder,
        function=f"{node.function.__module__}.{node.function.__qualname__}",
        inputs=dict(inputs),
        params={name: canonical(value, where=f"{node.name}.{name}") for name, value in values.items()},
        code=code,
        libraries={"python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
        | {name: installed(name) for name in node.info.libraries},
    )


def digest_of(value: Any) -> str:
    """Return the sha256 of the value's canonical JSON, as hex. Takes what a parameter may be.

    >>> digest_of({"a": 1, "b": (2, 3)}) == digest_of({"b": [2, 3], "a": 1})
    True
    """
    return sha256_json(canonical(value, where="value"))


def canonical(value: Any, *, where: str) -> JsonValue:
    """Convert the value to plain JSON: specs by `model_dump`, tuples as lists, sets sorted.

    Raises:
        TypeError: it has no form that means the same on every machine.
    """
    match value:
        case Artifact() | Path():
            # A root or a path would tie the key to this machine: artifacts are inputs, paths are context.
            raise TypeError(f"{where}: {type(value).__name__} cannot be a parameter; pass it as an input or as context")
        case BaseModel():
            return canonical(value.model_dump(mode="json"), where=where)
        case Enum():
            return canonical(value.value, where=where)
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise TypeError(f"{where}: {value} cannot be a parameter; only finite numbers can")
            return value
        case Mapping():
            return {str(name): canonical(item, where=f"{where}.{name}") for name, item in value.items()}
        case set() | frozenset():
            return sorted((canonical(item, where=where) for item in value), key=repr)
        case Sequence() if not isinstance(value, bytes | bytearray):
            return [canonical(item, where=f"{where}[{index}]") for index, item in enumerate(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return canonical(asdict(value), where=where)
    raise TypeError(f"{where}: {type(value).__name__} cannot be a parameter; specs, scalars and lists of them can")


def why_changed(old: KeyParts, new: KeyParts, *, unknown: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Return what differs, one phrase each, most informative first; empty if nothing does.

    Args:
        old: The parts of an earlier result.
        new: The parts as they are now.
        unknown: Inputs and parameters that are not known yet; they are not compared.

    Phrases: `params.step.threshold: 0.8 -> 0.7`, `input tickets changed`, `code of tasks.curate.dedup changed`,
    `torch 2.14.0 -> 2.15.0`.
    """
    given = frozenset(old.inputs.keys() | new.inputs.keys())  # an input that is None counts as a parameter
    return (
        *((f"function {old.function} -> {new.function}",) if old.function != new.function else ()),
        *_changed_params(_known(old.params, unknown | given), _known(new.params, unknown | given)),
        *(
            f"input {name} {_became(name, old.inputs, new.inputs)}"
            for name in sorted(given)
            if name not in unknown and old.inputs.get(name) != new.inputs.get(name)
        ),
        *(
            f"code of {name} {_became(name, old.code, new.code)}"
            for name in sorted(old.code.keys() | new.code.keys())
            if old.code.get(name) != new.code.get(name)
        ),
        *(
            f"{name} {old.libraries.get(name, 'not used')} -> {new.libraries.get(name, 'not used')}"
            for name in sorted(old.libraries.keys() | new.libraries.keys())
            if old.libraries.get(name) != new.libraries.get(name)
        ),
    )


def _known(params: dict[str, JsonValue], unknown: frozenset[str]) -> dict[str, JsonValue]:
    return {name: value for name, value in params.items() if name not in unknown}


def _became(name: str, old: Collection[str], new: Collection[str]) -> str:
    if name in old and name in new:
        return "changed"
    return "is used now" if name in new else "is no longer used"


def _changed_params(old: JsonValue, new: JsonValue) -> Iterator[str]:
    # Both without secrets: only references to them were stored with the old one.
    before, after = dict(_leaves(masked_value(old), "params")), dict(_leaves(masked_value(new), "params"))
    for path in sorted(before.keys() | after.keys()):
        was, now = before.get(path, "absent"), after.get(path, "absent")
        if was != now:
            yield f"{path}: {was} -> {now}" if len(was) + len(now) <= SHOWN_CHARS else f"{path} changed"


def _leaves(value: JsonValue, path: str) -> Iterator[tuple[str, str]]:
    """Yield every scalar and every empty container with its path."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}")
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, repr(value)


@cache
def installed(distribution: str) -> str:
    """Return the installed version of a distribution, or `absent`."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"
