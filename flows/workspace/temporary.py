"""Folders of work below `tmp/` of the home that outlive nobody: each has a lock, and one whose lock is free is swept.

The store makes results in such a folder; a process keeps its temporary files, and those of its libraries and children,
in another. So a ticket's text lies nowhere but below the home, and what a killed process left goes at the next start
and with `tunegate data forget`: these folders, and files that were written aside to be renamed and never were. It knows
nothing of what the files hold.
"""

from __future__ import annotations

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
"""Read by Python, by the C library and by what is started as a process of its own."""

_ASIDE = re.compile(r"\..+\.(\w+)\.tmp([.-]\w+)?")
"""`.NAME.PID.tmp` of `tasks/files.py` and others, a random word in place of the pid in `flows/workspace/disk.py`; and
what SQLite and DuckDB keep beside such a file."""
ABANDONED_S = 600.0
"""A file aside is written in moments, and by then it is nobody's, also where its pid is one of another host."""

_own: list[Path] = []
"""Folders of this process, the last one in use. What it inherits in the environment is its parent's."""

log = logging.getLogger("tunegate.temporary")


@contextmanager
def temporary_folder(home: Path) -> Iterator[Path]:
    """A new folder below `home/tmp`, removed at the end. While its lock is held nobody sweeps it.

    Its name is short: the sockets that libraries make in it have a path of 107 bytes at most.
    """
    folder = private_folder(home / FOLDER) / secrets.token_hex(6)
    with hold(folder.with_suffix(".lock")):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep(home: Path) -> None:
    """Remove the folders of processes that died: the kernel has released their locks. And the files they left aside."""
    for lock in sorted((home / FOLDER).glob("*.lock")):
        with suppress(PermissionError), hold(lock, wait_s=0) as held:  # another user's is theirs to sweep
            if held:
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    for folder, names, files in os.walk(home):
        if Path(folder) == home:  # what is in the store is whole, what is in the other folder has a lock
            names[:] = [name for name in names if name not in (FOLDER, "store")]
        for name in files:
            found = _ASIDE.fullmatch(name)
            if found is not None and not _lives(found[1]):
                _remove_abandoned(Path(folder, name))


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, OverflowError, ProcessLookupError):  # no pid, or nobody's
        return False
    except PermissionError:
        return True
    return True


def _remove_abandoned(path: Path) -> None:
    with suppress(OSError):  # another process sweeps too, or it is another user's
        if time.time() - path.lstat().st_mtime > ABANDONED_S:
            path.unlink()


@contextmanager
def temporary_files_below(home: Path, *, make: bool = False) -> Iterator[None]:
    """Have this process and its children put temporary files into a folder of its own below `home/tmp`.

    Sweeps first. A home that does not exist yet is made only with `make`; in one that cannot be written to, temporary
    files stay where the system has them. Within another such block of the same home there is nothing to do.
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
    """For processes that are started from now on, and for this one."""
    if variable is None:
        os.environ.pop(TMPDIR, None)
    else:
        os.environ[TMPDIR] = variable
    tempfile.tempdir = folder
