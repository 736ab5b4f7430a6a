"""Folders and files on a storage that all nodes can access, addressed by content: complete or absent, and verified.

Below the URL there is one folder per content: its files, and `SHARED.json`, which is written last. A node downloads a
folder once into its cache and compares every file's sha256 with that list. Data with tickets is not cached but
downloaded to a folder of the caller's, and removed from the storage when the work is done.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import ConfigError, StorageError, TunegateError
from tasks.storage.files import sha256_file, sha256_json, whole_file
from tasks.storage.sealed_folder import MANIFEST, read_manifest, whole_folder

WHERE = "TUNEGATE_SHARED"
LISTED = "SHARED.json"
"""A folder's list of files on the storage. Not `MANIFEST.json`: a sealed folder has a file of that name."""


class Shared:
    """The storage at an fsspec URL.

    Raises:
        ConfigError: TG0119, no package for this kind of URL is installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url.rstrip("/")
        try:
            self.files, self.base = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise ConfigError(
                f"{self.url!r} cannot be opened: {error}",
                code="TG0119",
                where=WHERE,
                hint="use file:///mnt/shared for a folder that every node mounts, or s3://bucket/prefix with s3fs "
                "installed on every node",
            ) from None

    def put(self, path: Path) -> str:
        """Upload a file or a folder unless it is there already; returns its address.

        Raises:
            StorageError: TG0568, the storage cannot be written.
        """
        entries = _entries(path)
        address = sha256_json(entries)
        if self.has(address):
            return address
        with self.translate_errors():
            for name in entries:
                self._put_file(path / name if path.is_dir() else path, f"{address}/{name}")
            self._put_bytes(orjson.dumps(entries, option=orjson.OPT_SORT_KEYS), f"{address}/{LISTED}")
        return address

    def has(self, address: str) -> bool:
        """Whether it is there and complete."""
        with self.translate_errors():
            return bool(self.files.exists(f"{self.base}/{address}/{LISTED}"))

    def download(self, address: str, folder: Path) -> Path:
        """Download into a new `folder` and verify it; returns the folder.

        Raises:
            StorageError: TG0568, it is not there; TG0510, a file differs from what was uploaded.
        """
        with whole_folder(folder) as aside:  # `cached` does not verify again what has its name
            with self.translate_errors():
                entries = orjson.loads(self.files.cat_file(f"{self.base}/{address}/{LISTED}"))
                for name in entries:
                    (aside / name).parent.mkdir(parents=True, exist_ok=True)
                    self.files.get_file(f"{self.base}/{address}/{name}", str(aside / name))
            _check(aside, entries, address, self.url)
        return folder

    def cached(self, address: str) -> Path:
        """The folder in this node's cache; downloaded once, however many processes need it.

        It stays in the cache, so use it only for data without tickets. A single file keeps its name in the folder.
        """
        cache = node_cache()
        cache.mkdir(parents=True, exist_ok=True)
        folder = cache / address
        with (cache / f".{address}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return folder if folder.is_dir() else self.download(address, folder)

    def remove(self, address: str) -> None:
        """Remove it from the storage, if it is there."""
        with self.translate_errors():
            place = f"{self.base}/{address}"
            if self.files.exists(f"{place}/{LISTED}"):
                self.files.rm_file(f"{place}/{LISTED}")  # first: without it the rest counts as absent, not damaged
            if self.files.exists(place):
                self.files.rm(place, recursive=True)

    @contextmanager
    def probe(self) -> Iterator[tuple[str, str]]:
        """A small file that exists within the block, after it was read back: its name and content.

        Raises:
            StorageError: TG0568, the storage cannot be used.
        """
        name, content = f".probe-{secrets.token_hex(8)}", secrets.token_hex(16)
        with self.translate_errors():
            self._put_bytes(content.encode(), name)
        try:
            with self.translate_errors():
                found = bytes(self.files.cat_file(f"{self.base}/{name}"))
            if found != content.encode():
                raise StorageError(
                    "a file differs after it was written", code="TG0568", where=self.url, hint="check the storage"
                )
            yield name, content
        finally:
            with self.translate_errors():
                self.files.rm_file(f"{self.base}/{name}")

    def _put_file(self, path: Path, name: str) -> None:
        if not self._is_local():
            self.files.put_file(str(path), f"{self.base}/{name}")
            return
        with self._local(name) as aside:
            shutil.copyfile(path, aside)

    def _put_bytes(self, content: bytes, name: str) -> None:
        if not self._is_local():
            self.files.pipe_file(f"{self.base}/{name}", content)
            return
        with self._local(name) as aside:
            aside.write_bytes(content)

    def _local(self, name: str) -> AbstractContextManager[Path]:
        target = Path(self.base) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return whole_file(target)

    def _is_local(self) -> bool:
        """Whether it is a folder: files are then written aside and renamed; object stores write atomically."""
        protocol = self.files.protocol
        return "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Raise any error of the file system within the block as TG0568."""
        try:
            yield
        except TunegateError:
            raise
        except Exception as error:  # each file system has its own errors
            raise StorageError(
                f"the shared storage cannot be used: {type(error).__name__}: {getattr(error, 'strerror', None) or ''}",
                code="TG0568",
                where=self.url,
                hint="is it mounted, writable, and the same on every node? `tunegate ops doctor` checks each",
            ) from None


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    if path.is_file():
        return {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}}
    if (path / MANIFEST).is_file():
        manifest = path / MANIFEST
        return read_manifest(path) | {MANIFEST: {"bytes": manifest.stat().st_size, "sha256": sha256_file(manifest)}}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {
        file.relative_to(path).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_file(file)} for file in files
    }


def _check(folder: Path, entries: Mapping[str, Mapping[str, Any]], address: str, url: str) -> None:
    for name, entry in entries.items():
        if sha256_json(entries) != address or sha256_file(folder / name) != entry["sha256"]:
            raise StorageError(
                f"{name} differs from what was uploaded",
                code="TG0510",
                where=f"{url}/{address}",
                hint="remove the damaged folder; the next run uploads it again",
            )


def node_cache() -> Path:
    """This node's folder for files from the shared storage: below `TUNEGATE_CACHE`, like downloads."""
    chosen = os.environ.get("TUNEGATE_CACHE")
    cache = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "tunegate"
    return cache.expanduser() / "shared"
