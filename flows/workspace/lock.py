"""Locks that the kernel releases when their holder dies, and that say who holds them.

`pipeline_lock` keeps two runs of one pipeline apart; `hold` is the bare lock that the store uses too. A lock is a
`flock` on a small file, never a row that someone must remember to delete: after `kill -9` it is simply free. Works
between processes of one machine and on file systems that support `flock`.
"""

import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from flows.workspace.disk import private_folder
from schemas.errors import ConfigError, LockedError, SecurityError

POLL_S = 0.05
GRACE_S = 0.3
"""`is_locked` holds the lock for microseconds, so a refusal counts only after this long."""
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Holder(BaseModel):
    """Who holds a pipeline."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int
    since: str
    """UTC, ISO 8601."""
    host: str
    run: str


UNKNOWN_HOLDER = Holder(pid=0, since="unknown", host="unknown", run="unknown")


@contextmanager
def pipeline_lock(root: Path, name: str, *, wait_s: float, run_id: str) -> Iterator[None]:
    """Hold the pipeline while the block runs; the lock file names this process, run and time.

    Args:
        root: The home folder; the file is `locks/NAME.lock` below it and is never deleted.
        wait_s: Seconds to wait for another holder; 0 refuses at once.

    Raises:
        LockedError: another run holds it for longer than that.
    """
    path = _lock_path(root, name)
    private_folder(path.parent)
    with _locked(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), path, name, wait_s=wait_s, run_id=run_id):
        yield


@contextmanager
def lock_file(path: Path, *, wait_s: float, run_id: str) -> Iterator[None]:
    """Hold a lock file that a setting names while the block runs.

    Raises:
        ConfigError: TG0110, as `open_lock_file`.
        LockedError: another run holds it for longer than `wait_s` seconds.
    """
    with _locked(open_lock_file(path), path, str(path), wait_s=wait_s, run_id=run_id):
        yield


def open_lock_file(path: Path) -> int:
    """Open a lock file that a setting names, or create it; returns its descriptor.

    Raises:
        ConfigError: TG0110, it cannot be opened, or is something else than a lock file: its content would be lost.
    """
    try:
        # Where a folder is world-writable and sticky, the kernel refuses O_CREAT for a file of another user.
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags) if path.exists() else os.open(path, flags | os.O_CREAT, 0o600)
    except OSError as error:
        raise _no_lock_file(path, error.strerror or type(error).__name__) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or (status.st_size and _read_holder(path) == UNKNOWN_HOLDER):
        os.close(descriptor)
        raise _no_lock_file(path, "it is something else")
    return descriptor


def _no_lock_file(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{path} cannot be used as a lock file: {why}", code="TG0110", where="schedule.resource",
        hint="name a new file in a folder that this user can write, or an empty file that all its users can write",
    )  # fmt: skip


@contextmanager
def _locked(descriptor: int, path: Path, name: str, *, wait_s: float, run_id: str) -> Iterator[None]:
    """Hold the open file while the block runs; it names this process, run and time, and stays."""
    try:
        if not _acquire(descriptor, wait_s=max(wait_s, GRACE_S)):
            raise refusal(name, _read_holder(path))
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = Holder(pid=os.getpid(), since=since, host=socket.gethostname(), run=run_id)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, orjson.dumps(holder.model_dump()), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def is_locked(root: Path, name: str) -> Holder | None:
    """Return who holds the pipeline at this moment; None when no one does. Creates nothing.

    A holder that has not written its name yet is returned as `UNKNOWN_HOLDER`.
    """
    path = _lock_path(root, name)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        # Shared, so that several readers do not take each other for a run.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_holder(path)
    finally:
        os.close(descriptor)
    return None


@contextmanager
def hold(path: Path, *, wait_s: float | None = None) -> Iterator[bool]:
    """Hold a temporary lock file while the block runs and delete it at the end; yields whether it is held.

    Args:
        path: The lock file; its folder exists.
        wait_s: Seconds to wait for another holder; None waits forever, 0 tries once.
    """
    descriptor = _open_and_acquire(path, wait_s)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)  # by the holder only, who still holds it
        os.close(descriptor)


def _open_and_acquire(path: Path, wait_s: float | None) -> int | None:
    deadline = None if wait_s is None else time.monotonic() + wait_s
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            acquired = _acquire(descriptor, wait_s=left)
        except BaseException:
            os.close(descriptor)
            raise
        if acquired and _is_still(path, descriptor):
            return descriptor
        os.close(descriptor)
        if not acquired:
            return None
        # The holder before us deleted the file that we had opened: a lock on it protects nothing.


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _acquire(descriptor: int, *, wait_s: float | None) -> bool:
    # Polls instead of blocking, so that Ctrl-C and deadlines work in any thread.
    deadline = None if wait_s is None else time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        else:
            return True


def _read_holder(path: Path) -> Holder:
    for _ in range(4):  # between taking the lock and writing the name there is a moment
        try:
            return Holder.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            time.sleep(POLL_S)
    return UNKNOWN_HOLDER


def refusal(name: str, holder: Holder) -> LockedError:
    """Make the error for a pipeline that someone else holds."""
    return LockedError(
        f"{name} is held by run {holder.run}: pid {holder.pid} on {holder.host} since {holder.since}",
        code="TG0520",
        where=name,
        hint="wait for it with `--wait 600` (seconds), or see `tunegate status`",
    )


def _lock_path(root: Path, name: str) -> Path:
    if not SAFE_NAME.fullmatch(name):
        raise SecurityError(f"not usable as a file name: {name!r}", code="TG0801", where="locks")
    return root / "locks" / f"{name}.lock"
