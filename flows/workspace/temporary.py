"""Work folders below `tmp/` of the home, removed after their process: each has a lock, and is swept once that is free.

The store makes results in such a folder; a process keeps its temporary files, and those of its libraries and children,
in another. So ticket text is kept only below the home, and what a killed process left is removed at the next start and
by `tunegate data forget`: these folders, and files that were written to be renamed and never were.
"""

import logging
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from flows.workspace.disk import private_folder
from flows.workspace.lock import hold

FOLDER = "tmp"
TMPDIR = "TMPDIR"
"""Read by Python, by the C library and by child processes."""

_ASIDE = re.compile(r"\..+\.(\w+)\.tmp([.-]\w+)?")
"""`.NAME.WORD.PID.tmp` of `tasks/storage/files.py`, without a pid of `flows/workspace/disk.py`; and what SQLite and
DuckDB keep next to such a file."""
ABANDONED_S = 600.0
"""Such a file is written in moments. After this long it is abandoned, even if its pid belongs to another host."""

_own: list[Path] = []
"""Folders of this process; the last one is in use. What it inherits in the environment is its parent's."""

log = logging.getLogger("tunegate.temporary")


@contextmanager
def temporary_folder(home: Path) -> Iterator[Path]:
    """Create a folder below `home/tmp` and remove it at the end. While its lock is held, no process sweeps it."""
    # A short name: the path of a socket that a library makes in it has at most 107 bytes.
    folder = private_folder(home / FOLDER) / secrets.token_hex(6)
    with hold(folder.with_suffix(".lock")):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep(home: Path) -> None:
    """Remove folders and unfinished files of processes that died: the kernel has released their locks."""
    for lock in sorted((home / FOLDER).glob("*.lock")):
        with suppress(PermissionError), hold(lock, wait_s=0) as held:  # other users sweep their own
            if held:
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    for folder, names, files in os.walk(home):
        if Path(folder) == home:  # the store has only complete files, and `tmp` has locks
            names[:] = [name for name in names if name not in (FOLDER, "store")]
        for name in files:
            found = _ASIDE.fullmatch(name)
            if found is not None and not _lives(found[1]):
                _remove_abandoned(Path(folder, name))


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, OverflowError, ProcessLookupError):  # not a pid, or no such process
        return False
    except PermissionError:
        return True
    return True


def _remove_abandoned(path: Path) -> None:
    with suppress(OSError):  # another process may sweep too, or it belongs to another user
        if time.time() - path.lstat().st_mtime > ABANDONED_S:
            path.unlink()


@contextmanager
def temporary_files_below(home: Path, *, make: bool = False) -> Iterator[None]:
    """Make this process and its children put temporary files into a folder of its own below `home/tmp`.

    Sweeps first. A home that does not exist yet is created only with `make`; if it cannot be written to, temporary
    files stay where the system has them. Does nothing within another such block of the same home.
    """
    if not (home.is_dir() or make) or (_own and _own[-1].parent == home / FOLDER):
        yield
        return
    with ExitStack() as stack:
        try:
            sweep(home)
            folder = stack.enter_context(temporary_folder(home))
        except OSError as error:
            if make:
                raise
            log.debug("no temporary files below %s: %s", home, error)
        else:
            _own.append(folder)
            stack.callback(_own.pop)
            stack.callback(_set_folder, os.environ.get(TMPDIR), tempfile.tempdir)
            _set_folder(str(folder), str(folder))
        yield


def _set_folder(variable: str | None, folder: str | None) -> None:
    """Set it for this process and for those that are started from now on."""
    if variable is None:
        os.environ.pop(TMPDIR, None)
    else:
        os.environ[TMPDIR] = variable
    tempfile.tempdir = folder
