"""What the disk may do to us, in plain words, and the permissions of what we put there.

Used by the store, the ledger and the open run; knows nothing of them.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import StorageError, TunegateError
from tasks.disk_errors import name_disk_error
from tasks.files import sync_directory


@contextmanager
def named_disk_errors(root: Path) -> Iterator[None]:
    """Turn what a full, broken or forbidden disk raises inside the block into one error that says so.

    Raises:
        StorageError: TG0501, TG0554, see `tasks/disk_errors.py`.
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


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user reads, whole or not at all, whatever the umask."""
    _write_aside(path, text).replace(path)
    sync_directory(path.parent)


def keep_private(path: Path, text: str) -> None:
    """As `write_private`, unless the file is there: of processes that start at one moment, the first one's counts."""
    aside = _write_aside(path, text)
    try:
        path.hardlink_to(aside)
    except FileExistsError:
        pass
    finally:
        aside.unlink()
    sync_directory(path.parent)


def _write_aside(path: Path, text: str) -> Path:
    stream, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")  # readable by us alone
    with os.fdopen(stream, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # a power cut must not leave an empty file for ever
    return Path(name)


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
        StorageError: TG0510, a link: what it points to is in no manifest.
    """
    for path in (directory, *directory.rglob("*")):
        if path.is_symlink():
            raise StorageError(
                f"a result may hold files alone, {path.relative_to(directory)} is a link",
                code="TG0510",
                where=str(path),
            )
        path.chmod(0o700 if path.is_dir() else 0o600)
