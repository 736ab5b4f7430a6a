"""The content-addressed store: `store/STEP/KEY/` is a complete result or does not exist.

A result is written to a temporary folder, sealed (`tasks/storage/sealed_folder.py`) and renamed into place.
Processes that want the same result wait for each other and share it; the next one sweeps what a killed one left. The
store does not know what the steps do; only `flows/graph/execute.py` writes results.

Below the root: `store/` results, `keys/` what each was made from, `tmp/` temporary work, `scratch/` what survives a
kill (checkpoints), `damaged/` results that do not match their manifest, `locks/keys/` locks of results in progress.
"""

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import orjson
from pydantic import ValidationError

from flows.graph.keys import KeyParts
from flows.workspace.disk import make_private, named_disk_errors, private_folder
from flows.workspace.lock import SAFE_NAME, hold
from flows.workspace.temporary import sweep, temporary_folder
from schemas.artifacts import Artifact
from schemas.errors import SecurityError, StorageError
from schemas.secrets import masked_value
from tasks.storage.failpoint import reach
from tasks.storage.files import sha256_json, sync_directory, write_json
from tasks.storage.sealed_folder import MANIFEST, read_manifest, seal, verify

REFERENCE = "artifact.json"
LOG_WAITING_AFTER_S = 1.0

A = TypeVar("A", bound=Artifact)
log = logging.getLogger("tunegate.store")


@dataclass(frozen=True)
class Obtained(Generic[A]):
    """A result, and whether it had to be made."""

    artifact: A
    key: str
    reused: bool
    seconds: float
    """Seconds it took to make and store; 0 when reused."""


@dataclass(frozen=True)
class Damage:
    """A directory in a result's place that is not complete."""

    reason: str


