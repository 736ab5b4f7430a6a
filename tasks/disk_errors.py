"""What a disk and the kernel's limits do to us, as an error that says so and what to do.

An `OSError` tells by its number; DuckDB, SQLite, Arrow and safetensors tell in words alone. Used by the store, the
ledger, the open run and the training process; knows nothing of what was being written.
"""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import StorageError


@dataclass(frozen=True)
class _Case:
    numbers: tuple[int, ...]
    texts: tuple[str, ...]
    error: StorageError


_GONE = StorageError(
    "the state folder was removed or replaced while this command worked",
    code="TG0554",
    hint="leave the state folder alone while a command is at work, then run again",
)
_CASES = (
    _Case(
        (errno.ENOSPC, errno.EDQUOT),
        ("No space left on device", "disk is full", "Disk quota exceeded"),
        StorageError(
            "the disk is full",
            code="TG0501",
            hint="free some space or set TUNEGATE_HOME to a larger disk, then run again: finished steps are reused",
        ),
    ),
    _Case(
        (errno.EIO, errno.EROFS),
        ("Input/output error", "disk I/O error", "Read-only file system", "readonly database"),
        StorageError(
            "the disk refuses to read or write",
            code="TG0554",
            hint="look at the disk (`dmesg`), then run again: finished steps are reused",
        ),
    ),
    _Case(
        (errno.EMFILE, errno.ENFILE, errno.EFBIG),
        ("Too many open files", "File too large"),
        StorageError(
            "a limit of this process is reached",
            code="TG0554",
            hint="raise it (`ulimit -n` open files, `ulimit -f` size of a file), then run again",
        ),
    ),
    _Case(
        (errno.EACCES, errno.EPERM),
        ("Permission denied", "unable to open database file"),
        StorageError(
            "this user may not read or write here", code="TG0554", hint="correct the rights of the folder, or its owner"
        ),
    ),
    _Case(
        (errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
        (),
        StorageError(
            "a file is where a folder should be, or a folder where a file",
            code="TG0554",
            hint="move it away, or set TUNEGATE_HOME to another folder",
        ),
    ),
    _Case((), ("FOREIGN KEY constraint failed",), _GONE),  # rows that this process wrote are not there any more
)


_WITHOUT_ROOM = 1 << 16
"""Bytes without which SQLite cannot open a database at all; it then speaks of an I/O error, not of a full disk."""


def name_disk_error(error: BaseException, root: Path) -> StorageError | None:
    """The error with its place and what is left of the disk; None when the disk has no part in it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, FileNotFoundError) and str(seen.filename).startswith(str(root)) and not root.exists():
            return _placed(_GONE, seen, root)
        for case in _CASES:
            if _is(case, seen):
                is_full = "disk I/O error" in str(seen) and _free_bytes(root) < _WITHOUT_ROOM
                return _placed(_CASES[0].error if is_full else case.error, seen, root)
        seen = seen.__cause__ or seen.__context__
    return None


def _is(case: _Case, error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in case.numbers:
        return True
    return any(text in str(error) for text in case.texts)


def _placed(known: StorageError, error: BaseException, root: Path) -> StorageError:
    named = getattr(error, "filename", None)
    left = f": {_free_bytes(root):,} bytes are free" if known.code == "TG0501" else ""
    told = f": {error.strerror}" if not left and isinstance(error, OSError) and error.strerror else left
    where = named if isinstance(named, str) and known.code != "TG0501" else str(root)
    return StorageError(f"{known.message}{told}", code=known.code, where=where, hint=known.hint)


def _free_bytes(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
