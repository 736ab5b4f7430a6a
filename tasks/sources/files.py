"""`source.kind: files`: CSV, JSONL and Parquet files by path or glob.

Rows are read by `readers/`.
"""

import errno
import glob
import os
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from schemas.errors import ConfigError, DataError, SecurityError
from schemas.source import FilesSource
from tasks.sources.formats import SourceFile, file_parts, fingerprint_files
from tasks.sources.kind import Part, Place, SourceKind
from tasks.sources.readers.headers import did_you_mean


class Files(SourceKind[FilesSource]):
    """Files on this machine."""

    spec = FilesSource

    def describe(self, source: FilesSource) -> str:
        return ", ".join(source.paths)

    def fingerprint(self, source: FilesSource, place: Place) -> str:
        """Digest of names and bytes."""
        return fingerprint_files(find_files(source, root=place.root))

    def parts(self, source: FilesSource, place: Place) -> Iterator[Part]:
        return file_parts(find_files(source, root=place.root), source)


KIND = Files()
MAX_RECURSIVE = 3
"""Most `**` of a path: what is walked grows with the depth of the folders to this power."""


def find_files(source: FilesSource, *, root: Path) -> tuple[SourceFile, ...]:
    """The regular files of all paths and globs, each once, ordered by name.

    Raises:
        DataError: TG0201, a path or glob matches no file; says where it looked.
        ConfigError: TG0130, a path is a folder, something else that is no regular file, or a link to itself.
        SecurityError: TG0818, a link that a glob matched leads out of the glob's folder.
    """
    found: dict[Path, SourceFile] = {}
    for pattern in source.paths:
        for path in _expand(pattern, root):
            found.setdefault(path.resolve(), SourceFile(_name(path, root), path))
    return tuple(sorted(found.values(), key=lambda file: file.name))


def _expand(pattern: str, root: Path) -> list[Path]:
    literal = root / Path(pattern).expanduser()
    if literal.is_file():
        return [literal]
    if (n_recursive := literal.parts.count("**")) > MAX_RECURSIVE:
        raise ConfigError(
            f"the glob has `**` {n_recursive} times; allowed are {MAX_RECURSIVE}", code="TG0130", where=pattern[:200],
            hint="`**` stands for any number of folders: `exports/**/*.jsonl`",
        )  # fmt: skip
    if _is_loop(literal):
        raise ConfigError(f"{pattern!r} is or contains a link back to itself", code="TG0130", where=str(literal))
    if literal.exists():
        raise ConfigError(
            f"{pattern!r} is {'a folder' if literal.is_dir() else 'not a regular file'}",
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
    """What the glob matches. `**` does not follow links to folders, which may form a circle."""
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
    """A link in a folder of exports must not make us read a file outside of it."""
    fixed = os.path.realpath(_fixed(literal))
    for file in files:
        if file.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(fixed):
            raise SecurityError(
                f"{file.name!r}, which {pattern!r} matches, is a link to a file outside of {fixed}",
                code="TG0818",
                where=str(file),
                hint="if that is intended, name the target of the link",
            )


def _nearby(wanted: Path) -> str:
    """A hint with the files that are there instead."""
    folder = wanted.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    names = sorted(path.name for path in folder.iterdir())
    part = wanted.name if folder == wanted.parent else wanted.relative_to(folder).parts[0]
    near = did_you_mean(part, names)
    return near or (f"{folder} contains: {', '.join(names[:10])}" if names else f"{folder} is empty")


def _name(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix()
