"""Small named JSON texts on the shared storage: what says which folders (tasks/cluster/shared.py) belong together.

A note that cannot be read in full is no note: whoever was killed while writing one has written none. It knows nothing
of ray and of what notes mean. Used by tasks/cluster/depot.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from schemas.errors import StorageError
from tasks.files import sha256_json


class Notes:
    """The notes in one folder below an fsspec URL.

    Args:
        url: Of the shared storage; a package for its kind is installed, see `tasks.cluster.shared.Shared`.
        folder: Below it, such as `trainings/<key>`.
    """

    def __init__(self, url: str, folder: str) -> None:
        import fsspec

        self._files, base = fsspec.core.url_to_fs(url.rstrip("/"))
        self._folder = f"{base}/{folder}"

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

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each file system has errors of its own
            raise StorageError(
                f"the shared storage cannot be used: {type(error).__name__}",
                code="TG0568",
                where=self._folder,
                hint="is it mounted, writable, and the same on every node? `tunegate doctor` asks each",
            ) from None
