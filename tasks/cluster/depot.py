"""What a training on a cluster keeps: on the shared storage what outlives its nodes, and on each node one folder.

On the storage, until the run has the result, lie checkpoints, the answers that belong to them and the result. The
folders lie there by content (tasks/cluster/shared.py); a note per checkpoint says that it is complete, so a kill leaves
it absent or whole. A node's folder is shared by its workers and goes when they have ended; what a killed training left
behind (token ids of tickets, checkpoints) goes when the next training begins on the node.

It knows nothing of ray. Used by tasks/cluster/train_part.py on the nodes and by tasks/cluster/train_driver.py.
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
from tasks.failpoint import reach
from tasks.files import sha256_json, write_json
from tasks.train.job import ANSWERS, CHECKPOINTS, KEPT

log = logging.getLogger("tunegate.train")

MARK = "on-shared-storage.json"
"""A file in the scratch folder of a training on a cluster, see `mark`."""
_RESULT = "result"
_STEP = "step-"

Agreed = Callable[[str, Callable[[], str]], str]
"""As `tasks.train.distributed.agreed`."""


def folder_of(key: str) -> str:
    """Where the training of that key has its notes, below the URL of the storage; Ray keeps its own there too."""
    return f"trainings/{key}"


def alone(_: str, value: Callable[[], str]) -> str:
    """There is nobody to agree with."""
    return value()


class Notes:
    """Small named JSON texts in one folder of the shared storage: what says which folders belong together.

    A note that cannot be read in full is no note: whoever was killed while writing one has written none.

    Args:
        shared: The storage.
        folder: Below its URL, such as `trainings/<key>`.
    """

    def __init__(self, shared: Shared, folder: str) -> None:
        self._files, self._named = shared.files, shared.named
        self._folder = f"{shared.base}/{folder}"

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Write or replace a note.

        Raises:
            StorageError: TG0568, the storage cannot be used.
        """
        with self._named():
            self._files.makedirs(self._folder, exist_ok=True)
            told = orjson.dumps({"digest": sha256_json(value), "value": value})
            self._files.pipe_file(f"{self._folder}/{name}.json", told)

    def read(self, name: str) -> dict[str, Any] | None:
        """The note; None when there is none, or none that is whole."""
        with self._named():
            path = f"{self._folder}/{name}.json"
            content = self._files.cat_file(path) if self._exists(path) else b""
        try:
            told = orjson.loads(content)
            value: dict[str, Any] = told["value"]
            return value if told["digest"] == sha256_json(value) else None
        except (ValueError, KeyError, TypeError):
            return None

    def names(self) -> list[str]:
        """Of all notes, in order of the alphabet."""
        with self._named():
            found = self._files.ls(self._folder, detail=False) if self._exists(self._folder) else []
        names = (str(path).rpartition("/")[2] for path in found)
        return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))

    def remove(self, name: str) -> None:
        """Remove the note, if it is there."""
        with self._named():
            path = f"{self._folder}/{name}.json"
            if self._exists(path):
                self._files.rm_file(path)

    def clear(self) -> None:
        """Remove the folder with all that is in it."""
        with self._named():
            if self._exists(self._folder):
                self._files.rm(self._folder, recursive=True)

    def _exists(self, path: str) -> bool:
        self._files.invalidate_cache()  # other nodes write here
        return bool(self._files.exists(path))