class Store:
    """Results below one root. Creating the object touches nothing on disk.

    Its manifest shows that a result is complete; `recorded` shows that it is the original: it returns the recorded
    digests of a key, which has none after a kill between storing and recording.
    """

    def __init__(self, root: Path, *, recorded: Callable[[str], frozenset[str]] | None = None) -> None:
        self.root = root.absolute()
        self._swept = False
        self._recorded = recorded

    def place(self, step: str, key: str) -> Path:
        """Return the result's directory, whether or not it exists.

        Raises:
            SecurityError: the step's name or the key would leave the store.
        """
        for name in (step, key):
            if not SAFE_NAME.fullmatch(name):
                raise SecurityError(f"not usable as a folder name: {name!r}", code="TG0801", where="store")
        return self.root / "store" / step / key

    def look(self, step: str, key: str, returns: type[A], *, deep: bool = False) -> A | Damage | None:
        """Return the result, its damage, or None; change nothing.

        By default the manifest must exist and every file must have its size; `deep` reads every byte.
        """
        place = self.place(step, key)
        if not place.is_dir():
            return None
        try:
            digest = verify(place) if deep else _digest_by_sizes(place)
            on_record = self._recorded(key) if self._recorded is not None else frozenset()
            if on_record and digest not in on_record:
                return Damage("it is not what the ledger recorded")
            fields = orjson.loads((place / REFERENCE).read_bytes())
            return returns.model_validate({**fields, "root": place, "digest": digest})
        except StorageError as error:
            return Damage(error.message)
        except (OSError, ValueError, TypeError, KeyError, ValidationError) as error:
            return Damage(f"{REFERENCE} or {MANIFEST} cannot be read ({type(error).__name__})")

    def whole(self, step: str, key: str | None, returns: type[A], *, deep: bool = False) -> A | None:
        """Return the result; None without a key, and if it is absent or damaged. Changes nothing."""
        found = self.look(step, key, returns, deep=deep) if key else None
        return None if isinstance(found, Damage) else found

    def find(self, step: str, key: str, returns: type[A], *, deep: bool = False) -> A | None:
        """Return the result, or None. A damaged one is moved to `damaged/` with a warning, and counts as absent."""
        found = self.look(step, key, returns, deep=deep)
        if not isinstance(found, Damage):
            return found
        with self._lock(step, key):
            return self._found_or_moved(step, key, returns, deep=deep)

    def obtain(
        self, step: str, key: str, returns: type[A], produce: Callable[[Path], A], *, parts: KeyParts | None = None
    ) -> Obtained[A]:
        """Return the stored result, or make it with `produce(directory)` and commit it.

        Of several processes at the same time one makes it; the others wait and reuse it. Every byte of a reused result
        is read first: a damaged one is moved away and made again.

        Args:
            produce: Writes its files into the empty directory and returns the reference with `root` set to it.
            parts: What the key was computed from; stored for `why_changed`.

        Raises:
            StorageError: TG0501 the disk is full, TG0510 the result points outside itself.
        """
        found = self.find(step, key, returns, deep=True)
        if found is not None:
            return self._reused(found, step, key)
        with self._lock(step, key), named_disk_errors(self.root):
            found = self._found_or_moved(step, key, returns)
            if found is not None:
                return self._reused(found, step, key)
            self._sweep_once()
            started = time.monotonic()
            with temporary_folder(self.root) as folder:
                reach("store.started")
                artifact = self._make(folder, returns, produce)
                if parts is not None:
                    # Before the result: a result whose parts are unknown would make `plan` promise too much work.
                    kept = private_folder(self.root / "keys" / step) / f"{key}.json"
                    write_json(kept, masked_value(parts.model_dump(mode="json")))
                committed = self._commit(artifact, step, key, returns)
                reach("store.committed")
            return Obtained(committed, key, reused=False, seconds=time.monotonic() - started)

    @contextmanager
    def make_temporarily(self, returns: type[A], produce: Callable[[Path], A]) -> Iterator[A]:
        """Make and seal a result like `obtain`, and remove it at the end of the block: for comparisons."""
        with named_disk_errors(self.root), temporary_folder(self.root) as folder:
            yield self._make(folder, returns, produce)

    def with_digest(self, step: str, digest: str, returns: type[A]) -> A | None:
        """Return the step's stored result with this digest, whatever its key; None if there is none."""
        for place in sorted((self.root / "store" / step).glob("*")):
            found = self.whole(step, place.name, returns)
            if found is not None and found.digest == digest:
                return found
        return None

    def scratch(self, step: str, key: str) -> Path:
        """Return the key's own folder, which survives killed attempts and is removed once the result is committed.

        Only `produce` of the same key may use it: `obtain` locks out others meanwhile.
        """
        return private_folder(self._scratch(step, key))

    def discard(self, step: str, key: str) -> None:
        """Remove a result, if it exists, in one rename, so that no reader sees half of it."""
        place = self.place(step, key)
        with self._lock(step, key), temporary_folder(self.root) as folder:
            if place.is_dir():
                place.rename(folder / "discarded")

    def known_parts(self, step: str) -> tuple[KeyParts, ...]:
        """Return what earlier results of the step were made from, newest first; skip unreadable entries."""
        folder = self.root / "keys" / step
        files = sorted(folder.glob("*.json"), key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)
        return tuple(parts for file in files if (parts := self.parts(step, file.stem)) is not None)

    def parts(self, step: str, key: str) -> KeyParts | None:
        """Return what the result of this key was made from; None if that was not stored or cannot be read."""
        file = self.root / "keys" / step / f"{key}.json"
        try:
            return KeyParts.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            log.debug("%s cannot be read", file)
            return None

    def _reused(self, found: A, step: str, key: str) -> Obtained[A]:
        shutil.rmtree(self._scratch(step, key), ignore_errors=True)  # its maker was killed after the rename
        return Obtained(found, key, reused=True, seconds=0.0)

    def _make(self, folder: Path, returns: type[A], produce: Callable[[Path], A]) -> A:
        """Let the task write, add the reference and seal; the artifact's root is still the temporary folder."""
        out = private_folder(folder / "out")
        artifact = produce(out)
        if not isinstance(artifact, returns) or artifact.root != out:
            raise TypeError(f"the step must return {returns.__name__} with root=out, got {artifact!r:.200}")
        reach("store.produced")
        reference = out / REFERENCE
        if reference.exists():
            raise TypeError(f"the step must not write {REFERENCE}: the store does")
        write_json(reference, artifact.model_dump(mode="json", exclude={"root", "digest"}))
        make_private(out)
        digest = seal(out)
        (out / MANIFEST).chmod(0o600)
        reach("store.sealed")
        return artifact.model_copy(update={"digest": digest})

    def _commit(self, artifact: A, step: str, key: str, returns: type[A]) -> A:
        """Rename into place; if a process of another machine was first, return its result."""
        place = self.place(step, key)
        private_folder(place.parent)
        try:
            artifact.root.rename(place)
        except OSError:
            theirs = self._found_or_moved(step, key, returns)
            if theirs is None:
                artifact.root.rename(place)
            else:
                artifact = theirs
        reach("store.renamed")
        for folder in (place.parent, self.root / "store", self.root):
            sync_directory(folder)
        shutil.rmtree(self._scratch(step, key), ignore_errors=True)
        return artifact.model_copy(update={"root": place})

    def _found_or_moved(self, step: str, key: str, returns: type[A], *, deep: bool = False) -> A | None:
        """Like `find`, for a holder of the key's lock."""
        found = self.look(step, key, returns, deep=deep)
        if not isinstance(found, Damage):
            return found
        target = private_folder(self.root / "damaged") / f"{step}-{key[:16]}-{uuid.uuid4().hex[:8]}"
        self.place(step, key).rename(target)
        log.warning("TG0510 a stored result of %s is damaged (%s); moved to %s, made again", step, found.reason, target)
        return None

    def _scratch(self, step: str, key: str) -> Path:
        return self.root / "scratch" / self.place(step, key).relative_to(self.root / "store")

    @contextmanager
    def _lock(self, step: str, key: str) -> Iterator[None]:
        path = private_folder(self.root / "locks" / "keys") / f"{self.place(step, key).parent.name}-{key[:32]}.lock"
        with hold(path, wait_s=LOG_WAITING_AFTER_S) as held:
            if held:
                yield
                return
        log.info("another process is making the same result of %s; waiting for it", step)
        with hold(path):
            yield

    def _sweep_once(self) -> None:
        """Remove the unfinished work of processes that died."""
        if not self._swept:
            self._swept = True
            sweep(self.root)


def _digest_by_sizes(place: Path) -> str:
    """Return the directory's digest from its manifest, after comparing names and sizes.

    Raises:
        StorageError: a file is missing, added or of another size.
    """
    entries = read_manifest(place)
    sizes = {
        path.relative_to(place).as_posix(): path.stat().st_size
        for path in place.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }
    for name in sorted(sizes.keys() | entries.keys()):
        expected = entries[name]["bytes"] if name in entries else None
        if sizes.get(name) != expected:
            raise StorageError(
                f"{name} has {sizes.get(name, 'no')} bytes, the manifest says {expected}",
                code="TG0510",
                where=str(place),
            )
    return sha256_json(entries)
