"""Files of a training on a cluster: a depot on the shared storage, which outlives nodes, and one folder per node.

Until the run has the result, the storage holds checkpoints, their answers and the result, in folders addressed by
content (tasks/cluster/shared.py). A note per checkpoint says that it is complete, so a kill leaves it absent or
complete. A node's workers share its folder, which is removed when they have ended; what a killed training left there
(token ids of tickets, checkpoints) is removed when the next training starts on the node.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from schemas.errors import StorageError
from tasks.cluster.shared import Shared, node_cache
from tasks.storage.failpoint import reach
from tasks.storage.files import sha256_json, write_json
from tasks.train.job import ANSWERS, CHECKPOINTS, KEPT

log = logging.getLogger("tunegate.train")

MARK = "on-shared-storage.json"
"""A file in the scratch folder of a training on a cluster, see `mark`."""
_RESULT = "result"
_STEP = "step-"

FromLeader = Callable[[str, Callable[[], str]], str]
"""As `tasks.train.distributed.value_of_leader`."""


def folder_of(key: str) -> str:
    """Folder below the storage's URL for the notes of the training with this key; Ray's own files go there too."""
    return f"trainings/{key}"


class Notes:
    """Small named JSON texts in one folder of the shared storage, which say which folders belong together.

    A note that cannot be read completely counts as absent, such as one whose writer was killed.

    Args:
        shared: The storage.
        folder: Path below its URL, such as `trainings/<key>`.
    """

    def __init__(self, shared: Shared, folder: str) -> None:
        self._files, self._translate_errors = shared.files, shared.translate_errors
        self._folder = f"{shared.base}/{folder}"

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Write or replace a note.

        Raises:
            StorageError: TG0568, the storage cannot be used.
        """
        with self._translate_errors():
            self._files.makedirs(self._folder, exist_ok=True)
            text = orjson.dumps({"digest": sha256_json(value), "value": value})
            self._files.pipe_file(f"{self._folder}/{name}.json", text)

    def read(self, name: str) -> dict[str, Any] | None:
        """The note; None when it is absent or incomplete."""
        with self._translate_errors():
            path = f"{self._folder}/{name}.json"
            content = self._files.cat_file(path) if self._exists(path) else b""
        try:
            note = orjson.loads(content)
            value: dict[str, Any] = note["value"]
            return value if note["digest"] == sha256_json(value) else None
        except (ValueError, KeyError, TypeError):
            return None

    def names(self) -> list[str]:
        """Names of all notes, sorted."""
        with self._translate_errors():
            found = self._files.ls(self._folder, detail=False) if self._exists(self._folder) else []
        names = (str(path).rpartition("/")[2] for path in found)
        return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))

    def remove(self, name: str) -> None:
        """Remove the note, if it is there."""
        with self._translate_errors():
            path = f"{self._folder}/{name}.json"
            if self._exists(path):
                self._files.rm_file(path)

    def clear(self) -> None:
        """Remove the folder and everything in it."""
        with self._translate_errors():
            if self._exists(self._folder):
                self._files.rm(self._folder, recursive=True)

    def _exists(self, path: str) -> bool:
        self._files.invalidate_cache()  # other nodes write here
        return bool(self._files.exists(path))


