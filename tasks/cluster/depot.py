"""What of a training outlives its nodes: checkpoints, the answers that belong to them and the result, on the shared
storage, until the run has the result.

The folders lie there by content; a note per checkpoint says that it is complete, so a kill leaves it absent or whole.
It knows nothing of ray. Made by tasks/cluster/train_part.py on the nodes and by tasks/cluster/train_driver.py.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import StorageError
from tasks.cluster.notes import Notes
from tasks.cluster.shared import Shared
from tasks.failpoint import reach
from tasks.files import write_json
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
        self._notes = Notes(shared.url, folder_of(key))

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


def clear_marked(folder: Path) -> None:
    """Remove from the storage what trainings that were cut off have there, by the marks below the folder.

    Raises:
        StorageError: TG0568, the storage cannot be used.
    """
    for path in sorted(folder.rglob(MARK)):
        told = orjson.loads(path.read_bytes())
        shared = Shared(told["shared"])
        shared.remove(told["dataset"])
        Depot(shared, told["key"]).clear()
        path.unlink()


def _addresses(notes: Iterable[dict[str, Any]]) -> set[str]:
    return {address for note in notes for address in note.values() if address}
