"""Files: digests, durable and atomic writes, and names that may not leave a folder."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import orjson

from schemas.errors import SecurityError


def sha256_file(path: Path) -> str:
    """sha256 of the file's bytes, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def package_files(module: str) -> Iterator[tuple[str, Path]]:
    """Yield all files of the package that has this module, sorted: name relative to its parent folder, and path.

    What Python and numba keep in `__pycache__` is left out.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    top = module.partition(".")[0]
    found = find_spec(top)
    if found is None:
        raise ModuleNotFoundError(top)
    for folder in map(Path, found.submodule_search_locations or ()):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder.parent)
            if path.is_file() and "__pycache__" not in name.parts:
                yield name.as_posix(), path
    if not found.submodule_search_locations and found.origin is not None:
        yield Path(found.origin).name, Path(found.origin)


def sha256_json(value: object) -> str:
    """sha256 of the value's canonical JSON (sorted keys, no spaces), as hex.

    >>> sha256_json({"b": 1, "a": 2}) == sha256_json({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def inside(name: str, root: Path, *, where: str) -> Path:
    """Resolve a file name of a configuration, relative to `root`; neither it nor a link may leave `root`.

    Raises:
        SecurityError: TG0818, the file is outside.
    """
    # Not Path.resolve, which raises RuntimeError for a link to itself; with realpath, opening the file fails.
    path = Path(os.path.realpath(root / Path(name).expanduser()))
    if not path.is_relative_to(root.resolve()):
        raise SecurityError(
            f"{name!r} is outside the folder of pipelines.yaml",
            code="TG0818",
            where=where,
            hint="copy it next to pipelines.yaml: everything that decides a run belongs under the same version control",
        )
    return path


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below the folder. Unlike `rglob`, it tolerates a folder that is renamed or removed meanwhile."""
    for where, _folders, names in os.walk(folder):
        yield from (Path(where) / name for name in names)


@contextmanager
def whole_file(path: Path, *, mode: int | None = None) -> Iterator[Path]:
    """Yield a name beside `path`; what is there at the end of the block replaces `path`, durably.

    A reader sees the old bytes or all the new ones. After an exception the file is removed, and `path` is as before. A
    killed process leaves it as `.NAME.WORD.PID.tmp`.

    Args:
        path: Its folder exists.
        mode: Permissions; None for those that the block gave.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.{os.getpid()}.tmp")
    try:
        yield aside
        if mode is not None:
            aside.chmod(mode)
        sync_file(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_directory(path.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace the file's bytes: a reader sees the old ones or all the new ones."""
    with whole_file(path) as aside:
        aside.write_bytes(data)


def write_json(path: Path, value: object) -> None:
    """Write indented JSON with sorted keys, atomically."""
    write_atomic(path, orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n")


def sync_file(path: Path) -> None:
    """Make the file's bytes durable, not its name."""
    _sync(path, os.O_RDONLY)


def sync_directory(path: Path) -> None:
    """Make a rename or a new entry in the directory durable."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
