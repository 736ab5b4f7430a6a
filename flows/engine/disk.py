"""What the disk may do to us, in plain words, and the permissions of what we put there.

Used by the store, the ledger and the session; knows nothing of them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import StorageError, TunegateError
from tasks.disk_errors import name_disk_error


@contextmanager
def named_disk_errors(root: Path) -> Iterator[None]:
    """Turn what a full, broken or forbidden disk raises inside the block into one error that says so.

    Raises:
        StorageError: TG0501, TG0554 to TG0556 and TG0559, see `tasks/disk_errors.py`.
    """
    try:
        yield
    except TunegateError:
        raise
    except Exception as error:
        named = name_disk_error(error, root)
        if named is None:
            raise
        raise named from error


def private_folder(folder: Path) -> Path:
    """Make the folder and those above it, readable by this user alone; return it."""
    if not folder.is_dir():
        private_folder(folder.parent)
        need_folder(folder)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def need_folder(folder: Path) -> None:
    """Raise where something else is in the folder's place; it need not be there yet.

    Raises:
        NotADirectoryError: something else is.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


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
