"""Disk errors in plain words, and the permissions of what we write."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import StorageError, TunegateError
from tasks.storage.disk_errors import name_disk_error
from tasks.storage.files import sync_directory


@contextmanager
def named_disk_errors(root: Path) -> Iterator[None]:
    """Turn errors of a full, broken or read-only disk inside the block into one error that says so.

    Raises:
        StorageError: TG0501, TG0554, see `tasks/storage/disk_errors.py`.
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
    """Create the folder and its parents, readable only by this user; return it."""
    if not folder.is_dir():
        private_folder(folder.parent)
        need_folder(folder)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def is_read_only(folder: Path) -> bool:
    """Return whether this user may not write in the existing folder: a copy for an auditor, a read-only file system."""
    return folder.is_dir() and not os.access(folder, os.W_OK)


def write_private(path: Path, content: str | bytes) -> None:
    """Write a file that only this user can read, completely or not at all, whatever the umask."""
    _write_aside(path, content).replace(path)
    sync_directory(path.parent)


def keep_private(path: Path, content: str | bytes) -> None:
    """Like `write_private`, unless the file exists: of processes that start together, the first one wins."""
    aside = _write_aside(path, content)
    try:
        path.hardlink_to(aside)
    except FileExistsError:
        pass
    finally:
        aside.unlink()
    sync_directory(path.parent)


def _write_aside(path: Path, content: str | bytes) -> Path:
    stream, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")  # readable only by us
    with os.fdopen(stream, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())  # else a power cut may leave an empty file
    return Path(name)


def need_folder(folder: Path) -> None:
    """Raise if the path is something other than a folder; it need not exist yet.

    Raises:
        NotADirectoryError: it is something else.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def make_private(directory: Path) -> None:
    """Set the mode of every folder below to 0700 and of every file to 0600: ticket text is personal data.

    Raises:
        StorageError: TG0510, there is a link; what it points to is in no manifest.
    """
    for path in (directory, *directory.rglob("*")):
        if path.is_symlink():
            raise StorageError(
                f"a result may only hold files, and {path.relative_to(directory)} is a link",
                code="TG0510",
                where=str(path),
            )
        path.chmod(0o700 if path.is_dir() else 0o600)
