"""What the disk may do to us, in plain words, and the permissions of what we put there.

Used by the store and the ledger; knows nothing of either.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import StorageError, TunegateError

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_TEXTS = ("No space left on device", "disk is full", "Disk quota exceeded")
"""DuckDB, SQLite and Arrow tell of a full disk in words alone."""


@contextmanager
def name_full_disk(root: Path) -> Iterator[None]:
    """Turn whatever a full disk raises inside the block into one error that names the place and what is left.

    Raises:
        StorageError: TG0501.
    """
    try:
        yield
    except TunegateError:
        raise
    except Exception as error:
        if not _says_full(error):
            raise
        free = shutil.disk_usage(_existing(root)).free
        raise StorageError(
            f"the disk is full: {free:,} bytes are free",
            code="TG0501",
            where=str(root),
            hint="free some space or set TUNEGATE_HOME to a larger disk, then run again: finished steps are reused",
        ) from error


def private_folder(folder: Path) -> Path:
    """Make the folder and those above it, readable by this user alone; return it."""
    if not folder.is_dir():
        private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def make_private(directory: Path) -> None:
    """Give every folder below the mode 0700 and every file 0600: ticket text is personal data.

    Raises:
        StorageError: TG0514, a link: what it points to is in no manifest.
    """
    for path in (directory, *directory.rglob("*")):
        if path.is_symlink():
            raise StorageError(
                f"a result may hold files alone, {path.relative_to(directory)} is a link",
                code="TG0514",
                where=str(path),
            )
        path.chmod(0o700 if path.is_dir() else 0o600)


def _says_full(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL:
            return True
        if any(text in str(seen) for text in FULL_TEXTS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
