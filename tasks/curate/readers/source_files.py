"""Which files a source means, under which names, and what their bytes are: the fingerprint of a source.

It knows nothing of rows. Called by `tasks/curate/extract.py`.
"""

from __future__ import annotations

import errno
import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

from schemas.errors import ConfigError, DataError, SecurityError
from schemas.source import FilesSource
from tasks.curate.readers.headers import did_you_mean
from tasks.curate.readers.streams import COMPRESSED
from tasks.files import sha256_file, sha256_json

FileFormat = Literal["csv", "jsonl", "json", "parquet"]

_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_ENDING = re.compile(r"(\.(csv|tsv|jsonl|ndjson|json|parquet|pq|gz|zst))+$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file and the name rows keep of it: relative to pipelines.yaml where it lies below it."""

    name: str
    path: Path


def find_files(source: FilesSource, *, root: Path) -> tuple[SourceFile, ...]:
    """The regular files of all paths and globs, each once, ordered by name.

    Raises:
        DataError: TG0201, a path or glob matches no file; says where it looked.
        ConfigError: TG0130, a path is a folder, something else that is no regular file, or a link to itself.
        SecurityError: TG0818, a link that a glob found leads out of the glob's folder.
    """
    found: dict[Path, SourceFile] = {}
    for pattern in source.paths:
        for path in _expand(pattern, root):
            found.setdefault(path.resolve(), SourceFile(_name(path, root), path))
    return tuple(sorted(found.values(), key=lambda file: file.name))


def ending_of(name: str) -> str:
    """The endings of the name that say how the file is read; empty where none does.

    >>> ending_of("exports/2026.06/tickets.CSV.gz"), ending_of("tickets")
    ('.csv.gz', '')
    """
    found = _ENDING.search(name)
    return found[0].lower() if found else ""


def file_format(file: SourceFile, declared: Literal["auto", "csv", "jsonl", "parquet"]) -> FileFormat:
    """The declared format, or the one the suffix names.

    Raises:
        ConfigError: TG0130, the suffix names none, or a Parquet file is compressed again.
    """
    suffixes = [suffix.lower() for suffix in file.path.suffixes]
    squeezed = bool(suffixes) and suffixes[-1] in COMPRESSED
    plain = suffixes[:-1] if squeezed else suffixes
    found: FileFormat | None = declared if declared != "auto" else _SUFFIXES.get(plain[-1]) if plain else None
    if found is None:
        raise ConfigError(
            f"the suffix of {file.path.name!r} names no format; known are {', '.join(_SUFFIXES)}, each also with "
            f"{' or '.join(COMPRESSED)}",
            code="TG0130",
            where=file.name,
            hint="set `format: csv`, `jsonl` or `parquet`",
        )
    if found == "parquet" and squeezed:
        raise ConfigError("Parquet compresses inside; unpack the file", code="TG0130", where=file.name)
    return found


def id_prefixes(files: Iterable[SourceFile]) -> dict[str, str]:
    """File name -> prefix of the ids made for its rows: its stem, or more of its name where stems repeat.

    >>> files = [SourceFile(name, Path(name)) for name in ("a/x.jsonl", "b/x.jsonl.gz")]
    >>> id_prefixes(files)
    {'a/x.jsonl': 'a/x', 'b/x.jsonl.gz': 'b/x'}
    """
    names = [file.name for file in files]
    bare = {
        name: re.sub(r"(\.(csv|tsv|jsonl|ndjson|json|parquet|pq|gz|zst))+$", "", name, flags=re.I) for name in names
    }
    stems = {name: bare[name].rpartition("/")[2] for name in names}
    for prefixes in (stems, bare):
        if len(set(prefixes.values())) == len(names):
            return prefixes
    return {name: name for name in names}


def fingerprint_files(files: Iterable[SourceFile]) -> str:
    """sha256 over the names and the sha256 of the bytes."""
    return sha256_json({file.name: sha256_file(file.path) for file in files})


def fingerprint_folder(folder: Path) -> str:
    """sha256 over every file below the folder, relative names included."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return fingerprint_files(SourceFile(path.relative_to(folder).as_posix(), path) for path in paths)


def _expand(pattern: str, root: Path) -> list[Path]:
    literal = root / Path(pattern).expanduser()
    if literal.is_file():
        return [literal]
    if _is_loop(literal):
        raise ConfigError(f"{pattern!r} is or holds a link back to itself", code="TG0130", where=str(literal))
    if literal.exists():
        raise ConfigError(
            f"{pattern!r} is {'a folder' if literal.is_dir() else 'no regular file'}",
            code="TG0130",
            where=str(literal),
            hint=f"name the files in it: {pattern.rstrip('/')}/*.jsonl" if literal.is_dir() else None,
        )
    files = [match for match in _matches(literal) if match.is_file()]
    _refuse_links_out(files, pattern, literal)
    if not files:
        what = "no file matches" if glob.has_magic(pattern) else "no file"
        raise DataError(f"{what} {pattern!r}", code="TG0201", where=str(literal), hint=_nearby(literal))
    return files


def _is_loop(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _matches(literal: Path) -> Iterator[Path]:
    """What the glob matches. `**` follows no link to a folder: two that lead back would never end."""
    fixed = _fixed(literal)
    wanted = literal.relative_to(fixed).parts
    if not wanted:
        return
    names_hidden = any(part.startswith(".") for part in wanted)
    for match in fixed.glob("/".join(wanted)):
        if names_hidden or not any(part.startswith(".") for part in match.relative_to(fixed).parts):
            yield match


def _fixed(literal: Path) -> Path:
    return Path(*takewhile(lambda part: not glob.has_magic(part), literal.parts))


def _refuse_links_out(files: list[Path], pattern: str, literal: Path) -> None:
    """Whoever may drop files into a folder of exports must not make us read another one by a link."""
    fixed = os.path.realpath(_fixed(literal))
    for file in files:
        if file.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(fixed):
            raise SecurityError(
                f"{file.name!r}, which {pattern!r} matches, is a link that leads out of {fixed}",
                code="TG0818",
                where=str(file),
                hint="if it is meant, name the file that it leads to",
            )


def _nearby(wanted: Path) -> str:
    """What lies where the file was looked for."""
    folder = wanted.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    names = sorted(path.name for path in folder.iterdir())
    part = wanted.name if folder == wanted.parent else wanted.relative_to(folder).parts[0]
    near = did_you_mean(part, names)
    return near or (f"{folder} holds: {', '.join(names[:10])}" if names else f"{folder} is empty")


def _name(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix()