class Depot:
    """The shared storage of one training.

    Args:
        shared: The storage.
        key: The job's key (`tasks.train.job.TrainJob.key`); it never finds anything of another key.
        from_leader: Gives all processes of a training what the first one has found; the default is for one process.
        on_saved: Called with the step of each complete checkpoint.
        warn: Called for each checkpoint that is skipped, with the reason.
    """

    def __init__(
        self,
        shared: Shared,
        key: str,
        *,
        from_leader: FromLeader = lambda _, value: value(),
        on_saved: Callable[[int], None] = lambda _: None,
        warn: Callable[[str], None] = log.warning,
    ) -> None:
        self._shared, self._from_leader, self._on_saved, self._warn = shared, from_leader, on_saved, warn
        self._notes = Notes(shared, folder_of(key))

    def restore(self, scratch: Path) -> None:
        """See `tasks.train.part.CheckpointDepot`; it skips a damaged checkpoint, as for a local one."""
        found = orjson.loads(self._from_leader("checkpoints", lambda: orjson.dumps(self._checkpoints()).decode()))
        for name, note in found.items():
            try:
                self._shared.download(note["checkpoint"], scratch / CHECKPOINTS / name)
            except StorageError as error:
                self._warn(f"checkpoint {name} on the shared storage is skipped: {error.message}")
                continue
            if note["answers"]:
                shutil.rmtree(scratch / ANSWERS, ignore_errors=True)  # the newest include the older ones
                self._shared.download(note["answers"], scratch / ANSWERS)

    def save(self, scratch: Path, checkpoint: Path) -> None:
        """See `tasks.train.part.CheckpointDepot`; removes all but the newest `KEPT` checkpoints."""
        answers = self._shared.put(scratch / ANSWERS) if (scratch / ANSWERS).is_dir() else None
        note = {"checkpoint": self._shared.put(checkpoint), "answers": answers}
        reach("train.depot.put")
        self._notes.write(checkpoint.name, note)
        self._on_saved(int(checkpoint.name.removeprefix(_STEP)))
        found = self._checkpoints()
        old = dict(list(found.items())[:-KEPT])
        for name in old:
            self._notes.remove(name)
        self._remove(_addresses(old.values()) - _addresses(note for name, note in found.items() if name not in old))

    def save_result(self, final: Path) -> str:
        """Copy the sealed result to the storage; returns its address."""
        address = self._shared.put(final)
        self._notes.write(_RESULT, {"result": address})
        return address

    def result(self) -> str | None:
        """Address of a result that the run has not fetched yet; None when there is none."""
        found = self._from_leader("result", lambda: (self._notes.read(_RESULT) or {}).get("result", ""))
        return found or None

    def clear(self) -> None:
        """Remove everything of this training from the storage."""
        notes = [note for name in self._notes.names() if (note := self._notes.read(name)) is not None]
        self._notes.clear()  # first: without notes the rest cannot be found
        self._remove(_addresses(notes))

    def _checkpoints(self) -> dict[str, dict[str, Any]]:
        """Name -> note of each complete checkpoint, oldest first."""
        names = [name for name in self._notes.names() if name.startswith(_STEP)]
        return {name: note for name in names if (note := self._notes.read(name)) is not None}

    def _remove(self, addresses: Iterable[str]) -> None:
        for address in sorted(addresses):
            self._shared.remove(address)


def mark(scratch: Path, url: str, key: str, dataset: str) -> None:
    """Record in the scratch folder what the storage holds during the training, and after it if it is killed.

    Args:
        scratch: The training's scratch folder.
        url: URL of the storage.
        key: The job's key.
        dataset: Address of the data set.
    """
    write_json(scratch / MARK, {"shared": url, "key": key, "dataset": dataset})


def clear_marked(folder: Path, *, unless: str | None = None) -> None:
    """Remove what interrupted trainings left on the storage, as recorded by the marks below the folder.

    Args:
        folder: Scratch folder of one training, or of all.
        unless: Key of a training to keep the files of.

    Raises:
        StorageError: TG0568, the storage cannot be used.
    """
    for path in sorted(folder.rglob(MARK)):
        found = orjson.loads(path.read_bytes())
        if found["key"] == unless:
            continue
        shared = Shared(found["shared"])
        shared.remove(found["dataset"])
        Depot(shared, found["key"]).clear()
        path.unlink()


def _addresses(notes: Iterable[dict[str, Any]]) -> set[str]:
    return {address for note in notes for address in note.values() if address}


class NodeFolder:
    """A context manager for a training's folder on this node; `root` exists within the block.

    Args:
        key: The training's key.
    """

    def __init__(self, key: str) -> None:
        self._trainings = node_cache() / "trainings"
        self.root = self._trainings / key[:16]

    def __enter__(self) -> NodeFolder:
        self._trainings.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._in_use = _open_lock(_lock_of(self.root))
        fcntl.flock(self._in_use, fcntl.LOCK_SH)
        for other in self._trainings.iterdir():
            if other.is_dir() and other != self.root:
                _remove_unused(other)
        self.root.mkdir(exist_ok=True, mode=0o700)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._in_use)
        _remove_unused(self.root)  # the last worker of the node does it

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """A folder that the node's first worker makes, complete or not at all; the others wait for it."""
        place = self.root / name
        making = _open_lock(self.root / f".{name}.lock")
        try:
            fcntl.flock(making, fcntl.LOCK_EX)
            if not place.is_dir():
                make(place)
        finally:
            os.close(making)
        return place


def _remove_unused(folder: Path) -> None:
    """Remove a training's folder unless a process is using it."""
    lock = _open_lock(_lock_of(folder))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
