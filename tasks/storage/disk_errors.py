"""Turn disk errors and kernel limits into errors that say what happened and what to do.

An `OSError` has a number; DuckDB, SQLite, Arrow and safetensors have only a message.
"""

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
    "the state folder was removed or replaced while this command was running",
    code="TG0554",
    hint="do not touch the state folder while a command is running; run again",
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
        (errno.EIO,),
        ("Input/output error", "disk I/O error"),
        StorageError(
            "the disk cannot be read or written",
            code="TG0554",
            hint="check the disk (`dmesg`), then run again: finished steps are reused",
        ),
    ),
    _Case(
        (errno.EMFILE, errno.ENFILE, errno.EFBIG),
        ("Too many open files", "File too large"),
        StorageError(
            "this process has reached a limit",
            code="TG0554",
            hint="raise it (`ulimit -n` for open files, `ulimit -f` for file size), then run again",
        ),
    ),
    _Case(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        ("Permission denied", "unable to open database file", "Read-only file system", "readonly database"),
        StorageError(
            "this user may not read or write here",
            code="TG0554",
            hint="fix the folder's permissions or its owner, or set TUNEGATE_HOME to a folder that may be written",
        ),
    ),
    _Case(
        (errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
        (),
        StorageError(
            "a file is where a folder should be, or a folder where a file should be",
            code="TG0554",
            hint="move it away, or set TUNEGATE_HOME to another folder",
        ),
    ),
    _Case((), ("FOREIGN KEY constraint failed",), _GONE),  # rows that this process wrote are missing
)


_WITHOUT_ROOM = 1 << 16
"""With less free space (bytes), SQLite cannot open a database, and reports an I/O error instead of a full disk."""


def name_disk_error(error: BaseException, root: Path) -> StorageError | None:
    """The error as one of ours, with its place and the free disk space; None when it is not about the disk."""
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
    filename = getattr(error, "filename", None)
    free = f": {_free_bytes(root):,} bytes are free" if known.code == "TG0501" else ""
    detail = f": {error.strerror}" if not free and isinstance(error, OSError) and error.strerror else free
    where = filename if isinstance(filename, str) and known.code != "TG0501" else str(root)
    return StorageError(f"{known.message}{detail}", code=known.code, where=where, hint=known.hint)


def _free_bytes(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