class Depot:
    """Of one training.

    Args:
        shared: The storage.
        key: Of the job (`tasks.train.job.TrainJob.key`): nothing of another key is ever found.
        agreed: Lets all processes of a training take what the first one has found.
        told: Called with the step of each checkpoint that is complete here.
        warn: Told of each checkpoint that is passed over, and why.
    """

    def __init__(
        self,
        shared: Shared,
        key: str,
        *,
        agreed: Agreed = alone,
        told: Callable[[int], None] = lambda _: None,
        warn: Callable[[str], None] = log.warning,
    ) -> None:
        self._shared, self._agreed, self._told, self._warn = shared, agreed, told, warn
        self._notes = Notes(shared, folder_of(key))

    def bring(self, scratch: Path) -> None:
        """See `tasks.train.part.Depot`; a damaged checkpoint is passed over, as one on a disk is."""
        found = orjson.loads(self._agreed("checkpoints", lambda: orjson.dumps(self._checkpoints()).decode()))
        for name, note in found.items():
            try:
                self._shared.bring(note["checkpoint"], scratch / CHECKPOINTS / name)
            except StorageError as error:
                self._warn(f"checkpoint {name} on the shared storage is passed over: {error.message}")
                continue
            if note["answers"]:
                shutil.rmtree(scratch / ANSWERS, ignore_errors=True)  # the newest has those of the older ones too
                self._shared.bring(note["answers"], scratch / ANSWERS)

    def keep(self, scratch: Path, checkpoint: Path) -> None:
        """See `tasks.train.part.Depot`; older checkpoints than the last `KEPT` go."""
        answers = self._shared.put(scratch / ANSWERS) if (scratch / ANSWERS).is_dir() else None
        note = {"checkpoint": self._shared.put(checkpoint), "answers": answers}
        reach("train.depot.put")
        self._notes.write(checkpoint.name, note)
        self._told(int(checkpoint.name.removeprefix(_STEP)))
        found = self._checkpoints()
        old = dict(list(found.items())[:-KEPT])
        for name in old:
            self._notes.remove(name)
        self._remove(_addresses(old.values()) - _addresses(note for name, note in found.items() if name not in old))

    def keep_result(self, final: Path) -> str:
        """Copy the sealed result there; returns its address."""
        address = self._shared.put(final)
        self._notes.write(_RESULT, {"result": address})
        return address

    def result(self) -> str | None:
        """Address of the result of an attempt that ended before the run had it; None when there is none."""
        found = self._agreed("result", lambda: (self._notes.read(_RESULT) or {}).get("result", ""))
        return found or None

    def clear(self) -> None:
        """Remove all of this training from the storage."""
        notes = [note for name in self._notes.names() if (note := self._notes.read(name)) is not None]
        self._notes.clear()  # first: what is left then is found by nobody
        self._remove(_addresses(notes))

    def _checkpoints(self) -> dict[str, dict[str, Any]]:
        """Name -> note of the complete ones, oldest first."""
        names = [name for name in self._notes.names() if name.startswith(_STEP)]
        return {name: note for name in names if (note := self._notes.read(name)) is not None}

    def _remove(self, addresses: Iterable[str]) -> None:
        for address in sorted(addresses):
            self._shared.remove(address)


def mark(scratch: Path, url: str, key: str, dataset: str) -> None:
    """Note in the scratch folder what lies on the storage for as long as the training lasts, and perhaps longer.

    Args:
        scratch: Of the training.
        url: Of the storage.
        key: Of the job.
        dataset: Address of the data set.
    """
    write_json(scratch / MARK, {"shared": url, "key": key, "dataset": dataset})


def clear_marked(folder: Path, *, unless: str | None = None) -> None:
    """Remove from the storage what trainings that were cut off have there, by the marks below the folder.

    Args:
        folder: Scratch folder of one training, or of all.
        unless: Key of a training that keeps what it has.

    Raises:
        StorageError: TG0568, the storage cannot be used.
    """
    for path in sorted(folder.rglob(MARK)):
        told = orjson.loads(path.read_bytes())
        if told["key"] == unless:
            continue
        shared = Shared(told["shared"])
        shared.remove(told["dataset"])
        Depot(shared, told["key"]).clear()
        path.unlink()


def _addresses(notes: Iterable[dict[str, Any]]) -> set[str]:
    return {address for note in notes for address in note.values() if address}


class NodeFolder:
    """`root` is there inside the block.

    Args:
        key: Of the training.
        trainings: Where trainings of this node have their folders.
    """

    def __init__(self, key: str, *, trainings: Path | None = None) -> None:
        self._trainings = trainings or node_cache() / "trainings"
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
        """A folder that the first worker of the node makes, complete or not at all; the others wait for it."""
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
    """Remove a training's folder unless a process has it in use."""
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
